"""Reads producers from the database: the state of one, and those that can send no more."""

from __future__ import annotations

from collections.abc import Iterator

from logd.batch import LOST_OUTBOX_GONE, LOST_TAIL_UNKNOWN, Producer
from logd.storage.database import Connection
from logd_wire.liveness import is_running
from logd_wire.wire import producer_seed

_PAGE_ROWS = 1000


def load(connection: Connection, uid: int, producer_id: int) -> Producer:
    """Loads a producer's state; returns a new producer if nothing of it is stored."""
    row = connection.execute(
        "SELECT id, p.watermark, ended, pid, coalesce(r.watermark, 0),"
        " (SELECT coalesce(sum(events), 0) FROM refusal WHERE producer = p.id) FROM producer p"
        " LEFT JOIN replaced r ON r.uid = p.uid AND r.key = p.key"
        " WHERE p.uid = ? AND p.key = ?",
        (uid, f"{producer_id:016x}"),
    ).fetchone()
    producer = Producer(uid=uid, id=producer_id, seed=producer_seed(producer_id))
    if row is not None:
        producer.row, producer.stored, ended, producer.pid, producer.replaced, refused = row
        producer.refused_logged = refused
        producer.taken = producer.stored
        producer.ended = bool(ended)
    return producer


def unfinished(connection: Connection, boot_id: str) -> Iterator[tuple[int, int, str] | None]:
    """Yields producers (uid, id, cause of loss) that can send no more, except by an outbox.

    They are of an earlier boot, or had an outbox and their process has ended. (A process that still
    runs continues with another producer, and sends a farewell for this one.) Their last sequence is
    not known. Yields None after each page of rows, so that the caller can commit.
    """
    last = 0
    while rows := connection.execute(
        "SELECT id, uid, key, boot_id, has_outbox, pid FROM producer"
        " WHERE ended = 0 AND id > ? ORDER BY id LIMIT ?",
        (last, _PAGE_ROWS),
    ).fetchall():
        for last, uid, key, seen_boot_id, has_outbox, pid in rows:  # noqa: B007 - of the last
            if seen_boot_id != boot_id:
                yield uid, int(key, 16), LOST_TAIL_UNKNOWN
            elif has_outbox and not is_running(pid):
                yield uid, int(key, 16), LOST_OUTBOX_GONE
        yield None
