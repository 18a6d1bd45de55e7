"""Adds losses, removals and redactions to a trail of an earlier schema, as its daemon had done."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from logd.audit.anchors import Anchor, parse
from logd.batch import EVENTS_PRUNED, PERSON_ERASED
from logd.storage import batch_hash, hash_chain
from logd.storage.database import Connection, connect
from logd.storage.migrations import schema_version
from logd.storage.removal_log import ERASED, PRUNED, runs
from logd_wire.wire import Event
from tests.logd.made_up_trail import DAY_NS, TYPES, USERS
from tests.logd.older import older
from tests.logd.rebuilding import rebuild, recount

REMOVALS_SINCE = 3  # the schema that had removals first
_EVENT = (
    "SELECT e.salt, e.id, p.uid || '-' || p.key, e.sequence, e.ts_ns, t.name, e.user, e.props"
    " FROM event e JOIN producer p ON p.id = e.producer JOIN event_type t ON t.id = e.type"
    " WHERE e.id = ?"
)


@dataclass
class Act:
    """One removal: the events that it took out, and the new content of those that it redacted."""

    kind: str
    gone: list[int]
    redacted: dict[int, bytes] = field(default_factory=dict)
    leaves: dict[int, bytes] = field(default_factory=dict)  # of redacted events, from then on


def events(rng: random.Random, count: int) -> Iterator[Event]:
    """Made-up events of thirty days, some of which name persons."""
    for number in range(count):
        props: dict[str, Any] = {"task": rng.randrange(4), "quiz": "q", "score": 0.5, "n": number}
        if rng.random() < 0.2:
            props["params"] = {"user": rng.choice(USERS)}
        ts_ns = rng.randrange(30) * DAY_NS + rng.randrange(5)
        yield Event(rng.choice(TYPES), ts_ns, rng.choice(USERS), msgpack.packb(props))


def older_with_acts(
    path: Path, key: bytes, schema: int, rng: random.Random, count: int, per_batch: int
) -> None:
    """Makes a trail of that schema with losses, and with removed and redacted events if it had
    them.
    """
    older(path, key, schema, events(rng, count), per_batch)
    add_acts(path, key, rng)


def add_acts(path: Path, key: bytes, rng: random.Random) -> None:
    """Adds losses, and removals if the schema had them."""
    connection = connect(path, key)
    connection.execute("BEGIN")
    _add_losses(connection)
    acts = list(_plan(connection, rng)) if schema_version(connection) >= REMOVALS_SINCE else []
    for number, act in enumerate(acts, start=1):
        _record(connection, number, act)
    connection.execute("COMMIT")
    rebuild(connection)
    connection.execute("BEGIN")
    for act in acts:
        _apply(connection, act)
    if acts:
        recount(connection)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def anchors_of(connection: Connection) -> list[Anchor]:
    """The anchors that a daemon of before trees has logged, one for each batch."""
    lines = connection.execute(
        "SELECT 'anchor batch=' || id || ' events=' || (first_event + events - 1) || ' head='"
        " || lower(hex(hash)) FROM batch ORDER BY id"
    )
    found = [parse(line) for (line,) in lines]
    return [anchor for anchor in found if anchor is not None and anchor.chained]


def _add_losses(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO producer VALUES (2, 1000, '00000000000000bb', 0, 0, 1, 'earlier', 1, 1, 1)"
    )
    first = 1
    for (batch,) in connection.execute("SELECT id FROM batch WHERE id % 13 = 5").fetchall():
        causes = [("not received", first + 2), ("claimed", first + 4), ("tail unknown", None)]
        for cause, last in causes[: 1 + batch % 3]:
            connection.execute(
                "INSERT INTO loss (batch, producer, first, last, cause, detected_ns)"
                " VALUES (?, 2, ?, ?, ?, 1)",
                (batch, first, last, cause),
            )
            first = (last or first) + 1
    connection.execute("UPDATE producer SET watermark = ? WHERE id = 2", (first,))


def _plan(connection: Connection, rng: random.Random) -> Iterator[Act]:
    """All of some batches, some of others; redactions of what stays, is redacted again, or goes."""
    (last,) = connection.execute("SELECT max(id) FROM event").fetchone()
    (first,) = connection.execute("SELECT first_event FROM batch WHERE id = 30").fetchone()
    left = set(range(1, last + 1))

    def gone(ids: set[int]) -> list[int]:
        left.difference_update(ids)
        return sorted(ids)

    def redacted(count: int) -> dict[int, bytes]:
        ids = rng.sample(sorted(left), min(count, len(left)))
        return {event_id: msgpack.packb({"n": "(erased)"}) for event_id in sorted(ids)}

    yield Act(PRUNED, gone(set(range(1, first))))
    again = redacted(40)
    yield Act(ERASED, [], again)
    yield Act(ERASED, gone({*rng.sample(sorted(left), last // 5), *sorted(again)[:10]} & left))
    yield Act(ERASED, [], {i: msgpack.packb({}) for i in sorted(again)[10:20] if i in left})
    yield Act(PRUNED, gone(set(rng.sample(sorted(left), last // 20))))


def _record(connection: Connection, number: int, act: Act) -> None:
    """Stores the removal, and the internal event in a batch of its own that records it."""
    hashed = batch_hash.Removal()
    for run in runs(act.gone):
        hashed.add_run(*run)
    for event_id, content in act.redacted.items():
        _salt, *fields, _props = connection.execute(_EVENT, (event_id,)).fetchone()
        salt = os.urandom(16)
        data = batch_hash.event_data(salt, *fields, content)  # type: ignore[call-arg] # six of them
        act.redacted[event_id] = salt + content
        act.leaves[event_id] = hash_chain.plain(data)
        hashed.add_redaction(event_id, act.leaves[event_id])
    digest = hashed.hash(number, act.kind)
    (event_id,) = connection.execute("SELECT max(id) + 1 FROM event").fetchone()
    props = {
        "removal": number,
        "events": hashed.events,
        "redacted": len(act.redacted),
        "hash": digest.hex(),
    }
    name = EVENTS_PRUNED if act.kind == PRUNED else PERSON_ERASED
    connection.execute("INSERT OR IGNORE INTO event_type (name) VALUES (?)", (name,))
    connection.execute(
        "INSERT OR IGNORE INTO producer"
        " VALUES (3, 0, '00000000000000cc', 0, 0, 1, 'earlier', 1, 1, 1)"
    )
    connection.execute("UPDATE producer SET watermark = ? WHERE id = 3", (number,))
    connection.execute(
        "INSERT INTO event SELECT ?, 3, ?, 5, id, NULL, ?, ? FROM event_type WHERE name = ?",
        (event_id, number, bytearray(msgpack.packb(props)), bytearray(os.urandom(16)), name),
    )
    connection.execute(
        "INSERT INTO batch SELECT max(id) + 1, max(id) + 1, ?, 1, x'', x'' FROM batch", (event_id,)
    )
    connection.execute(
        "INSERT INTO removal (id, event, kind, events, hash) VALUES (?, ?, ?, ?, ?)",
        (number, event_id, act.kind, len(act.gone), digest),
    )
    connection.executemany(
        "INSERT INTO removed VALUES (?, ?, ?)", [(*run, number) for run in runs(act.gone)]
    )
    connection.executemany(
        "INSERT INTO redacted VALUES (?, ?, ?)",
        [(event_id, number, leaf) for event_id, leaf in act.leaves.items()],
    )


def _apply(connection: Connection, act: Act) -> None:
    """Takes out what the removal says, as the daemon did in the same transaction."""
    for event_id in (*act.gone, *act.redacted):
        leaf = hash_chain.plain(
            batch_hash.event_data(*connection.execute(_EVENT, (event_id,)).fetchone())
        )
        connection.execute(
            "INSERT OR IGNORE INTO leaf (event, hash) VALUES (?, ?)", (event_id, leaf)
        )
    connection.executemany("DELETE FROM event WHERE id = ?", [(one,) for one in act.gone])
    connection.executemany(
        "UPDATE event SET salt = ?, props = ? WHERE id = ?",
        [
            (bytearray(content[:16]), bytearray(content[16:]), event_id)
            for event_id, content in act.redacted.items()
        ],
    )
    connection.execute(
        "DELETE FROM leaf WHERE event IN (SELECT leaf.event FROM leaf JOIN batch ON batch.id ="
        " (SELECT id FROM batch WHERE first_event <= leaf.event ORDER BY first_event DESC LIMIT 1)"
        " WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.id >= first_event"
        " AND event.id < first_event + events))"
    )
    connection.execute(
        "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = value + ?2",
        (act.kind, len(act.gone)),
    )
