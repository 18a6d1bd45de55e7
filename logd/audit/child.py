"""Calls a function in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

from logd.errors import NotChecked

# The process is not forked, since a SQLite connection must not be carried into another process.
CONTEXT = multiprocessing.get_context("spawn")


def call_in_process(function: Callable[..., Any], *values: Any) -> Any:
    """Calls a module's function in a new process, and returns its result.

    Raises the function's OSError, and NotChecked if the process ends without a result.
    """
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_run, args=(theirs, function, values), daemon=True)
    process.start()
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
