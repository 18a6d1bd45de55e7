"""Proofs of events and of growth: what is there is proven, and nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from itertools import combinations

import msgpack
import pytest

from logd.audit import checkpoint, proof
from logd.audit.checkpoint import Checkpoint
from logd.audit.proof import EventProof, Keys, NotAProof, Refuted, check_growth
from logd.audit.prover import CannotBeProven, NoSuchEvent, TrailChanged
from logd.audit.signed_note import Note, Signer, Verifier
from logd.clock import readings
from logd.maintenance import stored_times
from logd.storage import batch_hash, merkle
from logd.storage.database import Connection
from logd.storage.hash_chain import read_chained
from logd_wire.schema import INTERNAL_TYPES
from tests.logd import proven_trail
from tests.logd.mutations import mutations
from tests.logd.proven_trail import Scene
from tests.logd.witness import Witness
from tests.support.instance import short_directory


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    directory = short_directory()
    with pytest.MonkeyPatch.context() as patch:
        for module in (readings, stored_times):
            patch.setattr(module, "EARLIEST_NS", 0)
        made = proven_trail.make(directory, 700, 5, random.Random(1))
    yield made
    made.trail.store.close()
    shutil.rmtree(directory)


@pytest.fixture
def connection(scene: Scene) -> Iterator[Connection]:
    """The trail's connection, in a transaction that is rolled back."""
    connection = scene.trail.store.connection
    connection.execute("BEGIN")
    yield connection
    connection.execute("ROLLBACK")


def test_what_is_there_is_proven_and_of_the_rest_the_act_is_named(scene: Scene) -> None:
    prover, head, trail = scene.prover(), scene.head(), scene.trail
    present = trail.rows()
    proven, reasons = 0, set()
    for event_id in range(1, trail.store.next_event):
        stored, now = trail.stored.get(event_id), present.get(event_id)
        if event_id not in scene.proofs:
            assert stored is not None and now != stored
            with pytest.raises(CannotBeProven) as refused:
                prover.prove_event(event_id, scene.size, head)
            text = str(refused.value)
            reasons.add(text.split(f"event {event_id} was ")[1].split()[0].rstrip(","))
            assert ("present content" in text) is (now is not None)
            continue
        event = scene.check(scene.proofs[event_id])
        assert event.id == event_id
        if stored is None:
            assert event.type in INTERNAL_TYPES
        else:
            assert (event.type, event.ts_ns, event.user, event.props) == stored == now
        proven += 1
    assert reasons == {"removed", "pruned", "erased", "redacted"}
    chained = read_chained(trail.store.connection).events
    assert proven > 1000 and any(event_id <= chained for event_id in present)


@pytest.mark.parametrize("event", [0, -1, 10**9, 2**63 - 1])
def test_an_event_that_never_was_is_not_proven(scene: Scene, event: int) -> None:
    with pytest.raises(NoSuchEvent, match=f"no event {event}: the last one is"):
        scene.prover().prove_event(event, scene.size, scene.head())


def test_an_event_is_proven_by_any_head_since_it_was_stored(scene: Scene) -> None:
    """By each that can be computed, with the same content."""
    event_id = next(iter(scene.proofs))
    prover, proven = scene.prover(), set()
    for size in range(scene.size + 1):
        try:
            made = prover.prove_event(event_id, size, scene.head(size))
        except (CannotBeProven, NoSuchEvent):
            continue
        event = scene.check(proof.format_event(made))
        assert event.entry.batch <= size
        proven.add(size)
    first = event.entry.batch
    assert {*range(first, scene.size + 1, 256), scene.size} - {first} <= proven | {first}
    with pytest.raises(NoSuchEvent, match="prove it by a later one"):
        prover.prove_event(event_id, first - 1, scene.head(first - 1))


def test_no_byte_of_a_proof_can_be_changed(scene: Scene) -> None:
    for text in scene.two_proofs:
        scene.check(text)
        count = 0
        for changed in mutations(text, step=3):
            with pytest.raises((NotAProof, Refuted)):
                scene.check(changed)
            count += 1
        assert count > len(text)


def test_no_part_of_one_proof_fits_another(scene: Scene) -> None:
    """Every part, and every line, of two proofs of the same head."""
    texts = list(scene.proofs.values())
    for one, other in ((texts[0], texts[1]), (texts[-1], texts[-2]), (texts[0], texts[-1])):
        for separator in ("\n\n", "\n"):
            parts, others = one.split(separator), other.split(separator)
            for place, part in enumerate(others[: len(parts)]):
                mixed = separator.join([*parts[:place], part, *parts[place + 1 :]])
                if mixed not in (one, other):
                    with pytest.raises((NotAProof, Refuted)):
                        scene.check(mixed)


def test_a_proof_needs_the_key_of_its_trail(scene: Scene) -> None:
    text = scene.two_proofs[1]
    stranger = proven_trail.Scene(scene.trail, scene.roots, Signer("logd/00", bytes(32)))
    with pytest.raises(Refuted, match=r"of logd/.* and the key of logd/00"):
        stranger.check(text)
    parsed = proof.parse(text)
    assert isinstance(parsed, EventProof)
    other = Signer(scene.checkpoint(1).origin, bytes(32))
    again = proof.format_event(
        EventProof(
            *(parsed.event, parsed.index, parsed.hashes, parsed.entry, parsed.batch_index),
            parsed.batch_hashes,
            Note(parsed.head.text, (other.sign(parsed.head.text),)),
        )
    )
    with pytest.raises(Refuted, match="no signature by"):
        scene.check(again)


PRODUCER = f"7-{16 * 'a'}"
EVENT = batch_hash.event_data(bytes(16), 1, PRODUCER, 1, 5, "page_view", "u", b"\x80")
BY_HAND = Signer("logd/00", bytes(32))


