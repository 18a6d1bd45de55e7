"""Commands that teach: what a command does and when, its examples, and what its end means.

`--help` and the man pages are made of the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Shows its commands by what one does with them."""

    sections: Mapping[str, Sequence[click.Command]] = {}

    def add(self, sections: Mapping[str, Sequence[click.Command]]) -> None:
        """Adds the commands under their headings."""
        self.sections = sections
        for commands in sections.values():
            for command in commands:
                self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Called by click."""
        width = max(len(name) for name in self.commands)
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (str(command.name).ljust(width), command.get_short_help_str(limit=200))
                        for command in commands
                    ]
                )
