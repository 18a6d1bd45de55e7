"""Finds which parts of a block may have an event that a search looks for.

The values of blocks (`logd.storage.block_values`) are read for some blocks at a time, since most
searches end early. A block of which they are not known has to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from logd.reports.event_filter import EventFilter
from logd.storage.block_values import (
    ANY_CHAR,
    EVERY_PART,
    PERSONS,
    TEXTS,
    bytes_of,
    mask_of,
    mask_with,
    names_of,
)
from logd.storage.database import Connection
from logd.storage.mentions import PersonKeys, canonical

GROUP_BITS = 6  # blocks whose values are read at a time
PATHS_TRIED_MAX = 8  # ways to read a `path=value` with more than one `=`


class Parts(NamedTuple):
    """The parts of a block in which an event may match, and the event up to which that is known."""

    mask: int
    last: int


# The masks of the blocks from one to another; a block that is not in it has no such event.
_Masks = dict[int, int]
_Condition = Callable[[int, int], _Masks]


class BlockLookup:
    """Looks up blocks for one search."""

    def __init__(self, connection: Connection, wanted: EventFilter, keys: PersonKeys) -> None:
        self._connection = connection
        self._keys = None if wanted.about is None else names_of(keys)
        self._group = -1
        self._known: dict[int, Parts] = {}
        # Whether paths that have no row may match a condition.
        self._conditions: list[tuple[_Condition, bool]] = [
            (self._of_equation(one), True) for one in wanted.props
        ]
        if wanted.about is not None:
            self._conditions.append((self._of_value(PERSONS, canonical(wanted.about)), False))
        if wanted.text is not None:
            self._conditions.append((self._of_text(wanted.text.casefold()), False))

    def parts(self, block: int) -> Parts | None:
        """Returns where events of a block may match; None if nothing is known of the block."""
        if block >> GROUP_BITS != self._group:
            self._group = block >> GROUP_BITS
            first = self._group << GROUP_BITS
            self._known = self._read(first, first + (1 << GROUP_BITS) - 1)
        return self._known.get(block)

    def _read(self, first: int, last: int) -> dict[int, Parts]:
        rows = self._connection.execute(
            "SELECT block, last, more FROM block_search WHERE block BETWEEN ? AND ?"
            " AND (? IS NULL OR keys = ?)",
            (first, last, self._keys, self._keys),
        ).fetchall()
        every = [(condition(first, last), unlisted) for condition, unlisted in self._conditions]
        known = {}
        for block, upto, more in rows:
            mask = EVERY_PART
            for masks, unlisted in every:
                mask &= EVERY_PART if more and unlisted else masks.get(block, 0)
            known[block] = Parts(mask, upto)
        return known

    def _of_equation(self, equation: str) -> _Condition:
        parts = equation.split("=")
        if len(parts) > PATHS_TRIED_MAX:
            return lambda first, last: dict.fromkeys(range(first, last + 1), EVERY_PART)
        ways = [
            self._of_value("." + "=".join(parts[:at]), "=".join(parts[at:]))
            for at in range(1, len(parts))
        ]

        def condition(first: int, last: int) -> _Masks:
            found: _Masks = {}
            for way in ways:
                for block, mask in way(first, last).items():
                    found[block] = found.get(block, 0) | mask
            return found

        return condition

    def _of_value(self, path: str, value: str) -> _Condition:
        sought = bytes_of(value)

        def condition(first: int, last: int) -> _Masks:
            rows = self._connection.execute(
                "SELECT block, open, entries, masks FROM block_value WHERE path = ?"
                " AND block BETWEEN ? AND ? AND (open OR instr(entries, ?) > 0)",
                (path, first, last, sought),
            )
            return {
                block: mask_of(None if is_open else entries, masks, value)
                for block, is_open, entries, masks in rows
            }

        return condition

    def _of_text(self, folded: str) -> _Condition:
        sought, chars = folded.encode(), set(folded)

        def condition(first: int, last: int) -> _Masks:
            found: _Masks = {}
            rows = self._connection.execute(
                "SELECT block, chars, iif(instr(entries, ?) > 0, entries, NULL), masks"
                " FROM block_value WHERE path = ? AND block BETWEEN ? AND ?",
                (sought, TEXTS, first, last),
            )
            for block, unlisted, entries, masks in rows:
                if unlisted == ANY_CHAR or chars.issubset(unlisted):
                    found[block] = EVERY_PART
                elif entries is not None:
                    found[block] = mask_with(entries, masks, folded)
            return found

        return condition
