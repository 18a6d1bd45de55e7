"""Reads the rows that `verify` checks, and collects its findings.

A row with a column of the wrong type or length is reported and skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from logd.audit import row_checks
from logd.storage.database import Connection
from logd_wire.schema import INT64_MAX

BATCHES_PER_READ = 500
FINDINGS_MAX = 100


@dataclass
class Verdict:
    """The result of a verification: what was verified, and everything that was found wrong."""

    batches: int = 0
    events: int = 0
    removed: int = 0  # the number of removed events that the trail records
    head: str = ""
    findings: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.findings

    def add_finding(self, text: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(text)
        elif len(self.findings) == FINDINGS_MAX:
            self.findings.append("and more, not listed")


@dataclass(frozen=True)
class BatchRow:
    id: int
    stored_ns: int
    first_event: int
    events: int
    leaves_hash: bytes
    hash: bytes

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.stored_ns / 1e9, UTC).isoformat(timespec="seconds")
        last = self.first_event + self.events - 1
        return f"batch {self.id} (events {self.first_event} to {last}, stored {when})"


def batches(
    connection: Connection, verdict: Verdict, after: int = 0, upto: int = INT64_MAX
) -> Iterator[tuple[int, BatchRow | None]]:
    """Yields the batches after `after` up to `upto`, each with its number.

    Yields None for an invalid row, from which nothing can be computed.
    """
    last = after
    while True:
        rows = connection.execute(
            "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch"
            " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (last, upto, BATCHES_PER_READ),
        ).fetchall()
        if not rows:
            return
        for row in rows:
            good = check_row(row, row_checks.BATCH, f"batch {row[0]}", verdict)
            yield row[0], BatchRow(*row) if good else None
        last = rows[-1][0]


def check_row(
    row: Sequence[object], checks: Mapping[str, row_checks.Check], what: str, verdict: Verdict
) -> bool:
    """Whether each column has a valid type and length; reports the first column that does not."""
    problem = row_checks.problem(row, checks)
    if problem is not None:
        verdict.add_finding(f"{what} was changed: {problem}")
    return problem is None


class RowCursor:
    """The rows about the events from `first` on, read in step with the batches.

    The first column is the event's id, which orders the rows. Invalid rows are reported and
    skipped.
    """

    def __init__(
        self,
        connection: Connection,
        sql: str,
        first: int,
        verdict: Verdict,
        checks: Mapping[str, row_checks.Check],
        what: str,
    ) -> None:
        self._rows = (
            row
            for row in connection.execute(sql, (first,))
            if check_row(row, checks, f"{what} {ascii(row[0])[:40]}", verdict)
        )
        self.row = next(self._rows, None)

    def advance(self) -> None:
        self.row = next(self._rows, None)

    def below(self, event_id: int) -> Iterator[Any]:
        while self.row is not None and self.row[0] < event_id:
            yield self.row
            self.advance()
