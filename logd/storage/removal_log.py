"""Records removed events: their ids, the removal that took them out, and their leaves.

The hash over a removal is recorded in an internal event, so that it is part of the trail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from logd.storage import batch_hash, merkle
from logd.storage.database import Connection

# The kinds of removal, which are also the names of the counters.
PRUNED = "pruned"
ERASED = "erased"

# Counts the removals some of whose runs schema 11 has deleted, so that their hash is not verified.
COUNT_FORMER = (
    "SELECT count(*) FROM removal WHERE collapsed_events > 0 AND collapsed_events < events"
)


def runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Groups ascending ids into runs without a gap, as (first, last)."""
    made: list[tuple[int, int]] = []
    for event_id in ids:
        if made and made[-1][1] == event_id - 1:
            made[-1] = made[-1][0], event_id
        else:
            made.append((event_id, event_id))
    return made


def record(
    connection: Connection,
    kind: str,
    internal_event_id: int,
    ids: Sequence[int],
    redactions: Mapping[int, bytes],
) -> dict[str, Any]:
    """Records a removal, inside the caller's transaction; returns the internal event's properties.

    The internal event will have the id `internal_event_id`. `ids` are those of the removed events,
    ascending; `redactions` has the new leaf of each redacted event. A removal has only the one or
    the other, since the runs of removed events go when their batches do, and redactions stay.
    """
    assert not (ids and redactions)
    (removal_id,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM removal").fetchone()
    hashed = batch_hash.Removal()
    gone = runs(ids)
    for first, last in gone:
        hashed.add_run(first, last)
    changed = sorted(redactions.items())
    for event_id, leaf in changed:
        hashed.add_redaction(event_id, leaf)
    digest = hashed.hash(removal_id, kind)
    connection.execute(
        "INSERT INTO removal (id, event, kind, events, hash) VALUES (?, ?, ?, ?, ?)",
        (removal_id, internal_event_id, kind, hashed.events, digest),
    )
    connection.executemany(
        "INSERT INTO removed VALUES (?, ?, ?)", [(*run, removal_id) for run in gone]
    )
    connection.executemany(
        "INSERT INTO redacted VALUES (?, ?, ?)",
        [(event_id, removal_id, leaf) for event_id, leaf in changed],
    )
    return {
        "removal": removal_id,
        "events": hashed.events,
        "redacted": len(changed),
        "hash": digest.hex(),
    }


def keeps_runs(connection: Connection) -> bool:
    """Whether runs stay until all of a removal is collapsed: that migration has been applied."""
    return bool(
        connection.execute(
            "SELECT 1 FROM pragma_table_info('removal') WHERE name = 'waiting_events'"
        ).fetchone()
    )


def keep_leaves(connection: Connection, leaves: Mapping[int, bytes]) -> None:
    """Stores leaves that can no longer be computed; a leaf that is stored already is kept."""
    connection.executemany(
        "INSERT OR IGNORE INTO leaf (event, hash) VALUES (?, ?)", sorted(leaves.items())
    )


def merge_leaves(connection: Connection, first: int, end: int) -> None:
    """Merges the kept leaves of a batch's removed events into blocks.

    The batch's events are those from `first` to before `end`.
    """
    # The leaf of a redacted event is not merged, since the event is there and has another hash now.
    kept = {
        (level, (event - first) >> level): digest
        for event, level, digest in connection.execute(
            "SELECT event, level, hash FROM leaf WHERE event >= ? AND event < ?"
            " AND NOT EXISTS (SELECT 1 FROM event WHERE id = leaf.event)",
            (first, end),
        )
    }
    before = set(kept)
    waiting = sorted(kept)
    # The list grows in the loop, since a merged block may merge further.
    for level, position in waiting:
        pair = (level, position & ~1), (level, position | 1)
        if all(half in kept for half in pair):
            above = level + 1, position >> 1
            kept[above] = merkle.node_hash(kept.pop(pair[0]), kept.pop(pair[1]))
            waiting.append(above)
    connection.executemany(
        "DELETE FROM leaf WHERE event = ?",
        [(first + (position << level),) for level, position in before - kept.keys()],
    )
    connection.executemany(
        "INSERT INTO leaf (event, level, hash) VALUES (?, ?, ?)",
        [(first + (place[1] << place[0]), place[0], kept[place]) for place in kept.keys() - before],
    )
