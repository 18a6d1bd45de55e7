"""What became of each call in a web process, noted where a `kill -9` cannot take it away.

One byte for each event in a mapped file: CALLED before the call, its answer after it. An event is
named by the connection that asks for it (its lane) and its number there, `LANE-NUMBER`; a
connection has one request at a time, so no two threads write the same byte.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

LANES = 32
LANE_EVENTS = 1 << 16
NAME = "ledger"

CALLED = 1
ACCEPTED = 2
REFUSED = 3


def name_of(lane: int, number: int) -> str:
    """How an event is called."""
    return f"{lane}-{number}"


@dataclass(frozen=True)
class CallOutcomes:
    """What the callers outcomes. `cut` are calls that had begun and never came back."""

    accepted: frozenset[str]
    refused: frozenset[str]
    cut: frozenset[str]


class Ledger:
    """The file, mapped. Raises ValueError for a name beyond its bounds."""

    def __init__(self, directory: Path) -> None:
        with open(directory / NAME, "a+b") as file:
            file.truncate(LANES * LANE_EVENTS)
            self._bytes = mmap.mmap(file.fileno(), LANES * LANE_EVENTS)

    def record_call(self, event: str) -> int:
        """Notes that the call begins; where its answer goes."""
        lane, number = map(int, event.split("-"))
        if not (0 <= lane < LANES and 0 <= number < LANE_EVENTS):
            raise ValueError(f"no room in the ledger for event {event}")
        at = lane * LANE_EVENTS + number
        self._bytes[at] = CALLED
        return at

    def record_answer(self, at: int, accepted: bool) -> None:
        """Notes what the call returned."""
        self._bytes[at] = ACCEPTED if accepted else REFUSED

    def outcomes(self) -> CallOutcomes:
        """All of it."""
        found: dict[int, set[str]] = {CALLED: set(), ACCEPTED: set(), REFUSED: set()}
        for lane in range(LANES):
            start = lane * LANE_EVENTS
            marks = self._bytes[start : start + LANE_EVENTS].rstrip(b"\0")
            for number, mark in enumerate(marks):
                if mark:
                    found[mark].add(name_of(lane, number))
        return CallOutcomes(*(frozenset(found[mark]) for mark in (ACCEPTED, REFUSED, CALLED)))
