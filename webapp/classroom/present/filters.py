"""Template filters: times, scores and properties of events as text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Flask

from webapp.classroom.model.reports import Unavailable
from webapp.classroom.present import markdown

VALUE_CHARS_MAX = 200
LIST_ITEMS_MAX = 5
# The most properties shown of an event: an event may have thousands,
# and a page of such events would take seconds.
PROPS_SHOWN_MAX = 40


def init_app(app: Flask) -> None:
    app.add_template_filter(moment)
    app.add_template_filter(iso)
    app.add_template_filter(day)
    app.add_template_filter(saved_time)
    app.add_template_filter(percent)
    app.add_template_filter(readable)
    app.add_template_filter(duration)
    app.add_template_filter(own_first)
    app.add_template_filter(markdown.render, "markdown")
    app.add_template_filter(markdown.render_inline, "markdown_inline")
    app.add_template_test(lambda value: isinstance(value, Unavailable), "unavailable")


def moment(ts_ns: int) -> str:
    """Formats a time for people, in UTC like the days of the charts."""
    return f"{_datetime(ts_ns):%a %-d %b %Y, %H:%M}"


def saved_time(ts_ns: int) -> str:
    """Formats the time of saving: "at 10:31", or with the date if that is not today."""
    at = _datetime(ts_ns)
    if at.date() == _datetime(time.time_ns()).date():
        return f"at {at:%H:%M}"
    return f"on {moment(ts_ns)}"


def iso(ts_ns: int) -> str:
    """Formats a time in ISO 8601, to the millisecond."""
    return _datetime(ts_ns).isoformat(sep="T", timespec="milliseconds").replace("+00:00", "Z")


def minute(ts_ns: int) -> str:
    """Formats the time of day, in UTC."""
    return f"{_datetime(ts_ns):%H:%M}"


def day(number: int) -> str:
    """Formats a day, counted from 1970."""
    return f"{_datetime(number * 86_400 * 10**9):%-d %b %Y}"


def percent(score: float) -> str:
    return f"{score * 100:.0f}\N{NO-BREAK SPACE}%"


def duration(seconds: int) -> str:
    """Formats a waiting time, rounded up: "40 seconds", "5 minutes"."""
    if seconds < 60:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    minutes = -(-seconds // 60)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def readable(value: Any, chars_max: int | None = VALUE_CHARS_MAX) -> str:
    """Formats a property's value of any type, in at most `chars_max` characters.

    Characters that reverse or hide the text around them are replaced: text from outside, such as
    a page's address, may hold them.
    """
    if isinstance(value, float):
        text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:g}"
    elif isinstance(value, str):
        text = value
    elif isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "none"}[value]
    else:
        text = json.dumps(_shortened(value), ensure_ascii=False, default=repr)
    if chars_max is not None and len(text) > chars_max:
        text = text[: chars_max - 1] + "…"
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    # The joiners are kept, since they belong to words of some scripts, and to emoji.
    is_fine = char.isprintable() or char.isspace() or char in "\u200c\u200d"
    return char if is_fine else "\N{REPLACEMENT CHARACTER}"


def _shortened(value: Any) -> Any:
    """Shortens long lists, such as the users of a report, to the first items and a count."""
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        left = len(value) - LIST_ITEMS_MAX
        shown = [_shortened(item) for item in value[:LIST_ITEMS_MAX]]
        return [*shown, f"and {left:,} more"] if left > 0 else shown
    return value


def own_first(props: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the properties as stored, with `request_id`, which all events share, at the end; of
    many the first ones, and how many more there are.
    """
    shown = sorted(props.items(), key=lambda item: item[0] == "request_id")
    left = len(shown) - PROPS_SHOWN_MAX
    return [*shown[:PROPS_SHOWN_MAX], ("…", f"and {left:,} more")] if left > 0 else shown


def _datetime(ts_ns: int) -> datetime:
    return datetime.fromtimestamp(ts_ns // 1_000_000 / 1000, UTC)
