"""Click commands with examples and exit codes in their help, from which man pages are made too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from logd.commands._streams import continue_without_reader
from logd.errors import ANY_COMMAND_EXITS, EXITS


class Command(click.Command):
    """A command with examples, each a command line and its purpose, and with its exit codes."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[tuple[str, str]] = (),
        exits: Sequence[int] = (),
        ends_with_reader: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.examples = examples
        self.ends_with_reader = ends_with_reader
        self.exits = sorted({*exits, *ANY_COMMAND_EXITS})

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; click calls it.

        For most commands the exit code is the answer, whoever reads their text, so they continue
        when the reader of stdout has left. A command that only prints ends then.
        """
        if not self.ends_with_reader:
            continue_without_reader()
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples and exit codes below the options. Called by click."""
        if self.examples:
            with formatter.section("Examples"):
                for line, purpose in self.examples:
                    formatter.write_text(f"# {purpose}")
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), EXITS[code].meaning) for code in self.exits])
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A group of commands in sections, which imports a command's module only when it is used.

    Importing all modules takes as long as starting the daemon.
    """

    sections: Mapping[str, Sequence[str]] = {}

    def load_command(self, name: str) -> click.Command:
        """Imports the command with the given name. Raises ModuleNotFoundError."""
        command: click.Command = getattr(import_module(f"logd.commands.{name}"), name)
        return command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Returns the names of all commands, section by section. Called by click."""
        return [name for names in self.sections.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command with the given name, or None. Called by click."""
        return self.load_command(cmd_name) if cmd_name in self.list_commands(ctx) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands under the headings of their sections. Called by click."""
        width = max(len(name) for name in self.list_commands(ctx))
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(width), self.load_command(name).get_short_help_str(limit=200))
                        for name in names
                    ]
                )
