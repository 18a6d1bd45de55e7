"""Makes proofs from a trail: of one event, and that the trail grew from an earlier head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from logd.audit import row_checks
from logd.audit.proof import EventProof, GrowthProof
from logd.audit.signed_note import Note
from logd.errors import EXIT_NOT_WHOLE, EXIT_UNAVAILABLE, EXIT_USAGE, LogdError
from logd.render import format_time
from logd.storage import batch_hash, hash_chain, merkle
from logd.storage.database import Connection
from logd.storage.removal_log import PRUNED
from logd.storage.tree import NotKept, Tree

T = TypeVar("T")

_BATCHES_CACHED = 8

_EVENTS = (
    "SELECT e.salt, e.id, p.uid || '-' || p.key, e.sequence, e.ts_ns, t.name, e.user, e.props"
    " FROM event e JOIN producer p ON p.id = e.producer JOIN event_type t ON t.id = e.type"
    " WHERE e.id >= ? AND e.id < ? ORDER BY e.id"
)


class NoSuchEvent(LogdError):
    """No event of this number was ever stored, or the event is newer than the head."""

    exit_code = EXIT_USAGE


class CannotBeProven(LogdError):
    """Rows that the proof needs were removed, as the trail records, so that it cannot be made."""

    exit_code = EXIT_UNAVAILABLE


class TrailChanged(LogdError):
    """The trail's hash is not the one that it was stored with, or not that of a kept head."""

    exit_code = EXIT_NOT_WHOLE


@dataclass(frozen=True)
class _Batch:
    """A batch: its entry, the data of its remaining events, and the hashes that it was stored with.

    The hashes are in `blocks`, by level and position, with those computed since.
    """

    id: int
    first_event: int
    events: int
    entry: bytes
    data: dict[int, bytes]
    blocks: dict[tuple[int, int], bytes]
    chained: bool

    def hashes(self, index: int) -> list[bytes]:
        """Returns the hashes that prove an event to be in the batch. Raises NotKept."""
        if self.chained:
            return [self._block(0, place) for place in range(self.events)]
        return merkle.inclusion_proof(index, self.events, self._block)

    def _block(self, level: int, position: int) -> bytes:
        digest = self.blocks.get((level, position))
        if digest is not None:
            return digest
        if level == 0:
            raise NotKept(f"batch {self.id}: the hash of an event is missing")
        digest = merkle.node_hash(
            self._block(level - 1, 2 * position), self._block(level - 1, 2 * position + 1)
        )
        self.blocks[level, position] = digest  # for the proofs of further events of the batch
        return digest


