"""Ctrl-C in `logd verify` ends it with one line, also while its helper processes start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.logd.test_verify import original
from tests.support.instance import ROOT, Instance, until

__all__ = ["original"]  # a fixture

# Python runs this before all else. A helper says that it starts, and takes a second for it.
SLOW_START = """
import pathlib, sys, time
if any("spawn_main" in argument for argument in sys.orig_argv):
    pathlib.Path(__file__).with_name("starting").touch()
    time.sleep(1)
"""
VERIFY = """
import sys
from logd.audit import verify_processes
verify_processes.EVENTS_PER_PROCESS_MIN = 1
from logd.__main__ import main
main()
"""


@pytest.mark.parametrize("how", [("--processes", "2"), ("--incremental",)])
def test_ctrl_c_while_helpers_start_is_one_line(
    how: tuple[str, ...], stored: Instance, tmp_path: Path
) -> None:
    """A terminal sends the signal to the helpers as well."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    python_path = os.pathsep.join((str(tmp_path), str(ROOT), str(ROOT / "shared")))
    command = subprocess.Popen(
        [sys.executable, "-c", VERIFY, "verify", *how, "--config", str(stored.config.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": python_path},
    )
    with command:
        until((tmp_path / "starting").exists, "a helper starts")
        os.killpg(command.pid, signal.SIGINT)
        out, errors = command.communicate(timeout=60)
    assert (command.returncode, out, errors) == (130, "", "logd: interrupted\n")
