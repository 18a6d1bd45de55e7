"""Checks the fields of an event, and names the properties that roll-ups are kept by.

An event has a type, a user (or none), a wall-clock time and properties. Both sides check the same
limits with the functions below, so what a client accepts a daemon stores.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

EVENT_TYPE_CHARS_MAX = 64
USER_BYTES_MAX = 255  # an OpenID `sub` has up to 255 ASCII characters, a mail address 254
PROPS_DEPTH_MAX = 16
PAYLOAD_BYTES_MAX = 32 * 1024
KEY_CHARS_SHOWN = 40
TYPE_NAME_CHARS_MAX = 100

# The maximum of SQLite's integers and of msgpack's signed ones; as nanoseconds, the year 2262.
INT64_MAX = 2**63 - 1

# Types of events that logd itself writes when the trail is changed or copied.
INTERNAL_TYPES = frozenset(
    {
        "batches_collapsed",
        "events_pruned",
        "person_erased",
        "trail_backed_up",
        "trail_export_started",
        "trail_exported",
        "trail_rekeyed",
        "trail_restored",
    }
)

# The type of event for a report about persons; unlike the other internal types it may be pruned.
REPORT_READ = "report_read"
# Types that a client may not send.
RESERVED_TYPES = INTERNAL_TYPES | {REPORT_READ}

# One or more words of lower-case letters, digits and underscores, joined by single dots or hyphens.
_EVENT_TYPE = re.compile(r"(?!.{65})[a-z][a-z0-9_]*(?:[.-][a-z0-9_]+)*\Z")
# Unicode's category Cc, which includes NUL, line ends and terminal codes.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A character takes at most four bytes, so a user of this length is valid without encoding it.
USER_CHARS_SURE = USER_BYTES_MAX // 4
_SCALARS = frozenset({str, int, float, bool, type(None)})
# These read the attributes of `type` itself, without running code of a metaclass.
_type_module = type.__dict__["__module__"].__get__
_type_qualname = type.__dict__["__qualname__"].__get__
# Valid types that were found, so that each is checked once, and how many are kept at most.
_known_types: set[str] = set()
_KNOWN_TYPES_MAX = 1000


class Malformed(ValueError):
    """An event that breaks the schema. The message names the field and the fault."""


class Reserved(Malformed):
    """An event whose type only logd may write."""


@dataclass(frozen=True)
class Subject:
    """The properties by which a type of event is rolled up per user.

    They are a key, a figure, and the number of the attempt, which orders events of the same time.
    """

    key: str
    value: str | None = None
    attempt: str | None = None


# The types whose latest state per user is kept as a roll-up, for dashboards.
SUBJECTS: Mapping[str, Subject] = {
    "task_completed": Subject(key="task"),
    "quiz_submitted": Subject(key="quiz", value="score", attempt="attempt"),
}


def check_event_type(event_type: object, internal: Container[str] = ()) -> str:
    """Checks and returns the type. Raises Malformed or Reserved.

    A type has 1-64 characters: lower-case words joined by dots or hyphens (`quiz_submitted`,
    `order.paid`). Reserved is raised for one of RESERVED_TYPES that is not among `internal`.
    """
    if (
        type(event_type) is str
        and len(event_type) <= EVENT_TYPE_CHARS_MAX
        and event_type in _known_types
    ):
        return event_type
    if not is_event_type(event_type):
        raise Malformed(
            f"event type {_shown(event_type)}: expected 1 to {EVENT_TYPE_CHARS_MAX} characters: "
            "lower-case letters, digits, underscores, a letter first; single dots or hyphens "
            "between them"
        )
    assert isinstance(event_type, str)
    if event_type in RESERVED_TYPES:
        if event_type in internal:
            return event_type
        raise Reserved(f"event type {event_type}: reserved for logd itself")
    if len(_known_types) >= _KNOWN_TYPES_MAX:
        # The set is emptied, so that a client that invents
        # types does not keep the real ones out for ever.
        _known_types.clear()
    _known_types.add(event_type)
    return event_type


def is_event_type(value: object) -> bool:
    """Whether the value has the form of a type; logd's own types have it too."""
    return isinstance(value, str) and _EVENT_TYPE.match(value) is not None


def check_user(user: object) -> str | None:
    """Checks and returns the user as a client may log it. Raises Malformed.

    A user is text without control characters, or None; a whole number becomes its decimal text.
    """
    # Most users are short printable text, which has no control characters: a quick check.
    if type(user) is str and 0 < len(user) <= USER_CHARS_SURE and user.isprintable():
        return user
    text = check_stored_user(user)
    found = None if text is None else _CONTROL.search(text)
    if found is not None:
        raise Malformed(
            f"user {_shown(text)}: the control character U+{ord(found[0]):04X}; log an id without "
            "control characters (a number of your own, or a hash of this one)"
        )
    return text