def handmade(data: bytes, numbers: tuple[int, int, int, int] = (1, 5, 1, 1)) -> str:
    """A proof in a trail of one event, whatever that is, which the key of the trail has signed."""
    entry = batch_hash.entry(*numbers, merkle.leaf_hash(data), [])
    head = Checkpoint("logd/00", 1, merkle.leaf_hash(entry))
    text = checkpoint.format(head)
    note = Note(text, (BY_HAND.sign(text),))
    return proof.format_event(EventProof(data, 0, [], entry.decode(), 0, [], note))


def by_hand(vkey: str = BY_HAND.vkey) -> Keys:
    return Keys(lambda _origin: Verifier.from_vkey(vkey))


def test_what_a_trail_says_of_itself_must_be_so() -> None:
    """Even if its key has signed it."""
    good = handmade(EVENT)
    assert proof.check_event(good, by_hand()).user == "u"
    wrong = {
        (2, 5, 1, 1): "says that it is 2, and is 1",
        (1, 5, 2, 1): "the event's number is not that of its place",
        (1, 5, 1, 2): "the event is not in that batch",
    }
    for numbers, problem in wrong.items():
        with pytest.raises(Refuted, match=problem):
            proof.check_event(handmade(EVENT, numbers), by_hand())
    with pytest.raises(NotAProof, match="out of range"):
        proof.check_event(handmade(EVENT, (1, 2**63, 1, 1)), by_hand())
    with pytest.raises(Refuted, match="a witness's"):
        proof.check_event(good, by_hand(Witness("logd/00").vkey))


@pytest.mark.parametrize(
    "data",
    [
        *(EVENT[:16], EVENT[1:], b"", EVENT + b"\0", bytes(16) + b"\xc1", bytes(16) + b"\x97"),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, 5, "page_view", "u"]),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, 5, "page_view", "u", b"\x80", 1]),
        bytes(16) + msgpack.packb([1, "no producer", 1, 5, "page_view", "u", b"\x80"]),
        bytes(16) + msgpack.packb([1, 7, 1, 5, "page_view", "u", b"\x80"]),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, -5, "page_view", "u", b"\x80"]),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, 5, "Page View", "u", b"\x80"]),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, 5, "page_view", "u" * 300, b"\x80"]),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, 5, "page_view", ["u"], b"\x80"]),
        bytes(16) + msgpack.packb([1, PRODUCER, 1, 5, "page_view", "u", {}]),
        EVENT[:17] + b"\xcd\0\x01" + EVENT[18:],  # the number in another form
        EVENT.replace(b"7-", b"07-").replace(b"\xb2", b"\xb3"),
    ],
)
def test_what_has_not_the_form_of_an_event_is_none(data: bytes) -> None:
    with pytest.raises(NotAProof, match="the event"):
        proof.check_event(handmade(data), by_hand())


def test_growth_is_of_one_trail(scene: Scene) -> None:
    text, old = scene.growth(scene.size, scene.size), scene.checkpoint(scene.size)
    with pytest.raises(Refuted, match="the kept head is of logd/00"):
        check_growth(text, Checkpoint("logd/00", old.size, old.root), scene.keys)


CHANGES = {
    "content": "UPDATE event SET props = x'80' WHERE id = :event",
    "time": "UPDATE event SET ts_ns = ts_ns + 1 WHERE id = :event",
    "user": "UPDATE event SET user = '99' WHERE id = :event",
    "salt": "UPDATE event SET salt = zeroblob(16) WHERE id = :event",
    "batch": "UPDATE batch SET stored_ns = stored_ns + 1 WHERE first_event <= :event"
    " AND :event < first_event + events",
    "root": "UPDATE batch SET leaves_hash = zeroblob(32) WHERE first_event <= :event"
    " AND :event < first_event + events",
    "missing": "DELETE FROM event WHERE id = :event",
    "tree": "UPDATE node SET hash = zeroblob(32) WHERE level = 8",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("chained", [True, False])
def test_a_changed_event_is_not_proven(
    scene: Scene, connection: Connection, change: str, chained: bool
) -> None:
    """The proof is checked before it is given away; see `logd.audit.prove`."""
    event_id = min(scene.proofs) if chained else max(scene.proofs)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(CHANGES[change], {"event": event_id})
    with pytest.raises((TrailChanged, Refuted)):
        scene.check(
            proof.format_event(scene.prover().prove_event(event_id, scene.size, scene.head()))
        )


def test_between_any_two_of_50_heads_the_trail_only_grew(scene: Scene) -> None:
    sizes = scene.kept_sizes
    assert len(sizes) == 50
    for old, new in combinations(sizes, 2):
        text = scene.growth(old, new)
        head = check_growth(text, scene.checkpoint(old), scene.keys)
        assert head.checkpoint == scene.checkpoint(new)
        other = sizes[0] if old != sizes[0] else sizes[1]
        with pytest.raises(Refuted, match="for"):
            check_growth(text, scene.checkpoint(other), scene.keys)


def test_no_byte_of_a_proof_of_growth_can_be_changed(scene: Scene) -> None:
    sizes = scene.kept_sizes
    old, new = sizes[len(sizes) // 2], scene.size
    text = scene.growth(old, new)
    for changed in mutations(text):
        with pytest.raises((NotAProof, Refuted)):
            check_growth(changed, scene.checkpoint(old), scene.keys)


def test_a_head_inside_of_a_collapsed_run_proves_nothing_any_more(scene: Scene) -> None:
    with pytest.raises(CannotBeProven, match="one of a multiple of 256 batches always does"):
        scene.growth(100, scene.size)
    with pytest.raises(NoSuchEvent, match="has not grown from"):
        scene.growth(scene.size, scene.size - 1)
