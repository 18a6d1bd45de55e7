"""The plan of `make bench-client`: groups of cells, measured in rounds.

Cells of a group are compared within a round. The machine's speed drifts by a factor of two within
minutes, and measurements within one second drift together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.client.peers import KINDS

FAST_PER_S = 1000
SLOW_PER_S = 10
THREADS = 8


@dataclass(frozen=True)
class Cell:
    """One way of calling one peer. `rate` is events/s of all threads, 0 is flat out."""

    peer: str
    events: int  # events in each round, of all threads together
    rate: int = 0
    threads: int = 1
    awake: bool = False  # whether the receiver never sleeps in recv
    pinned: bool = False  # whether sender and receiver have a core each

    @property
    def load(self) -> str:
        """The rate as text."""
        return f"{self.rate:,}/s" if self.rate else "flat out"


@dataclass(frozen=True)
class Group:
    """Cells that are measured in turn, `rounds` times."""

    name: str
    rounds: int
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds, events per round flat out, and events at a rate in total."""

    rounds: int
    events: int
    peer_events: int
    fast_events: int
    slow_events: int
    every_cell: bool = False


QUICK = Size(rounds=8, events=10_000, peer_events=1_500, fast_events=1_000, slow_events=12)
LONG = Size(10, 20_000, 10_000, 1_500, 30, every_cell=True)

# The groups from which figures are taken; the others only make rows of the table.
WARM_UP = "warm-up"
PINNED = "pinned, flat out"
PEERS = "every peer, flat out"
FAST = "1,000/s and flat out"


def plan(names: Sequence[str], size: Size, can_pin: bool) -> list[Group]:
    """Return the groups for these peers, in order."""
    own = [name for name in ("logd", "raw", "noop") if name in names]
    peers = [name for name in names if KINDS[name].is_peer]
    groups = [
        Group(WARM_UP, 1, [Cell(name, 200) for name in names]),
        Group(PEERS, size.rounds, [*_flat_out(own, size), *_peers_flat_out(peers, size)]),
        Group(FAST, 4, [cell for name in own for cell in _flat_out_and_at_a_rate(name, size)]),
        Group("1,000/s", 1, [_at_a_rate(name, FAST_PER_S, size) for name in peers]),
        Group("threads", 1, _threads(own, size)),
        Group("10/s", 1, _slow(own, size)),
    ]
    if can_pin:
        cells = [cell for cell in _flat_out(own, size, pinned=True) if cell.awake or _alone(cell)]
        groups.insert(1, Group(PINNED, size.rounds, cells))
        fast = [_at_a_rate(name, FAST_PER_S, size, pinned=True) for name in own]
        groups.append(Group("1,000/s, pinned", 1, fast))
    if size.every_cell:
        groups.append(Group("every cell", 1, _rest(groups, names, size, can_pin)))
    return [group for group in groups if group.cells]


def _alone(cell: Cell) -> bool:
    return not KINDS[cell.peer].can_be_awake


def _flat_out(names: Iterable[str], size: Size, pinned: bool = False) -> list[Cell]:
    return [
        Cell(name, size.events, awake=awake, pinned=pinned)
        for name in names
        for awake in ((True, False) if KINDS[name].can_be_awake else (False,))
    ]


def _peers_flat_out(names: Iterable[str], size: Size) -> list[Cell]:
    return [Cell(name, size.peer_events) for name in names]


def _flat_out_and_at_a_rate(name: str, size: Size) -> list[Cell]:
    """Return two cells of one peer: flat out, and at a rate, where each call follows a sleep."""
    rounds = 4
    return [
        Cell(name, size.peer_events),
        Cell(name, math.ceil(size.fast_events / rounds), rate=FAST_PER_S),
    ]


def _at_a_rate(name: str, rate: int, size: Size, threads: int = 1, pinned: bool = False) -> Cell:
    events = size.fast_events if rate == FAST_PER_S else size.slow_events
    return Cell(name, max(events, threads), rate=rate, threads=threads, pinned=pinned)


def _threads(own: Iterable[str], size: Size) -> list[Cell]:
    cells = []
    for name in own:
        if name == "noop":
            continue
        for awake in (True, False) if KINDS[name].can_be_awake else (False,):
            cells.append(Cell(name, size.events, threads=THREADS, awake=awake))
            events = size.fast_events // 2
            cells.append(Cell(name, events, FAST_PER_S, THREADS, awake))
        if KINDS[name].can_be_awake:
            cells.append(Cell(name, size.fast_events // 2, FAST_PER_S, 1, awake=True))
    return cells


def _slow(own: Iterable[str], size: Size) -> list[Cell]:
    return [
        Cell(name, max(size.slow_events, threads), SLOW_PER_S, threads, awake)
        for name in own
        if name != "noop"
        for threads in (1, THREADS)
        for awake in ((True, False) if KINDS[name].can_be_awake else (False,))
    ]


def _rest(groups: Sequence[Group], names: Sequence[str], size: Size, can_pin: bool) -> list[Cell]:
    """Return every combination of conditions that no other group has."""
    have = {_what(cell) for group in groups if group.name != WARM_UP for cell in group.cells}
    events = {0: size.peer_events, FAST_PER_S: size.fast_events, SLOW_PER_S: size.slow_events}
    cells = [
        Cell(name, max(events[rate], threads), rate, threads, awake, pinned)
        for pinned in ((False, True) if can_pin else (False,))
        for rate in events
        for threads in (1, THREADS)
        for name in names
        for awake in ((True, False) if KINDS[name].can_be_awake else (False,))
    ]
    return [cell for cell in cells if _what(cell) not in have]


def _what(cell: Cell) -> tuple[object, ...]:
    return (cell.peer, cell.rate, cell.threads, cell.awake, cell.pinned)
