"""The command line of logd: lists the commands, and turns each error into a line and a code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from logd import __version__
from logd.commands._command import Group
from logd.commands._output import discard_stdout, fail
from logd.errors import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_SOFTWARE, LogdError
from logd.storage.database import DatabaseError, translate
from logd_wire.paths import PathTooLong


class _Group(Group):
    """Prints each error of logd as one line and exits with its code, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except LogdError as error:
            fail(str(error), error.exit_code)
        except PathTooLong as error:
            fail(str(error), EXIT_CONFIG)
        except DatabaseError as error:
            config = context.obj
            problem = translate(error, config.database if config else Path("database"))
            fail(str(problem), getattr(problem, "exit_code", EXIT_SOFTWARE))
        except KeyboardInterrupt:
            fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of stdout has closed it (`logd query | head`).
            discard_stdout()
            sys.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="logd")
def main() -> None:
    """An encrypted activity log that loses nothing.

    A site writes each event to an outbox in memory and continues; `logd run`, the daemon, stores
    the events in an encrypted database, confirms them, and maintains a hash chain over them. The
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
    "Check": ("status", "metrics", "check", "verify", "losses", "quarantine", "conformance"),
}
main.sections = SECTIONS