class Prover:
    """Makes proofs of one trail that the connection's transaction sees."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.tree = Tree(connection)
        self._chained = hash_chain.read_chained(connection).batches
        self._batch = lru_cache(maxsize=_BATCHES_CACHED)(self._read_batch)

    def prove_event(self, event_id: int, size: int, head: Note) -> EventProof:
        """Returns the proof of an event by the head of the first `size` batches.

        Raises NoSuchEvent, CannotBeProven and TrailChanged.
        """
        batch_id = self._batch_of(event_id)
        if batch_id > size:
            raise NoSuchEvent(
                f"event {event_id} is in batch {batch_id}, and that head is of {size} batches:"
                " prove it by a later one."
            )
        batch = self._batch(batch_id)
        index = event_id - batch.first_event
        self._check_unchanged(event_id, batch)
        try:
            hashes = batch.hashes(index)
        except NotKept as error:
            raise TrailChanged(f"{error}. Run `logd verify`.") from error
        return EventProof(
            batch.data[event_id],
            index,
            hashes,
            batch.entry.decode("ascii"),
            batch_id - 1,
            self._kept(lambda: merkle.inclusion_proof(batch_id - 1, size, self.tree.block), size),
            head,
        )

    def prove_growth(self, old: int, size: int, head: Note) -> GrowthProof:
        """Returns the proof that the head of `size` batches continues the head of `old` batches.

        Raises NoSuchEvent and CannotBeProven.
        """
        if old > size:
            raise NoSuchEvent(f"a trail of {size} batches has not grown from {old}.")
        hashes = self._kept(lambda: merkle.consistency_proof(old, size, self.tree.block), old)
        return GrowthProof(old, hashes, head)

    def root_at(self, size: int) -> bytes:
        """Returns the root of the first `size` batches. Raises NoSuchEvent and CannotBeProven."""
        if size > self.tree.size():
            raise NoSuchEvent(f"the trail has {self.tree.size()} batches, and not {size}.")
        return self._kept(lambda: self.tree.root_at(size), size)

    def _kept(self, hashes: Callable[[], T], size: int) -> T:
        try:
            return hashes()
        except NotKept as error:
            raise CannotBeProven(
                f"by a head of {size} batches nothing can be proven any more: batches around its"
                " end were removed with all of their events. Use another head; one of a multiple"
                " of 256 batches always does."
            ) from error

    def _batch_of(self, event_id: int) -> int:
        row = self.connection.execute(
            "SELECT id, first_event + events FROM batch WHERE first_event <= ?"
            " ORDER BY first_event DESC, id DESC LIMIT 1",
            (event_id,),
        ).fetchone()
        (last,) = self.connection.execute(
            "SELECT coalesce(max(first_event + events - 1), 0) FROM batch"
        ).fetchone()
        if not 1 <= event_id <= last:
            raise NoSuchEvent(f"there is no event {event_id}: the last one is {last}.")
        if row is None or event_id >= row[1]:
            raise CannotBeProven(
                f"event {event_id} was removed, with all of its batch and the batches beside it."
            )
        return int(row[0])

    def _read_batch(self, batch_id: int) -> _Batch:
        query = self.connection.execute
        row = query(
            "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch WHERE id = ?",
            (batch_id,),
        ).fetchone()
        problem = row_checks.problem(row, row_checks.BATCH)
        if problem is not None:
            raise ValueError(f"batch {batch_id}: {problem}")
        _, stored_ns, first, events, leaves_hash, _hash = row
        chained = batch_id <= self._chained
        if chained:
            entry, hashed = batch_hash.chained_entry(*row), hash_chain.plain
        else:
            losses = query(
                "SELECT p.uid || '-' || p.key, l.first, l.last, l.cause FROM loss l"
                " JOIN producer p ON p.id = l.producer WHERE l.batch = ? ORDER BY l.id",
                (batch_id,),
            ).fetchall()
            lost = [merkle.leaf_hash(batch_hash.loss_data(*loss)) for loss in losses]
            numbers = batch_id, stored_ns, first, events
            entry, hashed = batch_hash.entry(*numbers, leaves_hash, lost), merkle.leaf_hash
        range_ = first, first + events
        data = {row[1]: batch_hash.event_data(*row) for row in query(_EVENTS, range_)}
        blocks = {(0, event_id - first): hashed(one) for event_id, one in data.items()}
        # A redacted event is still there, and the hash that it was stored with is kept as a leaf.
        for event, level, digest in query(
            "SELECT event, level, hash FROM leaf WHERE event >= ? AND event < ?", range_
        ):
            blocks[level, (event - first) >> level] = digest
        return _Batch(batch_id, first, events, entry, data, blocks, chained)

    def _check_unchanged(self, event_id: int, batch: _Batch) -> None:
        """Raises CannotBeProven if the event was removed or redacted; the message names the act."""
        for removed, act in self._acts(event_id):
            raise CannotBeProven(
                f"event {event_id} was {removed}, as {act}."
                + (
                    " Its present content is another than it was stored with, so that it cannot"
                    " be proven."
                    if event_id in batch.data
                    else " It is not there any more, so that it cannot be proven."
                )
            )
        if event_id not in batch.data:
            raise TrailChanged(
                f"event {event_id} is missing, and no removal of it is recorded. Run `logd verify`."
            )

    def _acts(self, event_id: int) -> Iterator[tuple[str, str]]:
        """Yields each act on an event (pruned, erased, redacted) and the event that records it."""
        rows = self.connection.execute(
            "SELECT 0, r.kind, r.event, e.ts_ns FROM removed d JOIN removal r ON r.id = d.removal"
            " LEFT JOIN event e ON e.id = r.event WHERE d.first <= ?1 AND d.last >= ?1"
            " UNION ALL"
            " SELECT 1, r.kind, r.event, e.ts_ns FROM redacted d JOIN removal r"
            " ON r.id = d.removal LEFT JOIN event e ON e.id = r.event WHERE d.event = ?1"
            " ORDER BY 1, 3",
            (event_id,),
        )
        for redacted, kind, act, ts_ns in rows.fetchall():
            done = "redacted" if redacted else "pruned" if kind == PRUNED else "erased"
            when = "" if ts_ns is None else f" of {format_time(ts_ns)}"
            yield done, f"event {act}{when} records"
