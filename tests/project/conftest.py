"""A supervisor of `make run` with stand-ins for its children."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.supervised_run import LOGD_INIT, LOGD_RUN, LOGD_STATUS, SEED, SITE, Run
from tests.support.ports import free_port
from webapp.run.plan import Plan


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run on a free port whose stand-ins succeed; its children end with the test."""
    record, port, var = tmp_path / "record", free_port(), tmp_path / "var"
    var.mkdir()

    def stand_in(code: str, *arguments: object) -> tuple[str, ...]:
        return (sys.executable, "-S", "-c", code, str(record), *map(str, arguments))

    plan = Plan(
        port=port,
        var=var,
        logd_init=stand_in(LOGD_INIT, var / "logd"),
        logd_run=stand_in(LOGD_RUN),
        logd_status=stand_in(LOGD_STATUS),
        seed=stand_in(SEED, var / "classroom"),
        site=stand_in(SITE, port),
    )
    run = Run(plan, record)
    yield run
    with contextlib.suppress(AttributeError):  # never started
        run.ctrl_c()
        run.end()
    for line in record.read_text().splitlines() if record.exists() else ():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.rsplit(" ", 1)[1]), 0)
