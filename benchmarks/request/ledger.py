"""The result of each logging call in a web process, recorded so that it survives `kill -9`.

One byte per event in a mapped file: CALLED before the call, the result after it. An event is named
`LANE-NUMBER` by its connection (lane) and its number there. A connection has one request at a time,
so no two threads write the same byte.
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
    """Return the name of an event."""
    return f"{lane}-{number}"


@dataclass(frozen=True)
class CallOutcomes:
    """The results of the calls, by event. `cut` are calls that began and did not return."""

    accepted: frozenset[str]
    refused: frozenset[str]
    cut: frozenset[str]


class Ledger:
    """The mapped file."""

    def __init__(self, directory: Path) -> None:
        with open(directory / NAME, "a+b") as file:
            file.truncate(LANES * LANE_EVENTS)
            self._bytes = mmap.mmap(file.fileno(), LANES * LANE_EVENTS)

    def record_call(self, event: str) -> int:
        """Record that a call begins; return where its result goes. Raises ValueError if full."""
        lane, number = map(int, event.split("-"))
        if not (0 <= lane < LANES and 0 <= number < LANE_EVENTS):
            raise ValueError(f"no room in the ledger for event {event}")
        at = lane * LANE_EVENTS + number
        self._bytes[at] = CALLED
        return at

    def record_answer(self, at: int, accepted: bool) -> None:
        """Record what the call returned."""
        self._bytes[at] = ACCEPTED if accepted else REFUSED

    def outcomes(self) -> CallOutcomes:
        """Return the results of all calls."""
        found: dict[int, set[str]] = {CALLED: set(), ACCEPTED: set(), REFUSED: set()}
        for lane in range(LANES):
            start = lane * LANE_EVENTS
            marks = self._bytes[start : start + LANE_EVENTS].rstrip(b"\0")
            for number, mark in enumerate(marks):
                if mark:
                    found[mark].add(name_of(lane, number))
        return CallOutcomes(*(frozenset(found[mark]) for mark in (ACCEPTED, REFUSED, CALLED)))