def check_stored_user(user: object) -> str | None:
    """Checks and returns the user as the daemon stores it. Raises Malformed.

    The daemon allows control characters too, which earlier clients accepted.
    """
    if user is None or (type(user) is str and 0 < len(user) <= USER_CHARS_SURE):
        return user
    # Checked by type: an object may claim any `__class__`,
    # and an enumeration member's own text is its name, not its value.
    kind = type(user)
    if issubclass(kind, int) and kind is not bool:
        number = int.__int__(user)  # type: ignore[arg-type] # not narrowed by issubclass
        if abs(number) > INT64_MAX:
            raise Malformed("user: a number beyond 64 bits")
        return str(number)
    if not issubclass(kind, str):
        raise Malformed(
            f"user: a value of type {kind.__name__}; expected a non-empty text, a whole number or "
            "None"
        )
    text = str.__str__(user)
    if not text:
        raise Malformed("user: an empty text; expected a non-empty one, a whole number or None")
    # The length is checked before the text is encoded, since it may be of any length.
    if len(text) > USER_BYTES_MAX:
        raise Malformed(f"user: {len(text)} characters, over the limit of {USER_BYTES_MAX} bytes")
    if len(text) > USER_CHARS_SURE:
        try:
            length = len(text.encode())
        except UnicodeEncodeError as error:
            raise Malformed(f"user {_shown(text)}: not valid Unicode: {error.reason}") from error
        if length > USER_BYTES_MAX:
            raise Malformed(f"user: {length} bytes of UTF-8, over the limit of {USER_BYTES_MAX}")
    return text


def check_ts_ns(ts_ns: object) -> int:
    """Checks and returns the time in nanoseconds since 1970 UTC. Raises Malformed.

    Malformed is a time outside 0 .. 2**63-1, or a float such as time.time(). Whole seconds are not
    refused: they look like a time in 1970, as of a clock that was not set.
    """
    if type(ts_ns) is not int or not 0 <= ts_ns <= INT64_MAX:
        raise Malformed(
            f"ts_ns {_shown(ts_ns)}: expected whole nanoseconds since 1970, 0 to 2**63-1, as"
            " time.time_ns() gives"
        )
    return ts_ns


def check_props(props: object) -> bool:
    """Raises Malformed unless `props` is a dict with text keys, plain values, and bounded depth.

    Returns whether there are maps or arrays among the values.
    """
    if not isinstance(props, dict):
        raise Malformed(f"props: expected a map, not {type(props).__name__}")
    # Most properties are flat and plain, and checked here, since this runs for each event.
    for key, value in props.items():
        # `__class__` is quicker than type(), and the same for the values that msgpack makes.
        if key.__class__ is not str or value.__class__ not in _SCALARS:
            _check_value("props", props, PROPS_DEPTH_MAX)
            return True
    return False


def _check_value(where: str, value: object, depth_left: int) -> None:
    if type(value) in _SCALARS:
        return
    if depth_left == 0:
        raise Malformed(f"{where}: nested deeper than {PROPS_DEPTH_MAX} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise Malformed(f"{where}: a key of type {type(key).__name__}, expected text")
            # The key is cut, since it may be as long as an event and is in the place of each value.
            _check_value(f"{where}.{key[:KEY_CHARS_SHOWN]}", item, depth_left - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_value(f"{where}[]", item, depth_left - 1)
    else:
        raise Malformed(
            f"{where}: a value of type {type(value).__name__}; expected text, number, boolean, "
            "None, list or map"
        )


def type_name(kind: type) -> str:
    """Returns the type's name with its module, without running code of the type."""
    module = _type_module(kind)
    name: str = _type_qualname(kind)
    if type(module) is str and module != "builtins":
        name = f"{module}.{name}"
    return name[:TYPE_NAME_CHARS_MAX].encode("utf-8", "backslashreplace").decode()


def _shown(value: Any) -> str:
    """Formats any value for a message, short and without running the value's own `__repr__`."""
    kind = type(value)
    if kind is str:
        value = value[:80]
    elif kind not in _SCALARS:
        return f"a value of type {type_name(kind)}"
    try:
        text = ascii(value)
    except ValueError:  # the number has too many digits
        return "a number of too many digits"
    return text if len(text) <= 80 else text[:77] + "..."
