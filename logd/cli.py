"""The command line. Every failure is one clear line on stderr and an exit code of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from logd import __version__
from logd.commands._command import Group
from logd.commands._options import abandon_output, fail
from logd.errors import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_SOFTWARE, LogdError
from logd.storage.database import DatabaseError, translate
from logd_wire.paths import PathTooLong


class _Group(Group):
    """Turns our errors into a line and an exit code: no traceback reaches a person."""

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
            # The reader of our output has seen enough (`logd query | head`).
            abandon_output()
            sys.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="logd")
def main() -> None:
    """An encrypted activity log that loses nothing.

    A site hands each event to memory and forgets it; `logd run` stores what arrives in an encrypted
    database, confirms it, and keeps a hash chain over it. Every other command asks or looks after
    one such instance, which is named by its logd.toml: --config, or LOGD_CONFIG in the environment.

    \b
    logd init var/logd                           make an instance
    logd run --config var/logd/logd.toml         serve it
    logd status --config var/logd/logd.toml      what is stored, waits, or is lost
    logd tail --follow --config ...              watch events arrive
    logd verify --config ...                     show that nothing was changed

    `logd COMMAND --help` says when to use a command, with examples and exit codes.
    """


# Each command, and its module in `logd.commands`.
SECTIONS = {
    "Serve": {"init": "serving", "genkey": "serving", "run": "serving"},
    "Read": {"query": "reading", "tail": "reading", "person": "person"},
    "Keep": {
        **dict.fromkeys(("backup", "restore", "rekey"), "copies"),
        "export": "export",
        **dict.fromkeys(("prune", "forget"), "keeping"),
    },
    "Check": {
        **{"status": "serving", "metrics": "metrics", "check": "check", "verify": "verify"},
        **dict.fromkeys(("losses", "quarantine"), "reading"),
        "conformance": "conformance",
    },
}
main.sections = SECTIONS
