"""The active filters of the event list as texts, each with the address without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webapp.classroom.model.people import People
from webapp.classroom.present.event_address import EventAddress
from webapp.classroom.present.filters import readable
from webapp.classroom.present.request_texts import page_names

_LABELS = {
    "user": "Who",
    "role": "Role",
    "about": "About",
    "type": "Type",
    "page": "Page",
    "status": "Status",
    "method": "Method",
    "text": "Text",
    "last": "Period",
    "since": "Since",
    "until": "Before",
    "prop": "Property",
}
NAMES_MAX = 3


@dataclass(frozen=True)
class Chip:
    """One active filter, and the query of the address without it."""

    label: str
    text: str
    query: str


def chips(address: EventAddress, people: People, periods: Mapping[str, str]) -> list[Chip]:
    """Returns a chip for each filter of an address, also of an invalid one."""
    return [
        Chip(_LABELS[name], _text(name, value, people, periods), address.without(name, value).query)
        for name, value in address.pairs
    ]


def _text(name: str, value: str, people: People, periods: Mapping[str, str]) -> str:
    if name in ("user", "about"):
        keys = people.keys(value)
        names = ", ".join(people.name(key) for key in keys[:NAMES_MAX])
        if len(keys) <= 1:
            return readable(names or value)
        more = f" and {len(keys) - NAMES_MAX:,} more" if len(keys) > NAMES_MAX else ""
        return readable(f"“{value}” ({names}{more})")
    if name == "page":
        return page_names().get(value, readable(value))
    if name == "last":
        return periods.get(value, readable(value))
    return readable(value.replace("T", " ") if name in ("since", "until") else value)
