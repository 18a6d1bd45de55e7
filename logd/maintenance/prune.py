"""The job `prune`: removes events that are past their type's retention, block by block.

`logd.clock.event_age` defines an event's age.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from logd.clock import event_age, readings
from logd.clock.event_age import ALL, LATE_MAX_NS, NONE
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.maintenance.collapse import collapse
from logd.maintenance.event_removal import Steps
from logd.maintenance.stored_times import StoredTimes, ids_of
from logd.maintenance.subject_rollups import SubjectRecount
from logd.storage import event_types, opening, trail_clock
from logd.storage.database import Connection
from logd.storage.job_table import Job
from logd.storage.removal_log import PRUNED
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.schema import INT64_MAX, SUBJECTS

_OF_TYPE = (
    f"FROM event e INDEXED BY event_type_id WHERE (e.id >> {BLOCK_BITS}) = :block"
    " AND e.type = :type"
)
_BATCHES = (
    "FROM batch b INDEXED BY batch_first_event"
    " WHERE b.first_event < :end AND b.first_event >="
    " (SELECT coalesce(max(first_event), 0) FROM batch WHERE first_event <= :first)"
)
# The latest time at which a batch can have been stored.
_STORED = "min(iif(b.stored_ns BETWEEN :plausible AND :plausible_to, b.stored_ns, :to), :to)"
_READ_ROWS = 1000
_USERS_PER_STEP = 200


def prune(job: Job, store: Store, steps: Steps) -> Iterator[None]:
    """Prunes events, in a bounded step at each `next`.

    `params["before"]` has, for each type, the time (ns) before which its events are removed.

    After a crash the job restarts from the first block; pruned events are no longer there to be
    scanned.
    """
    connection = store.connection
    job.total = store.next_event - 1
    stored = StoredTimes(connection, steps.now_ns())
    yield from stored.survey()
    types = _types(connection, job.params["before"], stored)
    for block in _blocks(connection):
        for pruned in types:
            if pruned.past(block) == NONE:
                continue
            if pruned.name in SUBJECTS:
                yield from _prune_users(job, pruned, block, connection, steps)
            # The events with the block's first and last time go last,
            # since removing them has the block's bounds recomputed from the others.
            edges = connection.execute(
                "SELECT first_ts_ns, last_ts_ns FROM event_block WHERE block = ?", (block,)
            ).fetchone()
            yield from _prune_plain(job, pruned, block, edges or (), steps)
            yield from _prune_plain(job, pruned, block, (), steps)
        job.done = min(job.total, (block + 1) << BLOCK_BITS)
        yield
    yield from collapse(store, steps.now_ns)


def count(connection: Connection, before: Mapping[str, int], now_ns: int) -> dict[str, int]:
    """Returns how many events of each type a prune would remove."""
    stored = StoredTimes(connection, now_ns)
    counts = dict.fromkeys(before, 0)
    types = _types(connection, before, stored)
    for block in _blocks(connection):
        for pruned in types:
            if pruned.past(block) != NONE:
                counts[pruned.name] += pruned.count(ids_of(block))
    return counts


def count_expired(
    config: Config, before: Mapping[str, int], now: Reading
) -> tuple[dict[str, int], str | None]:
    """Counts what a prune would remove now; also returns why the clock is not trusted, if so."""
    with closing(opening.open_for_events(config)) as connection:
        why = readings.implausible(trail_clock.load(connection), now)
        return count(connection, before, now.wall_ns), why


def _types(connection: Connection, before: Mapping[str, int], stored: StoredTimes) -> list[_Type]:
    numbers = event_types.find(connection, list(before))
    return [
        _Type(connection, name, numbers[name], before[name], stored)
        for name in before
        if name in numbers
    ]


def _blocks(connection: Connection) -> Iterator[int]:
    block = -1
    while row := connection.execute(
        "SELECT block FROM event_block WHERE block > ? ORDER BY block LIMIT 1", (block,)
    ).fetchone():
        (block,) = row
        yield block


class _Type:
    """An event type with the time before which its events are removed."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        type_id: int,
        before_ns: int,
        stored: StoredTimes,
    ) -> None:
        self._connection, self._stored = connection, stored
        self.name, self.id, self.before_ns = name, type_id, before_ns
        self.details = {"type": name, "before_ns": before_ns}
        self._past: dict[int, str] = {}

    def past(self, block: int) -> str:
        """Returns which events of the block are removed: ALL, SOME or NONE.

        The result is kept, so that every step agrees.
        """
        if block not in self._past:
            row = self._connection.execute(
                "SELECT first_ts_ns FROM event_block WHERE block = ?", (block,)
            ).fetchone()
            self._past[block] = NONE
            if row is not None:
                bounds = self._stored.bounds(block)
                self._past[block] = event_age.past(self.before_ns, row[0], *bounds)
        return self._past[block]

    def goes(self, event_id: int, ts_ns: int) -> bool:
        """Returns whether an event is to be removed, given its id and its own time."""
        past = self.past(event_id >> BLOCK_BITS)
        if past in (ALL, NONE):
            return past == ALL
        return event_age.age_ns(ts_ns, self._stored.of(event_id)) < self.before_ns

    def find(self, column: str, ids: range, limit: int, but_ts_ns: Sequence[int] = ()) -> list[Any]:
        """Returns a column of events to remove in a block; ids are in ascending order.

        For a type with roll-ups by subject, the ids are of events without a user only: others are
        removed by user.
        """
        which = "1"
        if self.name in SUBJECTS:
            which = "e.user IS NOT NULL" if column == "user" else "e.user IS NULL"
        if but_ts_ns:
            which += f" AND e.ts_ns NOT IN ({', '.join(map(str, but_ts_ns))})"
        if not self._may_have(ids.start >> BLOCK_BITS):
            return []
        source, values = self._among(ids)
        # Other columns are not sorted, since sorting reads every row.
        order = "ORDER BY e.id" if column == "id" else ""
        return [
            value
            for (value,) in self._connection.execute(
                f"SELECT e.{column} {source} AND {which} {order} LIMIT :limit",
                {**values, "limit": limit},
            )
        ]

    def _may_have(self, block: int) -> bool:
        """Returns whether the block may have events to remove, by a look into indexes only.

        If none of its batches is old enough, only an event's own time can make it old enough.
        """
        values = {"block": block, "type": self.id, "before": INT64_MAX}
        if self.past(block) != ALL:
            _, batches = self._among(ids_of(block))
            if not self._connection.execute(
                f"SELECT 1 {_BATCHES} AND {_STORED} < :before LIMIT 1",
                batches,
            ).fetchone():
                values["before"] = self.before_ns - 1
        return bool(
            self._connection.execute(
                f"SELECT 1 {_OF_TYPE} AND e.ts_ns <= :before LIMIT 1",
                values,
            ).fetchone()
        )

    def count(self, ids: range) -> int:
        """Returns how many of these events, all of one block, are to be removed."""
        if not self._may_have(ids.start >> BLOCK_BITS):
            return 0
        source, values = self._among(ids)
        return int(self._connection.execute(f"SELECT count(*) {source}", values).fetchone()[0])

    def _among(self, ids: range) -> tuple[str, dict[str, int]]:
        """Returns FROM and WHERE clauses that select the events to remove, as `goes` does."""
        block = ids.start >> BLOCK_BITS
        values = {"type": self.id, "first": ids.start, "end": ids.stop, "before": self.before_ns}
        if self.past(block) == ALL:
            return (
                f"{_OF_TYPE} AND e.id >= :first AND e.id < :end",
                {**values, "block": block},
            )
        plausible_ns = self._stored.plausible_ns
        values |= {
            "plausible": plausible_ns[0],
            "plausible_to": plausible_ns[1],
            "late": LATE_MAX_NS,
        }
        values["to"] = self._stored.bounds(block)[1]
        return (
            f"FROM (SELECT * {_BATCHES}) b CROSS JOIN event e NOT INDEXED"
            " ON e.type = :type AND e.id >= max(b.first_event, :first)"
            " AND e.id < min(b.first_event + b.events, :end)"
            f" WHERE ({_STORED} < :before OR ({_STORED} < :before + :late"
            f" AND e.ts_ns < :before AND e.ts_ns >= {_STORED} - :late))",
            values,
        )


