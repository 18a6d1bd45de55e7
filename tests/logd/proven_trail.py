"""A trail with a migration, prunes, a collapse, erasures and redactions behind it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from logd.audit import checkpoint, proof, signed_note
from logd.audit.checkpoint import Checkpoint
from logd.audit.proof import Keys, ProvenEvent
from logd.audit.prover import CannotBeProven, Prover
from logd.audit.signed_note import Note, Signer, Verifier
from logd.batch import LOST_NOT_RECEIVED, Batch
from logd.clock.readings import Reading
from logd.storage import merkle, trail_clock
from logd.storage.database import connect
from logd.storage.hash_chain import read_chained
from logd.storage.job_table import FORGET, PRUNE
from logd.storage.tree import leaf_of
from logd_wire.wire import Event
from tests.logd.made_up_trail import DAY_NS, KEY, TYPES, Trail
from tests.logd.older import older
from tests.logd.rebuilding import rebuild

EVENTS_PER_BATCH = 4


@dataclass
class Scene:
    """The trail, the root over its first n batches for each n, and the key that signs its heads."""

    trail: Trail
    roots: list[bytes]
    signer: Signer

    @property
    def keys(self) -> Keys:
        """What checks heads that only the trail's key has signed."""
        key = Verifier.from_vkey(self.signer.vkey)
        return Keys(lambda _origin: key)

    @property
    def size(self) -> int:
        return len(self.roots) - 1

    def prover(self) -> Prover:
        return Prover(self.trail.store.connection)

    def checkpoint(self, size: int) -> Checkpoint:
        assert self.trail.store.trail_id is not None
        return Checkpoint(checkpoint.origin(self.trail.store.trail_id), size, self.roots[size])

    def head(self, size: int | None = None) -> Note:
        text = checkpoint.format(self.checkpoint(self.size if size is None else size))
        return Note(text, (self.signer.sign(text),))

    @cached_property
    def proofs(self) -> dict[int, str]:
        """The proof of each event that can be proven, by the present head."""
        prover, head, proofs = self.prover(), self.head(), {}
        for event_id in range(1, self.trail.store.next_event):
            try:
                made = prover.prove_event(event_id, self.size, head)
            except CannotBeProven:
                continue
            proofs[event_id] = proof.format_event(made)
        return proofs

    @cached_property
    def two_proofs(self) -> list[str]:
        """The proofs of an event from before the tree, and of one since."""
        texts = list(self.proofs.values())
        return [
            next(text for text in texts if "chained" in text),
            next(text for text in reversed(texts) if text.split("\n\n")[0].count("\n") > 3),
        ]

    @cached_property
    def kept_sizes(self) -> list[int]:
        """Fifty sizes whose heads can be computed, and those of complete tiles among them."""
        prover, sizes = self.prover(), []
        for size in range(self.size + 1):
            try:
                assert prover.root_at(size) == self.roots[size]
            except CannotBeProven:
                assert size % 256
                continue
            sizes.append(size)
        tiles = [size for size in sizes if size and size % 256 == 0]
        assert len(tiles) == self.size // 256
        others = [size for size in sizes if size and size % 256 and size < self.size]
        chosen = random.Random(3).sample(others, 49 - len(tiles))
        return sorted([*tiles, *chosen, self.size])

    def check(self, text: str) -> ProvenEvent:
        return proof.check_event(text, self.keys)

    def growth(self, old: int, new: int) -> str:
        return proof.format_growth(self._steady.prove_growth(old, new, self.head(new)))

    @cached_property
    def _steady(self) -> Prover:
        return self.prover()


def make(directory: Path, batches: int, schema: int, rng: random.Random) -> Scene:
    """Makes the trail of about that many batches, two thirds of them from before the tree."""
    path, chained = directory / "a.db", batches * 2 // 3
    trail = Trail.__new__(Trail)
    trail.rng = rng
    first = list(_events(trail, range(chained * EVENTS_PER_BATCH), batches * EVENTS_PER_BATCH))
    older(path, KEY, schema, first, EVENTS_PER_BATCH)
    _date(path)
    trail.__init__(directory, rng)  # type: ignore[misc] # it opens, and with that migrates it
    trail.stored = dict(enumerate(first, start=1))
    trail_clock.save(trail.store.connection, Reading(50 * DAY_NS, "this boot", 0))
    at = chained * EVENTS_PER_BATCH
    while at < batches * EVENTS_PER_BATCH:
        count = rng.randrange(1, 2 * EVENTS_PER_BATCH)
        trail.commit(list(_events(trail, range(at, at + count), batches * EVENTS_PER_BATCH)))
        at += count
    _lose(trail)
    roots = _roots(trail)
    trail.finish(trail.ask(PRUNE, before=dict.fromkeys(TYPES, 12 * DAY_NS)))
    trail.finish(trail.ask(PRUNE, before={"login": 40 * DAY_NS}))
    trail.finish(trail.ask(FORGET, users=["3"]))
    for _ in range(20):
        trail.commit([trail.event()])
    assert trail.findings() == []
    name = checkpoint.origin(str(trail.store.trail_id))
    return Scene(trail, _roots(trail, roots), Signer(name, signed_note.new_private_key()))


def _events(trail: Trail, numbers: range, of: int) -> Iterator[Event]:
    """Events in the order of time, of thirty days."""
    for number in numbers:
        yield trail.event()._replace(ts_ns=number * 30 * DAY_NS // of)


def _date(path: Path) -> None:
    """Has the batches of an older trail stored at the times of their events."""
    connection = connect(path, KEY)
    connection.execute(
        "UPDATE batch SET stored_ns = (SELECT max(ts_ns) FROM event"
        " WHERE id >= first_event AND id < first_event + events)"
    )
    rebuild(connection)
    connection.close()


def _lose(trail: Trail) -> None:
    producer = trail.store.producer(2, 77)
    batch = Batch(10, 1000)
    producer.taken += 1
    batch.add_loss(producer, producer.taken, producer.taken, LOST_NOT_RECEIVED)
    producer.taken += 1
    event = trail.stored[trail.store.next_event] = trail.event()
    batch.add(producer, producer.taken, event, 1)
    trail.store.commit(batch, 30 * DAY_NS)
    batch.mark_committed()


def _roots(trail: Trail, before: Sequence[bytes] = ()) -> list[bytes]:
    """The root over the first n batches, for each n, from the rows of batches alone.

    Those of the batches in `before` are taken from there.
    """
    connection = trail.store.connection
    chained = read_chained(connection).batches
    rows = connection.execute(
        "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch ORDER BY id"
    ).fetchall()
    leaves = trail.__dict__.setdefault("leaves", {})  # also of batches that are collapsed later
    leaves |= {row[0]: leaf_of(row, chained) for row in rows}
    assert sorted(leaves) == list(range(1, len(leaves) + 1))
    made = merkle.Growing()
    found = [made.root()]
    for number in sorted(leaves):
        made.append(leaves[number])
        found.append(made.root())
    assert found[: len(before)] == list(before)
    return found
