"""Starts processes for a verification, and calls a function in one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection as Pipe
from typing import Any

from logd.errors import NotChecked

# The process is not forked, since a SQLite connection must not be carried into another process.
CONTEXT = multiprocessing.get_context("spawn")


def start_process(function: Callable[..., None], *values: Any) -> Any:
    """Starts a process that calls a module's function, and that Ctrl-C does not reach.

    A terminal sends SIGINT to all processes of the command, and the new one would print a traceback
    while it imports. The parent acts on the signal and ends the process.
    """
    # The tracker that the first process brings along would unblock the signal.
    resource_tracker.ensure_running()
    process = CONTEXT.Process(target=function, args=values, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


def call_in_process(function: Callable[..., Any], *values: Any) -> Any:
    """Calls a module's function in a new process, and returns its result.

    Raises the function's OSError, and NotChecked if the process ends without a result.
    """
    ours, theirs = CONTEXT.Pipe()
    process = start_process(_run, theirs, function, values)
    theirs.close()
    try:
        result = ours.recv()
    except EOFError as error:
        raise NotChecked(
            "not checked: a process of the verification was ended (too little memory?). Try again."
        ) from error
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(result, OSError):
        raise result
    return result


def _run(pipe: Pipe, function: Callable[..., Any], values: tuple[Any, ...]) -> None:
    try:
        pipe.send(function(*values))
    except OSError as error:
        pipe.send(error)
