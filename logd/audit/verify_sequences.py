"""Checks that each producer's events are stored once, in order, up to its watermark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from logd.audit.recomputed import NAME
from logd.audit.verify_rows import FINDINGS_MAX, Verdict
from logd.storage.database import Connection
from logd_wire.schema import INT64_MAX

PRODUCERS_IN_MEMORY = 20_000
# The most producers whose sequences are read once more, to count those that are stored twice.
SUSPECTS_MAX = 20
STRAYS_READ_MAX = 1000
# The largest bitmap of the sequences of one such producer.
BITMAP_BYTES_MAX = 16 * 1024 * 1024

_ADD = (
    f"INSERT INTO {NAME}.sequence VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"  # noqa: S608 - no data in it
    " last = excluded.last, low = min(low, excluded.low), high = max(high, excluded.high)"
)


@dataclass
class Disorder:
    """How many events are out of order, and which producers may have a sequence stored twice."""

    events: int = 0
    suspects: set[int] = field(default_factory=set)

    def suspect(self, producer: int) -> None:
        """Marks a producer as one of whose sequences some may be stored twice."""
        if len(self.suspects) < SUSPECTS_MAX:
            self.suspects.add(producer)


class Sequences:
    """Collects for each producer the first, last, lowest and highest sequence."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.disorder = Disorder()
        # For each producer, [first, last, low, high] of the events that are not in the table yet.
        self._window: dict[int, list[int]] = {}

    def add(self, producer: int, sequence: int) -> None:
        """Adds one event; events come in the order in which they were stored."""
        row = self._window.get(producer)
        if row is None:
            if len(self._window) >= PRODUCERS_IN_MEMORY:
                self.flush()
            self._window[producer] = [sequence] * 4
            return
        if sequence > row[3]:
            row[1] = row[3] = sequence
            return
        self.disorder.suspect(producer)
        self.disorder.events += sequence < row[1]
        row[1], row[2] = sequence, min(row[2], sequence)

    def flush(self) -> None:
        """Moves the sequences in memory to the table."""
        self._join((producer, *row) for producer, row in self._window.items())
        self._window = {}

    def merge(self, source: str, disorder: Disorder) -> None:
        """Adds the sequences of later events, which another connection collected in `source`."""
        self.disorder.events += disorder.events
        for producer in disorder.suspects:
            self.disorder.suspect(producer)
        self._join(self._connection.execute(f"SELECT * FROM {source}.sequence"))  # noqa: S608 - no data in it

    def _join(self, rows: Iterable[tuple[int, ...]]) -> None:
        known = f"SELECT last, high FROM {NAME}.sequence WHERE producer = ?"  # noqa: S608 - no data in it
        for row in rows:
            producer, first, _last, low, _high = row
            before = self._connection.execute(known, (producer,)).fetchone()
            if before is not None and low <= before[1]:
                self.disorder.suspect(producer)
                self.disorder.events += first < before[0]
            self._connection.execute(_ADD, row)

    def check(self, verdict: Verdict, first: int, end: int) -> None:
        """Reports sequences that are stored twice, out of order, or past a watermark.

        The batches contain the events from `first` to before `end`; other stored events are added
        before the check.
        """
        query = self._connection.execute
        self.flush()
        for producer, sequence in query(
            "SELECT producer, sequence FROM event WHERE id >= ? OR id < ? LIMIT ?",
            (end, first, STRAYS_READ_MAX),
        ).fetchall():
            if type(sequence) is int and type(producer) is int:
                self.add(producer, sequence)
        self.flush()
        for producer in sorted(self.disorder.suspects):
            more = self._stored_twice(producer)
            if more:
                verdict.add_finding(
                    f"producer {self._label(producer)}: {more} sequences are stored twice"
                )
        for (producer,) in query(
            f"SELECT p.id FROM {NAME}.sequence s JOIN producer p ON p.id = s.producer"  # noqa: S608 - no data in it
            " WHERE s.high > p.watermark LIMIT ?",
            (FINDINGS_MAX + 1,),
        ).fetchall():
            verdict.add_finding(
                f"producer {self._label(producer)}: events are stored past its watermark"
            )
        if self.disorder.events:
            verdict.add_finding(f"{self.disorder.events} events are out of their producer's order")

    def _label(self, producer: int) -> str:
        (label,) = self._connection.execute(
            "SELECT (SELECT uid || '-' || key FROM producer WHERE id = ?)", (producer,)
        ).fetchone()
        return str(label)

    def _stored_twice(self, producer: int) -> int:
        low, high = self._connection.execute(
            f"SELECT low, high FROM {NAME}.sequence WHERE producer = ?",  # noqa: S608 - no data in it
            (producer,),
        ).fetchone() or (0, 0)
        high = min(high, low + 8 * BITMAP_BYTES_MAX - 1, INT64_MAX)
        seen, more = bytearray((high - low) // 8 + 1), 0
        for (sequence,) in self._connection.execute(
            "SELECT sequence FROM event WHERE producer = ?", (producer,)
        ):
            if type(sequence) is int and low <= sequence <= high:
                byte, bit = divmod(sequence - low, 8)
                more += seen[byte] >> bit & 1
                seen[byte] |= 1 << bit
        return more
