"""`logd prove`: proves events of an instance, proves that its trail grew, and checks such proofs.

A head that is signed now must outlive a power cut with all of its batches. So the write-ahead log
is flushed before signing, since steps of maintenance are committed without a flush.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from logd.audit import proof, signed_note
from logd.audit.checkpoint import Checkpoint, origin
from logd.audit.head_signer import HeadSigner, read_private_key
from logd.audit.kept_heads import BadInput, KeptHead, compare_heads, read_head, read_keys, read_text
from logd.audit.proof import (
    Keys,
    NotAProof,
    ProvenEvent,
    ProvenHead,
    Refuted,
)
from logd.audit.prover import CannotBeProven, Prover, TrailChanged
from logd.audit.signed_note import Note, Verifier
from logd.audit.verifier import in_one_moment
from logd.config.settings import Config
from logd.errors import EXIT_NOT_WHOLE, KeyFileError, LogdError
from logd.render import printable
from logd.storage import opening, wal
from logd.storage.trail_id import read_trail_id
from logd.storage.tree_head import read_head as read_trail_head

T = TypeVar("T")


class NotProven(LogdError):
    """The proof does not prove its claim."""

    exit_code = EXIT_NOT_WHOLE


@dataclass(frozen=True)
class By:
    """The head to prove by: one from a file with its keys, or one that is signed now.

    A head in a file must be signed by the public key (None: that of the instance) and by all of the
    witnesses.
    """

    head_file: Path | None = None
    public_key: str | None = None
    witnesses: Sequence[str] = ()


@dataclass(frozen=True)
class _Head:
    note: Note
    size: int
    keys: Keys


def prove_event(config: Config, event_id: int, by: By) -> str:
    """Returns the proof of an event as text. Raises a LogdError."""
    with _prover(config) as (prover, trail_id):
        head = _head(config, prover, trail_id, by)
        text = proof.format_event(prover.prove_event(event_id, head.size, head.note))
    return _checked(text, lambda text: proof.check_event(text, head.keys))


def prove_growth(config: Config, old: int | Path, by: By) -> str:
    """Returns the proof that the trail grew from a head, as text.

    The head is given by its number of batches or by its file. Raises a LogdError.
    """
    with _prover(config) as (prover, trail_id):
        head = _head(config, prover, trail_id, by)
        if isinstance(old, int):
            former = Checkpoint(origin(trail_id), old, prover.root_at(old))
        else:
            keys = read_keys(config, by.public_key, ())
            former = _kept(prover, trail_id, old, keys).checkpoint
        text = proof.format_growth(prover.prove_growth(former.size, head.size, head.note))
    return _checked(text, lambda text: proof.check_growth(text, former, head.keys))


def check_event_file(path: Path, keys: Keys) -> ProvenEvent:
    """Checks the proof of an event that is in a file.

    Raises BadInput if the file is no proof, and NotProven.
    """
    return _check_file(path, lambda text: proof.check_event(text, keys))


def check_growth_file(path: Path, old: Path, keys: Keys) -> tuple[ProvenHead, KeptHead]:
    """Checks the proof that a trail grew from the head in the file `old`.

    Raises BadInput if a file is no proof or no head, and NotProven.
    """
    kept = read_head(old, Keys(keys.trail))
    return _check_file(path, lambda text: proof.check_growth(text, kept.checkpoint, keys)), kept


@contextlib.contextmanager
def _prover(config: Config) -> Iterator[tuple[Prover, str]]:
    """Yields the prover of an instance's trail, and the trail's id.

    Raises TrailChanged for rows with values that logd does not write.
    """
    with closing(opening.open_for_events(config)) as connection, in_one_moment(connection):
        trail_id = read_trail_id(connection)
        assert trail_id is not None  # a database of the present schema has a trail id
        try:
            yield Prover(connection), trail_id
        except (TypeError, ValueError, OverflowError) as error:
            raise TrailChanged(
                f"a row was changed and cannot be read: {error}. Run `logd verify`."
            ) from error


def _head(config: Config, prover: Prover, trail_id: str, by: By) -> _Head:
    if by.head_file is not None:
        keys = read_keys(config, by.public_key, by.witnesses)
        kept = _kept(prover, trail_id, by.head_file, keys)
        return _Head(kept.note, kept.checkpoint.size, keys)
    private_key = read_private_key(config)
    if private_key is None:
        raise KeyFileError(
            f"{config.signing_key_file}: there is no key that signs heads. Make one with `logd"
            " genkey`, or name the file of a head that was signed: --checkpoint."
        )
    signer = HeadSigner(trail_id, private_key)
    head, _stored_ns = read_trail_head(prover.connection)
    wal.flush_wal(config.database)
    key = Verifier.from_vkey(signer.vkey)
    return _Head(signed_note.parse(signer.note(head)), head.batch, Keys(lambda _origin: key))


def _kept(prover: Prover, trail_id: str, path: Path, keys: Keys) -> KeptHead:
    """Reads a head of this trail from a file, and compares it with the trail.

    Raises BadInput, CannotBeProven and TrailChanged.
    """
    kept = read_head(path, keys)
    if kept.checkpoint.origin != origin(trail_id):
        raise BadInput(
            f"{kept.file}: is of the trail {printable(kept.checkpoint.origin)}, and this one is"
            f" {origin(trail_id)}."
        )
    found = compare_heads(prover.connection, [kept], ())
    if found.mismatches:
        raise TrailChanged(f"{found.mismatches[0]}. Run `logd verify`.")
    if found.not_proven and kept.checkpoint.size:
        raise CannotBeProven("; ".join([*found.notes, found.not_proven]))
    return kept


def _checked(text: str, check: Callable[[str], object]) -> str:
    """Returns the proof if it holds. Raises TrailChanged if not: a changed trail proves nothing."""
    try:
        check(text)
    except (NotAProof, Refuted) as error:
        raise TrailChanged(f"the trail was changed: {error}. Run `logd verify`.") from error
    return text


def _check_file(path: Path, check: Callable[[str], T]) -> T:
    text = read_text(path, proof.PROOF_CHARS_MAX)
    try:
        return check(text)
    except NotAProof as error:
        raise BadInput(f"{printable(path)}: is not a proof: {error}.") from error
    except Refuted as error:
        raise NotProven(f"{printable(path)}: not proven: {error}.") from error
