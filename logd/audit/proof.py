"""Makes and checks proofs that need no database: of one event, and that a trail only grew (pure).

A proof of an event is a text of four parts, with an empty line between them:

    logd/event-proof@v1             the event's leaf: base64 of salt and fields,
    event <base64>                  its place in its batch,
    index 12                        and how it is included in the tree of the batch's events
    <hash> ...

    logd/batch@v1                   the batch's leaf, verbatim (`logd.storage.batch_hash.entry`)
    ...

    c2sp.org/tlog-proof@v1          how the batch is included in the trail's tree,
    index 811                       in the form of c2sp.org/tlog-proof,
    <hash> ...

    logd/9f1c00112233aabb           and the signed head of that tree, a checkpoint
    ...

For a batch from before the tree (`logd.storage.hash_chain`) the first part has the plain hashes of
all of its events. A proof of growth has the form of a request to a witness, c2sp.org/tlog-witness:

    old 700
    <hash> ...

    <checkpoint>

Each text has one form only: what `format_event` or `format_growth` would not write is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgpack

from logd.audit import checkpoint as checkpoints
from logd.audit import row_checks, signed_note
from logd.audit.checkpoint import Checkpoint
from logd.audit.signed_note import Note, Verified, Verifier, decode_base64, encode_base64
from logd.storage import batch_hash, hash_chain, merkle
from logd.storage.merkle import HASH_BYTES
from logd_wire.schema import INT64_MAX

# The most characters of a proof. A batch from before the tree has
# up to a million events, whose hashes have 45 characters each.
PROOF_CHARS_MAX = 64 * 1024 * 1024
# The limit of c2sp.org/tlog-witness.
CONSISTENCY_HASHES_MAX = 63

EVENT_PROOF = "logd/event-proof@v1"
TLOG_PROOF = "c2sp.org/tlog-proof@v1"
_GROWTH = "old "
_NUMBER = "(0|[1-9][0-9]{0,18})"
_INDEX = re.compile(f"index {_NUMBER}", re.ASCII)
_OLD = re.compile(f"old {_NUMBER}", re.ASCII)
_ENTRY = re.compile(
    rf"logd/(chained-)?batch@v1\n{_NUMBER} {_NUMBER} {_NUMBER} {_NUMBER}\n"
    rf"([A-Za-z0-9+/]{{43}}=)\n(?:{_NUMBER} )?[A-Za-z0-9+/]{{43}}=\n",
    re.ASCII,
)


# An event's id, producer, sequence, time, type, user and packed properties.
Content = tuple[int, str, int, int, str, str | None, bytes]


class NotAProof(ValueError):
    """The text is not a proof in the one form that a proof must have."""


class Refuted(Exception):
    """The proof does not prove its claim: a hash or a signature does not match."""


@dataclass(frozen=True)
class Entry:
    """The leaf of a batch; `chained` says that the batch is from before the tree."""

    batch: int
    stored_ns: int
    first_event: int
    events: int
    events_hash: bytes
    chained: bool


@dataclass(frozen=True)
class EventProof:
    """The proof that an event is included in a batch, and the batch in a signed head."""

    event: bytes
    index: int
    hashes: Sequence[bytes]
    entry: str
    batch_index: int
    batch_hashes: Sequence[bytes]
    head: Note


@dataclass(frozen=True)
class GrowthProof:
    """The proof that the tree of `old` batches is the beginning of the tree of a signed head."""

    old: int
    hashes: Sequence[bytes]
    head: Note


@dataclass(frozen=True)
class Keys:
    """The keys that must have signed a head: the trail's, by origin, and those of witnesses."""

    trail: Callable[[str], Verifier]
    witnesses: Sequence[Verifier] = ()


