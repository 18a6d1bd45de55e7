"""The filters of the event list as an address, from which links narrow or widen.

An address is the whole state of the list: it can be saved, sent to a colleague, and opened again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

# The filters in the order of addresses. Of the first kind one text holds several parts, separated
# by commas; the second kind is repeated; the others are given once.
PARTED = ("user", "type")
REPEATED = ("prop",)
SINGLE = ("role", "about", "page", "status", "method", "text", "last", "since", "until")
NAMES = (*PARTED, *SINGLE, *REPEATED)
# gunicorn refuses a request line of more than 4,094 bytes.
ADDRESS_BYTES_MAX = 3500
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

_PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*(?=,|\Z)|([^,]*))(?:,|\Z)')
_TO_QUOTE = re.compile(r'[,"]|^\s|\s\Z')


@dataclass(frozen=True)
class EventAddress:
    """Filters as (name, value) pairs, without duplicates."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, arguments: MultiDict[str, str]) -> EventAddress:
        """Returns the filters of a request's arguments, and ignores all other arguments."""
        found: dict[tuple[str, str], None] = {}
        for name in NAMES:
            texts = arguments.getlist(name)
            if name in SINGLE:
                texts = texts[:1]
            for text in texts:
                parts = split(text) if name in PARTED else [text.strip()]
                found.update({(name, part): None for part in parts if part})
        return cls(tuple(found))

    @property
    def is_empty(self) -> bool:
        return not self.pairs

    def values(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.pairs if key == name)

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)

    def narrowed(self, name: str, value: str) -> EventAddress:
        """Returns the filters with this one; it takes the place of those that it is a part of."""
        kept = [pair for pair in self.pairs if pair[0] in REPEATED or pair[0] != name]
        return EventAddress(tuple(dict.fromkeys([*kept, (name, value)])))

    def narrowed_to(self, changed: Mapping[str, str | None]) -> EventAddress:
        """Returns the filters with each of `changed` set, or removed if it is None."""
        kept = [pair for pair in self.pairs if pair[0] not in changed]
        new = [(name, value) for name, value in changed.items() if value is not None]
        return EventAddress((*kept, *new))

    def without(self, name: str, value: str) -> EventAddress:
        return EventAddress(tuple(pair for pair in self.pairs if pair != (name, value)))

    def arguments(self) -> list[tuple[str, str]]:
        """Returns the arguments of the address, in the order of NAMES."""
        found: list[tuple[str, str]] = []
        for name in NAMES:
            values = self.values(name)
            if name in PARTED:
                values = (joined(values, ","),) if values else ()
            found += [(name, value) for value in values]
        return found

    @property
    def query(self) -> str:
        """Returns the address after its question mark."""
        return urlencode(self.arguments(), errors="replace")

    @property
    def fits(self) -> bool:
        """Whether a server accepts an address of this length."""
        return len(self.query) <= ADDRESS_BYTES_MAX


def split(text: str) -> list[str]:
    """Returns the parts between commas; a part with a comma of its own is in double quotes."""
    return [
        found[2].strip() if found[1] is None else found[1].replace('""', '"')
        for found in _PART.finditer(text)
    ]


def joined(parts: Iterable[str], separator: str = ", ") -> str:
    """Returns a text that `split` divides into these parts."""
    return separator.join(
        '"' + part.replace('"', '""') + '"' if _TO_QUOTE.search(part) else part for part in parts
    )
