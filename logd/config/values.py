"""Checks of single values in logd.toml. Each returns the value to use, or raises ValueError."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from logd.config.retention import check_type, parse_period
from logd_wire.schema import SUBJECTS

SHOWN_CHARS_MAX = 80
_PERSON_KEYS = 'expected a list of names of properties, such as ["user", "student"]'
_KEPT_BY = {
    name for kind in SUBJECTS.values() for name in (kind.key, kind.value, kind.attempt) if name
}
_ADDRESS = re.compile(
    r"(?P<host>localhost|127(?:\.\d{1,3}){3}|\[::1\]):(?P<port>\d{1,5})", re.ASCII
)


class EntryError(ValueError):
    """A table in logd.toml has an invalid entry, `key`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def path(value: object) -> str:
    """Accepts a path."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a path in quotes")
    return value


def metrics(value: object) -> str | tuple[str, int]:
    """Accepts a path, or an address of this machine only, since metrics have no password."""
    text = path(value)
    address = _ADDRESS.fullmatch(text)
    if address and 0 < int(address["port"]) < 65536:
        return address["host"].strip("[]"), int(address["port"])
    if address or re.search(r":\d*$", text):
        raise ValueError('expected a path, or an address such as "127.0.0.1:9464" or "[::1]:9464"')
    return text


def mode(value: object) -> int:
    """Accepts file permissions."""
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('expected permissions as octal digits in quotes, such as "0660"')
    return int(value, 8)


def boolean(value: object) -> bool:
    """Accepts true and false."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def uids(value: object) -> tuple[int, ...]:
    """Accepts a list of user ids."""
    if not isinstance(value, list) or not all(
        type(item) is int and 0 <= item < 2**32 for item in value
    ):
        raise ValueError("expected a list of user ids, such as [33, 1000]")
    return tuple(value)


def trail_ids(value: object) -> tuple[str, ...]:
    """Accepts a list of ids of trails."""
    if not isinstance(value, list) or not all(
        isinstance(item, str) and re.fullmatch(r"[0-9a-f]{16}", item) for item in value
    ):
        raise ValueError('expected a list of ids of trails, such as ["0123456789abcdef"]')
    return tuple(value)


def group(value: object) -> str:
    """Accepts the name of a group."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
        raise ValueError('expected the name of a group in quotes, such as "logd-read"')
    return value


def person_keys(value: object) -> tuple[str, ...]:
    """Accepts the keys that name persons; not those by which roll-ups are kept."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(_PERSON_KEYS)
    names = [unicodedata.normalize("NFC", name) for name in value]
    for name in names:
        if not re.fullmatch(r"_*[^\W\d_][\w.-]{0,63}", name):
            raise ValueError(_PERSON_KEYS)
        if re.sub(r"[_.-]", "", name).casefold() in _KEPT_BY:
            raise ValueError(
                f"expected names of persons; {name!r} names none (roll-ups are kept by it)"
            )
    return tuple(names)


def apps(value: object) -> dict[str, tuple[int, ...]]:
    """Accepts a table of applications with the user id, or a list of them, that each runs as."""
    if not isinstance(value, dict):
        raise ValueError("expected a user id for each application: apps.shop = 1001")
    made = {}
    for name, item in value.items():
        try:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", name):
                raise ValueError("expected a name of letters, digits, '_', '-' and '.'")
            made[name] = uids(item if isinstance(item, list) else [item])
            if not made[name]:
                raise ValueError("expected at least one user id")
        except ValueError as error:
            raise EntryError(name, f"apps: {shown(name)} = {shown(item)}: {error}") from error
    return made


def whole(low: int, high: int) -> Callable[[object], int]:
    """Returns a check that accepts whole numbers from `low` to `high`."""

    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return check


def retention(value: object) -> dict[str, int]:
    """Accepts a table of event types with their periods; returns the periods in nanoseconds."""
    if not isinstance(value, dict):
        raise ValueError('expected a period for each type: retention.page_view = "90d"')
    periods = {}
    for event_type, period in value.items():
        try:
            check_type(event_type)
            periods[event_type] = parse_period(period)
        except ValueError as error:
            hint = ""
            if isinstance(period, dict):  # TOML reads a type with a dot, without quotes, as a table
                hint = f'; write a type with dots in quotes: "{event_type}.paid" = "90d"'
            entry = f"retention of {shown(event_type)} = {shown(period)}"
            raise EntryError(event_type, f"{entry}: {error}{hint}") from error
    return periods


def shown(value: object) -> str:
    """Formats a value for a message, with bounded length."""
    try:
        return shortened(repr(value))
    # Repr() fails for a number of thousands of digits, or a table that is nested too deeply.
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


def shortened(text: str) -> str:
    """Returns the text, shortened to the length that messages show."""
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 3] + "..."
