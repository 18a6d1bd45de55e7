"""The job `prune`: events past the time that their type is kept go, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from logd.blocks import BLOCK_BITS, BLOCK_EVENTS
from logd.database import Connection
from logd.removed import PRUNED
from logd.store import Store
from logd.upkeep.jobs import Job
from logd.upkeep.removal import Steps
from logd.upkeep.subjects import Leaving
from shared.schema import SUBJECTS

_READ_ROWS = 1000
_USERS_PER_STEP = 200


def prune(job: Job, store: Store, steps: Steps) -> Iterator[None]:
    """A bounded step at each `next`. `params["before"]`: for each type, the time in nanoseconds
    before which an event's own time is past.

    A killed one begins anew: of what has gone nothing is looked at twice.
    """
    connection = store.connection
    before: dict[str, int] = job.params["before"]
    job.total = store.next_event - 1
    types = [
        _Type(name, type_id, before[name])
        for name in before
        for (type_id,) in connection.execute("SELECT id FROM event_type WHERE name = ?", (name,))
    ]
    newest_ns = max((one.before_ns for one in types), default=0)
    block = -1
    while row := connection.execute(
        "SELECT block, first_ts_ns, last_ts_ns FROM event_block WHERE block > ?"
        " AND first_ts_ns < ? ORDER BY block LIMIT 1",
        (block, newest_ns),
    ).fetchone():
        block, *edges = row
        for one in types:
            if one.name in SUBJECTS:
                yield from _prune_users(job, one, block, connection, steps)
            # Who goes last are those whose time is the block's first or last: only then the others
            # are looked through for another.
            yield from _prune_plain(job, one, block, edges, connection, steps)
            yield from _prune_plain(job, one, block, (), connection, steps)
        job.done = min(job.total, (block + 1) << BLOCK_BITS)
        yield


def count(connection: Connection, before: Mapping[str, int]) -> dict[str, int]:
    """How many events of each type would go."""
    return {
        name: connection.execute(
            "SELECT count(*) FROM event_block b CROSS JOIN event e INDEXED BY event_type_id"  # noqa: S608 - no data in it
            f" ON e.id BETWEEN b.block << {BLOCK_BITS}"
            f" AND (b.block << {BLOCK_BITS}) + {BLOCK_EVENTS - 1} WHERE b.first_ts_ns < ?"
            " AND e.type = (SELECT id FROM event_type WHERE name = ?) AND e.ts_ns < ?",
            (before_ns, name, before_ns),
        ).fetchone()[0]
        for name, before_ns in before.items()
    }


class _Type:
    def __init__(self, name: str, type_id: int, before_ns: int) -> None:
        self.name, self.id, self.before_ns = name, type_id, before_ns
        self.said = {"type": name, "before_ns": before_ns}

    def goes(self, _event_id: int, ts_ns: int) -> bool:
        return ts_ns < self.before_ns

    def find(
        self,
        connection: Connection,
        column: str,
        ids: range,
        limit: int,
        but_ts_ns: Sequence[int] = (),
    ) -> list[Any]:
        """A column of those that go, in the order of ids. Of a type with roll-ups by subject the
        ids are those of nobody's events only: the others go by user.
        """
        by_user = "user IS NOT NULL" if column == "user" else "user IS NULL"
        which = by_user if self.name in SUBJECTS else "1"
        return [
            value
            for (value,) in connection.execute(
                f"SELECT {column} FROM event INDEXED BY event_type_id"  # noqa: S608 - no data in it
                f" WHERE type = ? AND id >= ? AND id < ? AND ts_ns < ? AND {which}"
                f" AND ts_ns NOT IN ({', '.join('?' * len(but_ts_ns))}) ORDER BY id LIMIT ?",
                (self.id, ids.start, ids.stop, self.before_ns, *but_ts_ns, limit),
            )
        ]


def _prune_plain(
    job: Job,
    one: _Type,
    block: int,
    but_ts_ns: Sequence[int],
    connection: Connection,
    steps: Steps,
) -> Iterator[None]:
    within = _ids(block)
    while ids := one.find(connection, "id", within, steps.events_max, but_ts_ns):
        job.add(one.name, len(ids))
        job.done = ids[-1]
        within = range(job.done + 1, within.stop)
        steps.take_out(PRUNED, ids, {}, job.save, **one.said)
        yield


def _ids(block: int) -> range:
    return range(block << BLOCK_BITS, (block << BLOCK_BITS) + BLOCK_EVENTS)


def _prune_users(
    job: Job, one: _Type, block: int, connection: Connection, steps: Steps
) -> Iterator[None]:
    """Of those who have such events in the block, all such events, also in later blocks."""
    while users := dict.fromkeys(one.find(connection, "user", _ids(block), _USERS_PER_STEP)):
        leaving: dict[Leaving, list[int]] = {}
        for user in users:
            user_leaves = Leaving(one.name, one.id, user, one.goes)
            while not user_leaves.read(connection, _READ_ROWS):
                yield
            yield
            room = steps.events_max - sum(map(len, leaving.values()))
            leaving[user_leaves] = user_leaves.ids[:room]
            if room <= len(user_leaves.ids):
                break
        while any(leaving.values()):
            job.add(one.name, sum(map(len, leaving.values())))
            steps.take_out(PRUNED, (), leaving, job.save, **one.said)
            yield
            leaving = {last: last.ids[: steps.events_max] for last in leaving if last.ids}
