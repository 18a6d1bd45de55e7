"""What an attacker with the database's key can do: make changed data verify again."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

from logd.storage import batch_hash, hash_chain, merkle
from logd.storage.database import Connection
from logd.storage.hash_chain import read_chained
from logd.storage.migrations import schema_version
from logd.storage.rollups import DAY_NS, Rollups, by_time
from logd.storage.time_blocks import BLOCK_BITS
from logd.storage.tree import kept_nodes, leaf_of
from logd.storage.tree_head import has_tree
from logd_wire.schema import SUBJECTS
from logd_wire.wire import unpack_props

_EVENTS = (
    "SELECT e.salt, e.id, p.uid || '-' || p.key, e.sequence, e.ts_ns, t.name, e.user, e.props"
    " FROM event e JOIN producer p ON p.id = e.producer JOIN event_type t ON t.id = e.type"
    " WHERE e.id >= ? AND e.id < ? ORDER BY e.id"
)


def cut_off(connection: Connection, first_batch: int) -> None:
    """Removes that batch and all later ones, with their events and losses."""
    (first_event,) = connection.execute(
        "SELECT first_event FROM batch WHERE id = ?", (first_batch,)
    ).fetchone()
    connection.execute("DELETE FROM loss WHERE batch >= ?", (first_batch,))
    connection.execute("DELETE FROM event WHERE id >= ?", (first_event,))
    connection.execute("DELETE FROM batch WHERE id >= ?", (first_batch,))
    if has_tree(connection):
        connection.execute("DELETE FROM node WHERE (position + 1) << level >= ?", (first_batch,))


def cut_and_rebuild(connection: Connection, first_batch: int) -> None:
    """Removes the same, and makes the rest verify again."""
    cut_off(connection, first_batch)
    rebuild(connection)


def rebuild(connection: Connection) -> None:
    """Computes the tree, counters, roll-ups and blocks of the events that are there.

    The values by block are deleted: the daemon computes those that are not there.
    """
    connection.execute("BEGIN")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'block_value'").fetchone():
        connection.execute("DELETE FROM block_value")
        connection.execute("DELETE FROM block_search")
    tree = has_tree(connection)
    chained = read_chained(connection).batches if tree else 2**62
    head, sums = hash_chain.GENESIS, _Sums(connection)
    batches = connection.execute("SELECT id, stored_ns, first_event, events FROM batch ORDER BY id")
    for number, stored_ns, first, events in batches.fetchall():
        leaves = []
        for row in connection.execute(_EVENTS, (first, first + events)):
            data = batch_hash.event_data(*row)
            leaves.append(hash_chain.plain(data) if number <= chained else merkle.leaf_hash(data))
            sums.add(row)
        assert len(leaves) == events
        losses = connection.execute(
            "SELECT p.uid || '-' || p.key, l.first, l.last, l.cause FROM loss l"
            " JOIN producer p ON p.id = l.producer WHERE l.batch = ? ORDER BY l.id",
            (number,),
        ).fetchall()
        lost = [batch_hash.loss_data(*loss) for loss in losses]
        numbers = number, stored_ns, first, events
        if number <= chained:
            leaves_hash = hash_chain.combine(leaves)
            losses_hash = hash_chain.combine(map(hash_chain.plain, lost))
            head = hash_chain.link(head, *numbers, leaves_hash, losses_hash)
        else:
            leaves_hash = merkle.root(leaves)
            entry = batch_hash.entry(*numbers, leaves_hash, [*map(merkle.leaf_hash, lost)])
            head = merkle.leaf_hash(entry)
        connection.execute(
            "UPDATE batch SET leaves_hash = ?, hash = ? WHERE id = ?", (leaves_hash, head, number)
        )
    if tree:
        grow(connection, chained)
    _count(connection)
    sums.write(connection)
    connection.execute("COMMIT")


def recount(connection: Connection) -> None:
    """Computes roll-ups and blocks of the events that are there."""
    sums = _Sums(connection)
    for row in connection.execute(_EVENTS, (1, 2**62)):
        sums.add(row)
    sums.write(connection)


class _Sums:
    """The roll-ups and blocks of events."""

    def __init__(self, connection: Connection) -> None:
        self._rollups = Rollups(by_time=by_time(connection))
        self._blocks: dict[int, tuple[int, int]] = {}

    def add(self, row: tuple[Any, ...]) -> None:
        _, event_id, _, _, ts_ns, kind, user, props = row
        self._rollups.days[kind, ts_ns // DAY_NS, user or ""] += 1
        if kind in SUBJECTS and user is not None:
            self._rollups.add_subject(kind, ts_ns, user, unpack_props(props))
        earliest, latest = self._blocks.get(event_id >> BLOCK_BITS, (ts_ns, ts_ns))
        self._blocks[event_id >> BLOCK_BITS] = min(earliest, ts_ns), max(latest, ts_ns)

    def write(self, connection: Connection) -> None:
        _sum_up(connection, self._rollups, self._blocks)


def grow(connection: Connection, chained: int) -> None:
    """Computes the tree's nodes anew."""
    connection.execute("DELETE FROM node")
    growing = merkle.Growing()
    for row in connection.execute(
        "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch ORDER BY id"
    ).fetchall():
        completed = growing.append(leaf_of(row, chained))
        nodes = kept_nodes(growing.size, completed)
        connection.executemany("INSERT INTO node VALUES (?, ?, ?)", nodes)


def _count(connection: Connection) -> None:
    lost = "SELECT coalesce(sum(last - first + 1), 0) FROM loss WHERE cause"
    for name, sql in (
        ("stored", "SELECT count(*) FROM event"),
        ("commits", "SELECT count(*) FROM batch"),
        ("lost", f"{lost} <> 'claimed'"),
        ("lost_claimed", f"{lost} = 'claimed'"),
    ):
        connection.execute(f"INSERT OR REPLACE INTO counter VALUES ('{name}', ({sql}))")


def _sum_up(connection: Connection, rollups: Rollups, blocks: dict[int, tuple[int, int]]) -> None:
    types: dict[str, int] = dict(connection.execute("SELECT name, id FROM event_type").fetchall())
    days = [(types[kind], day, user, n) for (kind, day, user), n in rollups.days.items()]
    subjects: list[Any] = [
        (types[kind], subject, user, row.events, row.first_ts_ns, row.last_ts_ns)
        + (row.last_value, row.best_value)
        + ((row.last_attempt,) if by_time(connection) else ())
        for (kind, subject, user), row in rollups.subjects.items()
    ]
    connection.execute("DELETE FROM rollup_day")
    connection.executemany("INSERT INTO rollup_day VALUES (?, ?, ?, ?)", days)
    connection.execute("DELETE FROM rollup_subject")
    columns = 9 if by_time(connection) else 8
    connection.executemany(
        f"INSERT INTO rollup_subject VALUES ({', '.join('?' * columns)})", subjects
    )
    if schema_version(connection) < 2:
        return
    connection.execute("DELETE FROM event_block")
    connection.executemany(
        "INSERT INTO event_block VALUES (?, ?, ?)",
        [(block, *times) for block, times in blocks.items()],
    )
    totals: Counter[int] = Counter()
    for type_id, same in groupby(sorted(days), key=lambda row: row[0]):
        totals[type_id] += sum(row[3] for row in same)
    connection.executemany(
        "UPDATE event_type SET events = ? WHERE id = ?",
        [(totals[type_id], type_id) for type_id in types.values()],
    )
