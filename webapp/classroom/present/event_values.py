"""The properties of an event as single values, each with the filter that finds events like it."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from webapp.classroom.present.event_address import METHODS
from webapp.classroom.present.filters import LIST_ITEMS_MAX, readable
from webapp.classroom.present.request_texts import page_names

# The most values of an event in a list; an event may have thousands.
LISTED_MAX = 40
# The most on the event's own page, which shows all of them as JSON too.
SHOWN_MAX = 1000
_PERSONS = frozenset(
    ("user", "login", "actor", "switchedto", "person", "student", "pupil", "teacher", "member",
     "author", "owner")
)  # fmt: skip
# A longer value is shown, but is no filter.
FILTER_CHARS_MAX = 200


@dataclass(frozen=True)
class Value:
    """One value: its dotted path, its text, and the filter (name, value) that it makes, if any."""

    path: str
    text: str
    filter: tuple[str, str] | None = None
    repeats: bool = False  # a further item of the list with this path
    person: str | None = None  # the user id, where the property's name says that it is one


def listed(props: Mapping[str, Any]) -> list[Value]:
    """Returns the values for a list of events: long lists and long texts are cut."""
    ordered = sorted(props.items(), key=lambda item: item[0] in ("request_id", "duration_ms"))
    return _cut(_values(dict(ordered), LIST_ITEMS_MAX, readable), LISTED_MAX)


def whole(props: Mapping[str, Any]) -> list[Value]:
    """Returns the values for the event's own page, with their texts in full."""
    return _cut(_values(props, SHOWN_MAX, _in_full), SHOWN_MAX)


def narrowing(path: str, text: str) -> tuple[str, str] | None:
    """Returns the filter for a property's value, one with a field of its own if there is one."""
    if path == "endpoint" and text in page_names():
        return "page", text
    if path == "status" and text.isascii() and text.isdigit() and len(text) == 3:
        return path, text
    if path == "method" and text in METHODS:
        return path, text
    wanted = f"{path}={text}"
    # A form's field keeps neither control characters nor the spaces around a text.
    is_typed = wanted == wanted.strip() and not any(map(_is_control, wanted))
    is_named = path.partition("=")[0].strip()
    return ("prop", wanted) if is_typed and is_named and _is_short(wanted) else None


def filter_text(value: Any) -> str | None:
    """Returns a single value as a filter names it: text as it is, others as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return json.dumps(value) if isinstance(value, int | float | None) else None


def names_person(path: str) -> bool:
    """Whether a property of this name holds user ids, by logd's own rule for its default names."""
    plain = re.sub("[_. -]", "", path.rpartition(".")[2]).casefold()
    return any(plain.removesuffix(end) in _PERSONS for end in ("", "s", "id", "ids"))


def _values(
    props: Mapping[str, Any], items_max: int, text: Callable[[Any], str]
) -> Iterator[Value]:
    for key, value in props.items():
        yield from _of(str(key), value, items_max, text)


def _of(path: str, value: Any, items_max: int, text: Callable[[Any], str]) -> Iterator[Value]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _of(f"{path}.{key}", inner, items_max, text)
    elif isinstance(value, list) and value:
        found = (part for item in value for part in _of(path, item, items_max, text))
        for at, part in enumerate(islice(found, items_max)):
            yield replace(part, repeats=at > 0 or part.repeats)
        if len(value) > items_max:
            yield Value(path, f"and {len(value) - items_max:,} more", repeats=True)
    else:
        named = filter_text(value)
        yield Value(
            path,
            text(value),
            None if named is None else narrowing(path, named),
            person=named if names_person(path) else None,
        )


def _cut(values: Iterator[Value], most: int) -> list[Value]:
    found = list(islice(values, most))
    left = sum(1 for _ in values)
    return [*found, Value("…", f"and {left:,} more")] if left else found


def _in_full(value: Any) -> str:
    return repr(value) if isinstance(value, float) else readable(value, None)


def _is_short(text: str) -> bool:
    return len(text) <= FILTER_CHARS_MAX


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc"
