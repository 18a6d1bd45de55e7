"""Decides which events a search selects: by type, user, time, and what their properties hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logd.reports.parameters import BadParameter, Parameters
from logd.storage.block_values import scalar_text
from logd.storage.mentions import PersonKeys, canonical, is_person
from logd_wire.schema import Malformed
from logd_wire.wire import unpack_props

PROPS_MAX = 16  # the most `path=value` in one question
SOUGHT_CHARS_MAX = 1000
TEXT_CHARS_MAX = 255
ABOUT_CHARS_MAX = 255

# Characters that are not ASCII, but hold an ASCII letter once case is ignored (`str.casefold`):
# bytes with one of them may hold sought letters that are not seen in them.
_BECOME_ASCII = re.compile(
    "|".join(
        "\u00df\u0130\u0149\u017f\u01f0\u1e96\u1e97\u1e98\u1e99\u1e9a\u1e9e\u212a"
        "\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05\ufb06"
    ).encode()
)

# What the text of a number can look like; a person of another name is in the properties as text.
_MAY_BE_NUMBER = re.compile("[-+.0-9aefin]+")


@dataclass(frozen=True)
class EventFilter:
    """What a search selects; a field of None (or an empty `props`) selects all."""

    types: frozenset[str] | None = None
    users: tuple[str, ...] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    about: str | None = None
    props: tuple[str, ...] = ()
    text: str | None = None

    @classmethod
    def of(cls, parameters: Parameters) -> EventFilter:
        """Takes the parameters of a filter."""
        event_type, types = parameters.maybe_text("type"), parameters.maybe_texts("types")
        user, users = parameters.maybe_text("user"), parameters.maybe_texts("users")
        chosen_types = _both(event_type, types)
        return cls(
            None if chosen_types is None else frozenset(chosen_types),
            _both(user, users),
            parameters.maybe_whole("since_ns"),
            parameters.maybe_whole("until_ns"),
            _bounded("about", parameters.maybe_text("about"), ABOUT_CHARS_MAX),
            _equations(parameters.maybe_texts("props")),
            _bounded("text", parameters.maybe_text("text"), TEXT_CHARS_MAX),
        )

    @property
    def reads_props(self) -> bool:
        """Whether an event's properties decide if it is selected."""
        return self.about is not None or bool(self.props) or self.text is not None


def _both(one: str | None, several: list[str] | None) -> tuple[str, ...] | None:
    if one is None:
        return None if several is None else tuple(dict.fromkeys(several))
    return (one,) if several is None or one in several else ()


def _bounded(name: str, value: str | None, chars_max: int) -> str | None:
    if value is not None and not 0 < len(value) <= chars_max:
        raise BadParameter(f"{name}: expected 1 to {chars_max} characters")
    return value


def _equations(values: list[str] | None) -> tuple[str, ...]:
    values = values or []
    if len(values) > PROPS_MAX:
        raise BadParameter(f"props: expected at most {PROPS_MAX} texts")
    for value in values:
        if "=" not in value or len(value) > SOUGHT_CHARS_MAX:
            raise BadParameter(
                f"props: expected path=value of at most {SOUGHT_CHARS_MAX} characters"
            )
    return tuple(values)


class Content:
    """Checks the type and the packed properties of events; `types` has the name of each type."""

    def __init__(self, wanted: EventFilter, keys: PersonKeys, types: Mapping[int, str]) -> None:
        self._checks: list[Callable[[bytes], bool]] = [_has_equation(one) for one in wanted.props]
        if wanted.about is not None:
            self._checks.append(_names(wanted.about, keys))
        self._text = None if wanted.text is None else _has_text(wanted.text)
        folded = (wanted.text or "").casefold()
        self._types = frozenset(
            number for number, name in types.items() if wanted.text and folded in name.casefold()
        )

    def matches(self, event_type: int, props: bytes) -> bool:
        """Whether the properties are those sought; False if they are damaged."""
        try:
            return all(check(props) for check in self._checks) and (
                self._text is None or event_type in self._types or self._text(props)
            )
        except (Malformed, TypeError, AttributeError):
            return False


def _names(about: str, keys: PersonKeys) -> Callable[[bytes], bool]:
    person, name = is_person(about), canonical(about)
    if not name.isascii() or _MAY_BE_NUMBER.fullmatch(name):
        return lambda props: keys.mentions(props, person)
    sought = name.encode()  # the only spelling
    return lambda props: sought in props and keys.mentions(props, person)


def _has_equation(equation: str) -> Callable[[bytes], bool]:
    # The last part of the path is in a key, whatever of the text is the path, and what the value.
    part = equation.partition("=")[0].rpartition(".")[2].encode(errors="replace")
    sought = "." + equation
    return lambda props: part in props and _leads_to(unpack_props(props), sought)


def _leads_to(value: Any, sought: str) -> bool:
    """Whether the rest of `.path=value` is true of a value; keys may have a `.` or `=` too."""
    if isinstance(value, dict):
        return sought[:1] == "." and any(
            sought.startswith(key, 1) and _leads_to(item, sought[1 + len(key) :])
            for key, item in value.items()
        )
    if isinstance(value, list):
        return any(_leads_to(item, sought) for item in value)
    return sought[:1] == "=" and sought[1:] == scalar_text(value)


def _has_text(text: str) -> Callable[[bytes], bool]:
    folded = text.casefold()
    if not folded.isascii():
        return lambda props: _holds(unpack_props(props), folded)
    sought = folded.encode()
    return lambda props: (
        (sought in props.lower() or _BECOME_ASCII.search(props) is not None)
        and _holds(unpack_props(props), folded)
    )


def _holds(value: Any, folded: str) -> bool:
    if isinstance(value, str):
        return folded in value.casefold()
    if isinstance(value, dict):
        return any(folded in key.casefold() or _holds(item, folded) for key, item in value.items())
    return isinstance(value, list) and any(_holds(item, folded) for item in value)
