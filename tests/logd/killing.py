"""Kills some work right before each of its steps in turn, to see which files are left.

A step is a call that links, renames, removes or flushes a file, or a report of progress of a long
copy or verification. The work runs in a fork that sends itself SIGKILL, so that nothing is cleaned
up.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from logd.maintenance.database_copy import Bar

STEPS = ("link", "rename", "unlink", "fsync")
STEPS_MAX = 100

Work = Callable[[Bar], object]


def killed_at_each_step(directory: Path, work: Work) -> Iterator[int]:
    """Yields the number of each step before which the work was killed, with the files of then.

    The files are restored before the next. The last one yielded is of a run without a kill.
    """
    original = directory.with_name(directory.name + ".original")
    shutil.copytree(directory, original)
    for step in range(STEPS_MAX):
        shutil.rmtree(directory)
        shutil.copytree(original, directory)
        if _run(step, work) == 0:
            yield step
            return
        yield step
    raise AssertionError(f"more than {STEPS_MAX} steps")


def in_child(work: Callable[[], None]) -> bool:
    """Runs the work in a fork; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def _run(step: int, work: Work) -> int:
    pid = os.fork()
    if pid == 0:
        gc.disable()  # what it would collect are the parent's files
        try:
            work(_die_before(step))
        except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return status


def _die_before(step: int) -> Bar:
    left = step

    def come_nearer() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            come_nearer()
            return call(*arguments, **named)

        return wrapped

    @contextmanager
    def bar(_label: str, _length: int) -> Iterator[Callable[[int], None]]:
        come_nearer()
        yield lambda _step: None
        come_nearer()

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    return bar