@dataclass(frozen=True)
class ProvenHead:
    """A head with the signature of the trail's key, and the cosignatures of the witnesses.

    `unknown` are the names of other signatures, which were not checked.
    """

    checkpoint: Checkpoint
    witnesses: tuple[Verified, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProvenEvent:
    """An event whose proof was checked and holds."""

    id: int
    producer: str
    sequence: int
    ts_ns: int
    type: str
    user: str | None
    props: bytes
    entry: Entry
    head: ProvenHead


def format_event(proof: EventProof) -> str:
    """Returns the proof of an event as text."""
    return format_inclusion(proof) + signed_note.format(proof.head)


def format_inclusion(proof: EventProof) -> str:
    """Returns the proof of an event as text, without the head, which completes it."""
    return (
        f"{EVENT_PROOF}\nevent {encode_base64(proof.event)}\nindex {proof.index}\n"
        f"{_format_hashes(proof.hashes)}\n{proof.entry}\n"
        f"{TLOG_PROOF}\nindex {proof.batch_index}\n{_format_hashes(proof.batch_hashes)}\n"
    )


def format_growth(proof: GrowthProof) -> str:
    """Returns the proof of growth as text: the body of a witness's `add-checkpoint`."""
    return f"{_GROWTH}{proof.old}\n{_format_hashes(proof.hashes)}\n{signed_note.format(proof.head)}"


def parse(text: str) -> EventProof | GrowthProof:
    """Returns the proof in a text, of an event or of growth. Raises NotAProof."""
    if len(text) > PROOF_CHARS_MAX:
        raise NotAProof(f"it is longer than {PROOF_CHARS_MAX:,} characters")
    proof: EventProof | GrowthProof
    try:
        if text.startswith(_GROWTH):
            proof = _parse_growth(text)
            formatted = format_growth(proof)
        else:
            proof = _parse_event(text)
            formatted = format_event(proof)
    except ValueError as error:
        raise NotAProof(str(error)) from error
    if formatted != text:
        raise NotAProof("it is not in the one form that such a proof has")
    return proof


def parse_entry(text: str) -> Entry:
    """Returns the batch's leaf that is written as text. Raises NotAProof."""
    found = _ENTRY.fullmatch(text)
    if found is None or (found[1] is None) is (found[7] is None):
        raise NotAProof("the part of the batch is not an entry of a batch")
    batch, stored_ns, first, events = (int(found[group]) for group in range(2, 6))
    if max(batch, stored_ns, first, events) > INT64_MAX or not (batch and first):
        raise NotAProof("the entry of the batch has a number that is out of range")
    return Entry(batch, stored_ns, first, events, decode_base64(found[6]), found[1] is not None)


def check_head(head: Note, keys: Keys) -> ProvenHead:
    """Checks that the trail's key and all witnesses have signed a head.

    Raises Refuted, and NotAProof if the text is no checkpoint.
    """
    try:
        found = checkpoints.parse(head.text)
    except ValueError as error:
        raise NotAProof(f"the head is not a checkpoint: {error}") from error
    key = keys.trail(found.origin)
    if key.kind != signed_note.ED25519:
        raise Refuted(f"{key.name}: the key is a witness's, not that of a trail")
    if found.origin != key.name:
        raise Refuted(f"the head is of {found.origin}, and the key of {key.name}")
    seen = tuple(_signature(head, one) for one in (key, *keys.witnesses))
    known = {(one.name, one.key_id) for one in seen}
    unknown = tuple(one.name for one in head.signatures if (one.name, one.key_id) not in known)
    return ProvenHead(found, seen[1:], unknown)


def check_event(text: str, keys: Keys) -> ProvenEvent:
    """Checks the whole proof of an event, and returns the event that it proves.

    Raises Refuted or NotAProof.
    """
    proof = parse(text)
    if not isinstance(proof, EventProof):
        raise NotAProof(
            "it proves no event, but that a trail grew: name the head from which, --growth"
        )
    head = check_head(proof.head, keys)
    event, entry = check_inclusion(proof, head.checkpoint)
    return ProvenEvent(*event, entry, head)


def check_inclusion(proof: EventProof, head: Checkpoint) -> tuple[Content, Entry]:
    """Checks that an event is in the trail of a head; returns its content and its batch's entry.

    The signatures of the proof's own head are not looked at. Raises Refuted or NotAProof.
    """
    entry = parse_entry(proof.entry)
    leaf = merkle.leaf_hash(proof.entry.encode("ascii"))
    if _root(proof.batch_index, head.size, leaf, proof.batch_hashes) != head.root:
        raise Refuted("the batch is not in the trail of that head")
    if entry.batch != proof.batch_index + 1:
        raise Refuted(f"the batch says that it is {entry.batch}, and is {proof.batch_index + 1}")
    if not _includes(entry, proof):
        raise Refuted("the event is not in that batch")
    event = _parse_content(proof.event)
    if event[0] - entry.first_event != proof.index:
        raise Refuted("the event's number is not that of its place in the batch")
    return event, entry


def check_growth(text: str, old: Checkpoint, keys: Keys) -> ProvenHead:
    """Checks the proof that a trail grew from the head `old`, and returns the later head.

    Raises Refuted or NotAProof.
    """
    proof = parse(text)
    if not isinstance(proof, GrowthProof):
        raise NotAProof("it proves an event, and not that a trail grew")
    head = check_head(proof.head, keys)
    new = head.checkpoint
    if old.origin != new.origin:
        raise Refuted(f"the kept head is of {old.origin}, and the proof of {new.origin}")
    if old.size != proof.old:
        raise Refuted(f"the kept head has {old.size} batches, and the proof is for {proof.old}")
    if not merkle.is_consistent(old.size, new.size, old.root, new.root, proof.hashes):
        raise Refuted("the trail has not grown from that head: it was changed")
    return head


def _signature(head: Note, key: Verifier) -> Verified:
    try:
        verified = key.verify(head)
    except signed_note.BadSignature as error:
        raise Refuted(str(error)) from error
    if verified is None:
        raise Refuted(f"the head has no signature by {key.name} with that key")
    return verified


def _root(index: int, size: int, leaf: bytes, hashes: Sequence[bytes]) -> bytes | None:
    """Returns the root that the hashes lead to; None if their number is wrong."""
    try:
        return merkle.root_by_inclusion(index, size, leaf, hashes)
    except ValueError:
        return None


def _includes(entry: Entry, proof: EventProof) -> bool:
    if not entry.chained:
        leaf = merkle.leaf_hash(proof.event)
        return _root(proof.index, entry.events, leaf, proof.hashes) == entry.events_hash
    return (
        proof.index < len(proof.hashes) == entry.events
        and proof.hashes[proof.index] == hash_chain.plain(proof.event)
        and hash_chain.combine(proof.hashes) == entry.events_hash
    )


def _parse_content(data: bytes) -> Content:
    salt, packed = data[: batch_hash.SALT_BYTES], data[batch_hash.SALT_BYTES :]
    try:
        event_id, producer, sequence, ts_ns, kind, user, props = msgpack.unpackb(packed)
        uid, _, key = producer.partition("-")
        row = (salt, event_id, int(uid), key, sequence, ts_ns, kind, user, props)
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise NotAProof("the event has not the form of one") from error
    problem = row_checks.event_problem(row)
    if problem is not None:
        raise NotAProof(f"the event has not the form of one: {problem}")
    content = event_id, f"{int(uid)}-{key}", sequence, ts_ns, kind, user, props
    if batch_hash.event_data(salt, *content) != data:
        raise NotAProof("the event is not packed as logd packs it")
    return content


def _parse_event(text: str) -> EventProof:
    parts = text.split("\n\n", 3)
    if len(parts) != 4:
        raise NotAProof(f"it is neither a proof of an event ({EVENT_PROOF}) nor of growth (old N)")
    title, event, index, *hashes = _lines(parts[0], 3)
    batch_title, batch_index, *batch_hashes = _lines(parts[2], 2)
    if title != EVENT_PROOF or batch_title != TLOG_PROOF or not event.startswith("event "):
        raise NotAProof(f"it is not a proof of an event: {EVENT_PROOF} with {TLOG_PROOF}")
    entry = parts[1] + "\n"
    parse_entry(entry)
    return EventProof(
        decode_base64(event.removeprefix("event ")),
        _parse_number(_INDEX, index),
        _parse_hashes(hashes),
        entry,
        _parse_number(_INDEX, batch_index),
        _parse_hashes(batch_hashes),
        signed_note.parse(parts[3]),
    )


def _parse_growth(text: str) -> GrowthProof:
    head, _, note = text.partition("\n\n")
    old, *hashes = head.split("\n")
    if len(hashes) > CONSISTENCY_HASHES_MAX:
        raise NotAProof(f"it has more than {CONSISTENCY_HASHES_MAX} hashes")
    return GrowthProof(_parse_number(_OLD, old), _parse_hashes(hashes), signed_note.parse(note))


def _lines(part: str, count: int) -> list[str]:
    lines = part.split("\n")
    if len(lines) < count:
        raise NotAProof("one of its parts is too short")
    return lines


def _parse_number(form: re.Pattern[str], line: str) -> int:
    found = form.fullmatch(line)
    if found is None:
        raise NotAProof(f"expected a line {form.pattern.split()[0]} with a number")
    return int(found[1])


def _parse_hashes(lines: Sequence[str]) -> list[bytes]:
    hashes = [decode_base64(line) for line in lines]
    if any(len(digest) != HASH_BYTES for digest in hashes):
        raise NotAProof(f"a hash has not {HASH_BYTES} bytes")
    return hashes


def _format_hashes(hashes: Sequence[bytes]) -> str:
    return "".join(f"{encode_base64(digest)}\n" for digest in hashes)
