"""What commands print: data on stdout; notes, progress and the final error line on stderr."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from logd import log_format
from logd.render import printable
from logd.storage.job_table import Job

_JOB_STEPS = 1000


def fail(message: str, exit_code: int) -> NoReturn:
    """Ends the program with one error line on stderr."""
    text = printable(message)
    click.echo(
        log_format.format_line(logging.ERROR, text, journal=log_format.reads_stderr()), err=True
    )
    sys.exit(exit_code)


def print_traceback(error: Exception) -> None:
    """Prints the traceback of an internal error, if it was asked for or goes to the journal.

    In the journal the traceback is at the lowest level; elsewhere it is printed if LOGD_TRACEBACK
    is set in the environment.
    """
    journal = log_format.reads_stderr()
    if journal or os.environ.get("LOGD_TRACEBACK"):
        text = "".join(traceback.format_exception(error)).rstrip()
        click.echo(log_format.format_line(logging.DEBUG, text, journal=journal), err=True)


def print_line(line: str) -> None:
    """Prints a line of data unchanged; click.echo would remove what looks like colour codes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_note(message: str) -> None:
    """Prints a note for people on stderr; in the journal it is a warning."""
    _print_warning(message, journal=log_format.reads_stderr())


def warn_in_journal(message: str) -> None:
    """Repeats a line of stdout as a warning in the journal, which gives stdout no level."""
    if log_format.reads_stderr():
        _print_warning(message, journal=True)


def _print_warning(message: str, *, journal: bool) -> None:
    line = log_format.format_line(logging.WARNING, printable(message), journal=journal)
    click.echo(line, err=True)


@contextmanager
def progress_bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar if stderr is a terminal; yields the function that advances it."""
    with click.progressbar(
        length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        yield bar.update


@contextmanager
def job_progress(label: str) -> Iterator[Callable[[Job], None]]:
    """Shows a job's progress bar, and prints each reason why the job has to wait once."""
    position = 0
    printed: set[str] = set()
    with progress_bar(label, _JOB_STEPS) as advance:

        def show(job: Job) -> None:
            nonlocal position
            reached = _JOB_STEPS * job.done // max(1, job.total)
            advance(max(0, reached - position))
            position = max(reached, position)
            if job.trouble is not None and job.finished_ns is None and job.trouble not in printed:
                printed.add(job.trouble)
                print_note(f"waiting: {job.trouble}")

        yield show
