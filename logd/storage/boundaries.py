"""The highest sequence of each producer at a forget: it shows which events were made before.

A client's clock may be wrong; a sequence cannot be. So each forget has a number and records, for
each producer found at the time, the highest existing sequence (its boundary). An event at or below
the boundary was made before the forget, one past it after, whatever time it claims.

A producer with a row in `producer` up to `Forget.producers` was known at the time, and all its
events are stored or have a boundary. A producer first seen later, by an outbox in the directory
that was listed, made everything after the forget. Of any other producer nothing is known (None),
and the claimed time decides: a client without an outbox, an outbox that could not be read, another
directory, a restored database.

Bounded: a boundary is deleted by the commit that passes it, and with the end or the outbox of its
producer. Only a producer first seen after the last forget keeps one row while it lives. A forget
adds a row to a producer only if it wrote since the previous one, BOUNDARIES_MAX at most.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from logd.batch import Producer
from logd.storage.database import Connection

# The most boundaries of one producer. At the limit the last one is raised. Then events made
# between two forgets, with nothing of the producer read in between, count as made before both.
BOUNDARIES_MAX = 16
# The directory did not exist at the forget, so any outbox found later was made after it.
NO_OUTBOXES = ""

Key = tuple[int, int]  # a producer: its uid and id
# A forget's number, and the highest sequence at that forget; None if it could not be read.
Row = tuple[int, int | None]


@dataclass(frozen=True)
class SurveyedOutboxes:
    """The outboxes that a forget found: the last sequence written in each; None if unreadable.

    `outboxes` identifies the directory (`identity`); `surplus` has the users with more files than
    were read. `keys` has all producers, also those that need no boundary.
    """

    outboxes: str = NO_OUTBOXES
    written: Mapping[Key, int | None] = field(default_factory=dict)
    keys: frozenset[Key] = frozenset()
    surplus: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Forget:
    """A row of the table `forget`.

    `producers` is None until input in transit at the time is stored.
    """

    id: int
    producers: int | None
    outboxes: str
    surplus: frozenset[int]

    def knew(self, producer: Producer) -> bool:
        """Whether the producer was known at the forget, with all its events."""
        return self.knew_row(producer.row) and producer.uid not in self.surplus

    def knew_row(self, row: int | None) -> bool:
        """Whether the producer in that row was known at the forget, whoever its user is."""
        return row is not None and self.producers is not None and row <= self.producers


class Boundaries:
    """The forgets of a database, and the boundaries that may still be needed."""

    def __init__(self, forgets: Mapping[int, Forget], rows: Mapping[Key, list[Row]]) -> None:
        self.rows = dict(rows)
        self.outboxes = NO_OUTBOXES  # identifies the directory that the daemon reads
        self._forgets = forgets
        self._latest = forgets[max(forgets)] if forgets else None

    @property
    def has_incomplete(self) -> bool:
        """Whether a forget ran without a daemon, and input in transit then may still arrive."""
        return any(forget.producers is None for forget in self._forgets.values())

    def is_before(self, producer: Producer, sequence: int, number: int) -> bool | None:
        """Whether the event was made before the forget with that number; None if unknown."""
        forget = self._forgets.get(number)
        if forget is None:
            return None
        last: Row | None = None
        after = forget.knew(producer) or self._came_after(producer)
        past_all = True
        for row in self.rows.get((producer.uid, producer.id), ()):
            then, boundary = row
            past = boundary is not None and sequence > boundary
            past_all = past_all and past
            if then <= number:
                last = row
            elif past:
                after = True  # the event is past the boundary of a later forget
        if past_all and self._latest is not None and self._latest.knew(producer):
            after = True
        if last is not None:
            then, boundary = last
            if boundary is None:
                return None
            if sequence <= boundary:
                return True
            after = after or then == number
        return False if after else None

    def is_before_any(self, producer: Producer, sequence: int | None) -> bool:
        """Whether input of the producer was made before some forget, by a boundary of its outbox.

        `sequence` is None for input that is no event.
        """
        at = producer.stored + 1 if sequence is None else sequence
        return any(
            boundary is None or at <= boundary
            for _, boundary in self.rows.get((producer.uid, producer.id), ())
        )

    def is_past_all(self, producer: Producer) -> bool | None:
        """Whether all further events of the producer were made after every forget.

        It is None if the claimed time decides, and False if each event has to be checked.
        """
        latest = self._latest
        if latest is None:
            return None
        rows = self.rows.get((producer.uid, producer.id), ())
        if any(boundary is None or boundary > producer.stored for _, boundary in rows):
            return False
        placed = any(then == latest.id for then, _ in rows)
        return True if placed or latest.knew(producer) or self._came_after(producer) else None

    def _came_after(self, producer: Producer) -> bool:
        """Whether the producer is new, with an outbox that did not exist at the last forget."""
        latest = self._latest
        return (
            latest is not None
            and producer.row is None
            and producer.has_outbox
            and (producer.uid, producer.id) not in self.rows
            and producer.uid not in latest.surplus
            and _is_same_or_newer(latest.outboxes, self.outboxes)
        )

    # -- what a commit changes ---------------------------------------------------------------------

    def update(
        self, connection: Connection, producers: Iterable[Producer], rows_of: Mapping[Producer, int]
    ) -> dict[Key, list[Row]]:
        """Deletes boundaries that the batch passes, and adds rows for new producers.

        Called inside the transaction that stores the batch. `rows_of` has each producer's row, also
        if it is new. Returns the changes, for `apply` after the commit.
        """
        changed: dict[Key, list[Row]] = {}
        latest = self._latest
        if latest is None:
            return changed
        for producer in producers:
            key = producer.uid, producer.id
            before = after = self.rows.get(key, [])
            if producer.ended:
                after = []
            elif before:
                after = [row for row in before if not self._is_passed(row, producer, rows_of)]
            elif self._came_after(producer):
                after = [(latest.id, 0)]
            if after != before:
                changed[key] = after
        if changed:
            _write(connection, self.rows, changed)
        return changed

    def _is_passed(self, row: Row, producer: Producer, rows_of: Mapping[Producer, int]) -> bool:
        then, boundary = row
        known = self._forgets[then].knew_row(rows_of[producer])
        return boundary is not None and boundary <= producer.taken and known

    def apply(self, changed: Mapping[Key, list[Row]]) -> None:
        """Applies what `update` returned, after its commit."""
        for key, rows in changed.items():
            if rows:
                self.rows[key] = rows
            else:
                self.rows.pop(key, None)

    # -- what a forget changes ---------------------------------------------------------------------

    def record_forget(
        self, connection: Connection, seen: SurveyedOutboxes, *, complete: bool
    ) -> int:
        """Writes a forget with its boundaries, inside the caller's transaction; returns its number.

        `complete` says that all input in transit to the daemon at the forget's beginning is
        committed. The caller reloads the boundaries after the commit.
        """
        number = max(self._forgets, default=0) + 1
        connection.execute(
            "INSERT INTO forget VALUES (?, NULL, ?, ?)",
            (number, seen.outboxes, json.dumps(sorted(seen.surplus))),
        )
        if complete:
            _complete_forgets(connection)
        changed: dict[Key, list[Row]] = {
            key: [] for key in self.rows if key not in seen.keys and key[0] not in seen.surplus
        }
        for key, written in seen.written.items():
            changed[key] = _with(self.rows.get(key, []), number, written)
        _write(connection, self.rows, changed)
        return number


def complete_forgets(connection: Connection) -> None:
    """Completes forgets that ran without a daemon, after the input then in transit is committed.

    Further events of known producers were made after these forgets. Called inside the caller's
    transaction.
    """
    _complete_forgets(connection)
    connection.execute(
        "DELETE FROM forget_boundary WHERE EXISTS (SELECT 1 FROM producer p"
        " WHERE p.uid = forget_boundary.uid AND p.key = forget_boundary.key"
        " AND p.watermark >= forget_boundary.sequence)"
    )


def load(connection: Connection) -> Boundaries:
    """Loads the forgets and boundaries of a database."""
    forgets = {
        number: Forget(number, producers, outboxes, frozenset(json.loads(surplus)))
        for number, producers, outboxes, surplus in connection.execute(
            "SELECT id, producers, outboxes, surplus FROM forget"
        )
    }
    rows: dict[Key, list[Row]] = {}
    for uid, key, number, sequence in connection.execute(
        "SELECT uid, key, forget, sequence FROM forget_boundary ORDER BY uid, key, forget"
    ):
        rows.setdefault((uid, int(key, 16)), []).append((number, sequence))
    return Boundaries(forgets, rows)


def still_to_come(connection: Connection) -> dict[str, int]:
    """Counts events that were made before a forget and still wait in outboxes, of any person.

    Returns at most how many `events`, of how many `producers`, and how many outboxes are
    `unreadable`.
    """
    events, producers, unreadable = connection.execute(
        "SELECT coalesce(sum(waiting), 0), count(waiting), sum(waiting IS NULL) FROM ("
        " SELECT max(b.sequence) - coalesce(max(p.watermark), 0) AS waiting"
        " FROM forget_boundary b LEFT JOIN producer p ON p.uid = b.uid AND p.key = b.key"
        " GROUP BY b.uid, b.key) WHERE waiting > 0 OR waiting IS NULL"
    ).fetchone()
    return {"events": events, "producers": producers, "unreadable": unreadable or 0}


def identity(boot_id: str, token: str) -> str:
    """Returns a text that identifies a directory of outboxes.

    The text differs after each boot, which empties the directory.
    """
    return f"{boot_id} {token}"


def _is_same_or_newer(listed: str, now: str) -> bool:
    if listed == NO_OUTBOXES or now == NO_OUTBOXES:
        return listed == NO_OUTBOXES and now != NO_OUTBOXES
    return listed == now or listed.split()[0] != now.split()[0]


def _with(rows: list[Row], number: int, written: int | None) -> list[Row]:
    """Returns a producer's rows with one added: the last sequence written at a later forget."""
    last = rows[-1][1] if rows else None
    if written is None or last is None:
        same = len(rows) > 1 and written is None and rows[-2][1] is None
    else:
        written = max(written, last)
        same = len(rows) > 1 and rows[-2][1] == last == written
    if same:  # of several forgets at the same sequence, the first and the last are kept
        return [*rows[:-1], (number, written)]
    if len(rows) < BOUNDARIES_MAX:
        return [*rows, (number, written)]
    return [*rows[:-1], (rows[-1][0], written)]


def _complete_forgets(connection: Connection) -> None:
    connection.execute(
        "UPDATE forget SET producers = (SELECT coalesce(max(id), 0) FROM producer)"
        " WHERE producers IS NULL"
    )


def _write(
    connection: Connection, before: Mapping[Key, list[Row]], changed: Mapping[Key, list[Row]]
) -> None:
    connection.executemany(
        "DELETE FROM forget_boundary WHERE uid = ? AND key = ?",
        [(uid, f"{key:016x}") for uid, key in changed if (uid, key) in before],
    )
    connection.executemany(
        "INSERT INTO forget_boundary VALUES (?, ?, ?, ?)",
        [
            (uid, f"{key:016x}", number, boundary)
            for (uid, key), rows in changed.items()
            for number, boundary in rows
        ],
    )
