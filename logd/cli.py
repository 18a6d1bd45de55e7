"""The command line. Every failure is one clear line on stderr and an exit code of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from logd import __version__
from logd.commands import copies, exporting, persons, reading, serving, verifying
from logd.commands.options import fail
from logd.database import DatabaseError, translate
from logd.errors import EXIT_CONFIG, LogdError
from shared.paths import PathTooLong


class _Group(click.Group):
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
            fail(str(problem), getattr(problem, "exit_code", 70))
        except BrokenPipeError:
            # The reader of our output has seen enough (`logd query | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="logd")
def main() -> None:
    """An encrypted activity log that loses nothing.

    \b
    logd init var/logd                           make an instance
    logd run --config var/logd/logd.toml         serve it
    logd tail --follow --config ...              watch events arrive
    logd verify --config ...                     show that nothing was changed
    logd backup --config ...                     copy it, while it runs
    """


for command in (
    *(serving.init, serving.genkey, serving.run, serving.status),
    *(reading.query, reading.tail, reading.losses, reading.quarantine),
    *(persons.person, exporting.export, copies.backup, verifying.verify),
):
    main.add_command(command)
