"""The client's guard lets one thread in at a time, wherever Python switches threads."""

from __future__ import annotations

import dis
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from logd_client import Client
from logd_client.emitter import Emitter
from logd_client.guard import Guard
from tests.support.instance import ROOT, Instance, check_streams, check_sums

THREADS = 4
CALLS = 100
PACKAGE = "logd_client"


class NoProducers:
    """A guard's producers when there are none."""

    def reset(self, forked: bool) -> None:
        """Nothing to reset."""

    def release_inherited(self) -> None:
        """Nothing to close."""


def in_threads_that_switch_at_every_line(call: Callable[[], None]) -> None:
    """Calls it many times in each of some threads. A tracer, as debuggers and coverage have one,
    lets another thread run before every line of the client.
    """

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if PACKAGE not in frame.f_code.co_filename:
            return None
        os.sched_yield()  # releases the GIL
        return trace

    def run() -> None:
        sys.settrace(trace)
        try:
            for _ in range(CALLS):
                call()
        finally:
            sys.settrace(None)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_thread_at_a_time_is_inside() -> None:
    guard = Guard()
    guard.protect(NoProducers(), ())
    inside: list[int] = []
    most = 0

    def enter(nested: bool) -> None:
        nonlocal most
        assert not nested
        inside.append(1)
        os.sched_yield()
        most = max(most, len(inside))
        inside.pop()

    in_threads_that_switch_at_every_line(lambda: guard.run(enter))
    assert most == 1
    assert guard.free
    assert guard.owner == 0


def test_each_event_of_several_threads_has_a_sequence_and_is_stored(instance: Instance) -> None:
    client = Client(instance.socket)
    assert client.emit("app_started")
    accepted: list[bool] = []
    in_threads_that_switch_at_every_line(lambda: accepted.append(client.emit("page_view")))
    stats = client.stats()
    assert stats["attempted"] == stats["accepted"] == 1 + sum(accepted) == 1 + THREADS * CALLS
    client.close()
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=stats["attempted"], accepted=stats["accepted"])
    assert list(check_streams(instance.events()).values()) == [1 + THREADS * CALLS]
    assert status["lost"] == status["quarantined"] == 0


def test_a_python_without_the_gil_is_refused_with_the_remedy() -> None:
    program = "import sys; sys._is_gil_enabled = lambda: False; import logd_client"
    result = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": "shared"}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("ImportError: logd_client needs the GIL")
    assert "PYTHON_GIL=1" in result.stderr


@pytest.mark.parametrize("function", [Guard.run, Emitter.accept])
def test_nothing_runs_in_the_middle_of_the_statement_by_which_a_thread_enters(
    function: Callable[..., Any],
) -> None:
    """A call would let in signal handlers and other threads, a branch what monitors branches."""
    names: dict[Any, list[tuple[str, Any]]] = {}
    for found in dis.get_instructions(function):
        line = found.positions and found.positions.lineno
        names.setdefault(line, []).append((found.opname, found.argval))
    (entering,) = [
        [name for name, _ in line]
        for line in names.values()
        if ("STORE_FAST", "entered") in line and ("STORE_ATTR", "free") in line
    ]
    assert not [name for name in entering if "JUMP" in name or "CALL" in name]
