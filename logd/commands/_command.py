"""Commands that teach: what a command does and when, its examples, and what its end means.

`--help` and the man pages are made of the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from logd.errors import EXITS


class Command(click.Command):
    """A command with examples (a line to type, and what it is for) and the codes it ends with."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[tuple[str, str]] = (),
        exits: Sequence[int] = (),
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.examples = examples
        self.exits = exits

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click: what stands below the options."""
        if self.examples:
            with formatter.section("Examples"):
                for line, purpose in self.examples:
                    formatter.write_text(f"# {purpose}")
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        if self.exits:
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(code), EXITS[code].meaning) for code in self.exits])
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """Shows its commands by what one does with them; the module of one is imported when it is asked
    for, since all of them together take as long as the daemon to start.
    """

    sections: Mapping[str, Mapping[str, str]] = {}

    def named(self, name: str) -> click.Command:
        """The command of that name. Raises KeyError."""
        module = {name: module for part in self.sections.values() for name, module in part.items()}
        command: click.Command = getattr(import_module(f"logd.commands.{module[name]}"), name)
        return command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Called by click: every name, by section."""
        return [name for part in self.sections.values() for name in part]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Called by click."""
        return self.named(cmd_name) if cmd_name in self.list_commands(ctx) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click."""
        width = max(len(name) for name in self.list_commands(ctx))
        for title, part in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(width), self.named(name).get_short_help_str(limit=200))
                        for name in part
                    ]
                )
