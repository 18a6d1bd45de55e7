"""The options that select events, shared by the commands that read or copy events."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from logd.commands._options import TIME, Text
from logd.reports.selection import Selection

_TEXT = Text()


class Property(click.ParamType[tuple[str, str]]):
    """The type of an option that is a property and its value, as KEY=VALUE."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        text = _TEXT.convert(value, param, context)
        key, equals, wanted = text.partition("=")
        if not equals or not key:
            self.fail(f"{text!r}: expected KEY=VALUE, such as task=12.", param, context)
        return key, wanted


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that select events, passed to the command as `selection`."""

    @functools.wraps(command)
    def chosen(
        *args: Any,
        types: tuple[str, ...],
        users: tuple[str, ...],
        since: int | None,
        until: int | None,
        where: tuple[tuple[str, str], ...],
        **others: Any,
    ) -> Any:
        return command(*args, selection=Selection(types, users, since, until, where), **others)

    for option in reversed(_SELECTION_OPTIONS):
        chosen = option(chosen)
    return chosen


_SELECTION_OPTIONS = (
    click.option(
        "--type",
        "types",
        type=_TEXT,
        multiple=True,
        metavar="T",
        help="Select events of this type; repeat it for several types.",
    ),
    click.option(
        "--user",
        "users",
        type=_TEXT,
        multiple=True,
        metavar="U",
        help="Select events of this user; repeat it for several users.",
    ),
    click.option(
        "--since",
        type=TIME,
        help="Select events from this time on: 2026-03-01, 2026-03-01T12:00 (UTC), 12h or 2w (ago),"
        " or seconds, milliseconds, microseconds or nanoseconds since 1970 (told apart by size).",
    ),
    click.option("--until", type=TIME, help="Select events before this time."),
    click.option(
        "--where",
        type=Property(),
        multiple=True,
        metavar="KEY=VALUE",
        help="Select events with this property. VALUE is text, or JSON for other values (12, 0.8,"
        " true, null). Repeat it to require several properties.",
    ),
)
