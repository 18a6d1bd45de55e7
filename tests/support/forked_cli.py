"""Runs commands of logd in forks of the test process: a hundredth of the price of a new Python, and
as any user, who need not be able to read the files of this Python.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from logd.cli import SECTIONS, main

COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


@dataclass(frozen=True)
class Done:
    """How a command has ended."""

    code: int
    stderr: str


def load_commands() -> None:
    """Imports what a command imports when it runs: another user may not be able to."""
    import click._termui_impl  # noqa: F401 - by its progress bar
    import prometheus_client.exposition  # noqa: F401 - by `logd metrics`

    for name in COMMANDS:
        main.load_command(name)
    for encoding in ("ascii", "idna", "latin-1", "utf-16-be"):
        "".encode(encoding)


def run(
    arguments: Sequence[str],
    *,
    user: int | None = None,
    groups: Sequence[int] = (),
    stdout: str | int | None = os.devnull,
    stdin: str | None = os.devnull,
    encoding: str = "utf-8",
) -> Done:
    """Runs a command to its end. `stdout` is the file that it prints to, or its descriptor, and
    `stdin` what it reads; None for a closed one.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            _become(writing, user, groups, stdout, stdin, encoding)
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 98
        except BaseException:  # noqa: BLE001 - what must not happen, shown to the test
            os.write(2, traceback.format_exc().encode())
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as lines:
        text = lines.read()
    return Done(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text)


def _become(
    stderr: int,
    user: int | None,
    groups: Sequence[int],
    stdout: str | int | None,
    stdin: str | None,
    encoding: str,
) -> None:
    os.dup2(os.open(stdin or os.devnull, os.O_RDONLY), 0)
    os.dup2(stderr, 2)
    if stdout is None:
        os.close(1)
        sys.stdout = sys.__stdout__ = None  # type: ignore[misc] # as Python does then
    else:
        os.dup2(stdout if isinstance(stdout, int) else os.open(stdout, os.O_WRONLY), 1)
        sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, closefd=False)  # type: ignore[misc] # noqa: SIM115 - as Python does
    sys.stderr = sys.__stderr__ = open(2, "w", encoding=encoding, closefd=False)  # type: ignore[misc] # noqa: SIM115 - as Python does
    if stdin is None:
        os.close(0)
        sys.stdin = sys.__stdin__ = None  # type: ignore[misc] # as Python does then
    if user is not None:
        os.setgroups(groups)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
