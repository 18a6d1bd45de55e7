"""The options by which events are chosen: shared by whatever reads or copies them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from logd.commands._options import Text, Time
from logd.reports.selection import Selection


class Property(click.ParamType[tuple[str, str]]):
    """KEY=VALUE of a property."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, wanted = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r}: expected KEY=VALUE, such as task=12.", param, context)
        return key, wanted


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options by which events are chosen; the command gets a `selection`."""

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
        type=Text(),
        multiple=True,
        metavar="T",
        help="Of this type; repeated: of any of them.",
    ),
    click.option(
        "--user",
        "users",
        type=Text(),
        multiple=True,
        metavar="U",
        help="Of this user; repeated: of any of them.",
    ),
    click.option(
        "--since",
        type=Time(),
        help="From this time on: 2026-03-01, 2026-03-01T12:00 (UTC), 12h or 2w (ago), or a count"
        " since 1970, by its size in seconds, milliseconds, microseconds or nanoseconds.",
    ),
    click.option("--until", type=Time(), help="Before this time."),
    click.option(
        "--where",
        type=Property(),
        multiple=True,
        metavar="KEY=VALUE",
        help="With exactly this property: the text, or as JSON has it (12, 0.8, true, null)."
        " Repeated: with all of them.",
    ),
)