def _prune_plain(
    job: Job, pruned: _Type, block: int, but_ts_ns: Sequence[int], steps: Steps
) -> Iterator[None]:
    within = ids_of(block)
    while ids := pruned.find("id", within, steps.events_max, but_ts_ns):
        job.add(pruned.name, len(ids))
        job.done = ids[-1]
        within = range(job.done + 1, within.stop)
        steps.remove(PRUNED, ids, {}, job.save, **pruned.details)
        yield


def _prune_users(
    job: Job, pruned: _Type, block: int, connection: Connection, steps: Steps
) -> Iterator[None]:
    """Removes the type's events of each user who has one in the block, also in later blocks."""
    while users := dict.fromkeys(pruned.find("user", ids_of(block), _USERS_PER_STEP)):
        recounts: dict[SubjectRecount, list[int]] = {}
        for user in users:
            recount = SubjectRecount(pruned.name, pruned.id, user, pruned.goes)
            while not recount.read(connection, _READ_ROWS):
                yield
            yield
            left = steps.events_max - sum(map(len, recounts.values()))
            recounts[recount] = recount.ids[:left]
            if left <= len(recount.ids):
                break
        while any(recounts.values()):
            job.add(pruned.name, sum(map(len, recounts.values())))
            steps.remove(PRUNED, (), recounts, job.save, **pruned.details)
            yield
            recounts = {last: last.ids[: steps.events_max] for last in recounts if last.ids}
