"""The command line of logd: lists the commands, and turns each error into a line and a code."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from logd import __version__
from logd.commands import _streams
from logd.commands._command import Group
from logd.commands._output import fail, print_traceback
from logd.commands._permission import no_permission, refused_path
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_INTERRUPTED,
    EXIT_SOFTWARE,
    EXIT_SYSTEM,
    LogdError,
)
from logd.render import printable
from logd.storage.database import DatabaseError, translate
from logd_wire.paths import PathTooLong


class _Group(Group):
    """Prints each error as one line and exits with its code, without a traceback.

    Exit code 1 means that the trail was changed or that a check failed, so no error of another
    kind, such as Python's or click's, may exit with it.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        _streams.prepare()
        with _errors_as_codes(None):  # errors of completion in a shell
            return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _errors_as_codes(None):  # errors of --help and --version
            return super().make_context(*args, **options)

    def invoke(self, context: click.Context) -> Any:
        with _errors_as_codes(context):
            result = super().invoke(context)
            sys.stdout.flush()
            return result


@contextlib.contextmanager
def _errors_as_codes(context: click.Context | None) -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        # click prints this message, which quotes the command line, so escape what is not printable.
        error.message = printable(error.message)  # type: ignore[misc] # final
        raise
    except click.exceptions.Exit:
        raise
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)
    except click.Abort:
        fail("not confirmed, so nothing was done", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)  # stdout was closed by its reader (`logd query | head`)
    except Exception as error:  # noqa: BLE001 - reported, with another code than 1
        fail(*_described(error, context.obj if context else None))


def _described(error: Exception, config: Config | None) -> tuple[str, int]:
    """Returns the line and the exit code for an error that ends a command."""
    if isinstance(error, DatabaseError):
        error = translate(error, config.database if config else Path("database"))
    path = refused_path(error)
    if path is not None and isinstance(error, LogdError | PermissionError):
        error = no_permission(path)
    if isinstance(error, LogdError):
        return str(error), error.exit_code
    if isinstance(error, PathTooLong):
        return str(error), EXIT_CONFIG
    if isinstance(error, click.ClickException):
        return error.format_message(), EXIT_CANNOT_CREATE
    if isinstance(error, MemoryError):
        return "there is not enough memory", EXIT_SYSTEM
    print_traceback(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"internal error: {type(error).__name__}: {error} ({Path(place.filename).name}, line"
        f" {place.lineno}). Please report it, with what LOGD_TRACEBACK=1 in the environment adds.",
        EXIT_SOFTWARE,
    )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="logd")
def main() -> None:
    """An encrypted activity log that loses nothing.

    A site writes each event to an outbox in memory and continues; `logd run`, the daemon, stores
    the events in an encrypted database, confirms them, and keeps a tree of hashes over them. The
    stored events are called the trail. Every other command reads or maintains one such instance,
    given by its logd.toml: use --config, or the environment variable LOGD_CONFIG.

    \b
    logd init var/logd                           create an instance
    logd run --config var/logd/logd.toml         run its daemon
    logd status --config var/logd/logd.toml      show what is stored, pending or lost
    logd tail --follow --config ...              watch events arrive
    logd verify --config ...                     verify that nothing was changed

    `logd COMMAND --help` explains a command, with examples and exit codes.
    """


SECTIONS = {
    "Serve": ("init", "genkey", "run"),
    "Read": ("query", "tail", "person"),
    "Keep": ("backup", "restore", "rekey", "export", "prune", "forget"),
    "Check": (
        "status",
        "metrics",
        "check",
        "verify",
        "checkpoint",
        "prove",
        "losses",
        "quarantine",
        "conformance",
    ),
}
main.sections = SECTIONS
