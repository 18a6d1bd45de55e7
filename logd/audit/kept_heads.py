"""Compares a trail with its heads that were kept elsewhere, as checkpoints in files.

A kept head proves the trail up to the head's batch: by the root, and by a proof of consistency,
which shows that the present trail continues the kept one. The rules for anchors apply
(`logd.audit.anchor_comparison`): a restore that the trail declares, and a former trail that
logd.toml names, are accounted for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from logd.audit import signed_note
from logd.audit.anchor_comparison import Restore, restores
from logd.audit.anchors import Anchor
from logd.audit.checkpoint import Checkpoint, origin
from logd.audit.head_signer import HeadSigner, read_private_key
from logd.audit.proof import Keys, ProvenHead, Refuted, check_head
from logd.audit.signed_note import Note, Verifier
from logd.config.settings import Config
from logd.errors import EXIT_DAMAGED, KeyFileError, LogdError
from logd.render import format_time, printable
from logd.storage import merkle
from logd.storage.database import Connection
from logd.storage.trail_id import read_trail_id
from logd.storage.tree import NotKept, Tree
from logd.storage.tree_head import Head, has_tree


class BadInput(LogdError):
    """A given file is not a signed head or a proof, or is not signed by the right key."""

    exit_code = EXIT_DAMAGED


@dataclass(frozen=True)
class KeptHead:
    """A head whose signatures were checked, with the name of its file."""

    file: str
    note: Note
    proven: ProvenHead

    @property
    def checkpoint(self) -> Checkpoint:
        return self.proven.checkpoint

    def __str__(self) -> str:
        return f"{self.file} ({self.checkpoint.size:,} batches)"


@dataclass
class HeadComparison:
    """The result of comparing a trail with kept heads; the fields are those of `Anchored`."""

    mismatches: list[str]
    notes: list[str]
    not_proven: str | None = None


def read_text(path: Path, chars_max: int) -> str:
    """Returns the text of a file, of a longer one a character more than `chars_max`.

    Raises BadInput.
    """
    name = printable(path)
    try:
        # The open does not block, so that a FIFO without a writer keeps no command waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BadInput(f"{name}: is not a regular file.")
        with open(fd, encoding="utf-8", newline="") as file:
            return file.read(chars_max + 1)
    except PermissionError:
        raise
    except OSError as error:
        raise BadInput(f"{name}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInput(f"{name}: is not text in UTF-8.") from error


def read_keys(config: Config | None, public_key: str | None, witnesses: Sequence[str]) -> Keys:
    """Returns the keys with which heads are checked.

    Without a public key, the trail's is derived from the key that signs the heads of the instance.
    Raises BadInput and KeyFileError.
    """
    known = tuple(map(_parse_vkey, witnesses))
    if public_key is not None:
        key = _parse_vkey(public_key)
        return Keys(lambda _origin: key, known)
    assert config is not None
    private_key = read_private_key(config)
    if private_key is None:
        raise KeyFileError(
            f"{config.signing_key_file}: there is no key that signs heads. Name the public key of"
            " the one that has signed this head: --public-key."
        )
    return Keys(lambda name: Verifier.from_vkey(_signer(name, private_key).vkey), known)


def _signer(name: str, private_key: bytes) -> HeadSigner:
    return HeadSigner(name.rpartition("/")[2], private_key)


def _parse_vkey(vkey: str) -> Verifier:
    try:
        return Verifier.from_vkey(vkey.strip())
    except ValueError as error:
        raise BadInput(f"{printable(vkey[:80])}: not a public key: {error}.") from error


def read_head(path: Path, keys: Keys) -> KeptHead:
    """Reads a signed head from a file, and checks its signatures. Raises BadInput."""
    text, name = read_text(path, signed_note.NOTE_CHARS_MAX), printable(path)
    try:
        note = signed_note.parse(text)
        return KeptHead(name, note, check_head(note, keys))
    except Refuted as error:
        raise BadInput(
            f"{name}: {error}. It says nothing about the trail. If its key has been replaced, or it"
            " is of another trail, name its key: --public-key."
        ) from error
    except ValueError as error:  # NotAProof is a ValueError too
        raise BadInput(f"{name}: is not a signed head: {error}.") from error


def compare_heads(
    connection: Connection, heads: Sequence[KeptHead], former_trails: Collection[str]
) -> HeadComparison:
    """Compares each head with the trail that the connection's transaction sees."""
    return _Comparer(connection, former_trails).compare(heads)


class _Comparer:
    def __init__(self, connection: Connection, former_trails: Collection[str]) -> None:
        self._trail_id = read_trail_id(connection)
        self._former = {origin(trail_id): trail_id for trail_id in former_trails}
        self._restores = restores(connection)
        self._tree = Tree(connection) if has_tree(connection) else None
        self._matched = 0

    def compare(self, heads: Sequence[KeptHead]) -> HeadComparison:
        found, unknown = HeadComparison([], []), []
        for head in heads:
            try:
                self._add(head, found)
            except NotKept:
                unknown.append(
                    f"{head} cannot be compared any more, since batches around its end were"
                    " removed with all of their events (a head of a multiple of 256 always can)"
                )
        if unknown:
            found.not_proven = "; ".join(unknown)
        elif not self._matched and not found.mismatches:
            found.not_proven = (
                "the trail waits for its migration, which `logd run` does at its start"
                if self._tree is None
                else "no kept head is of a batch that the trail has now"
            )
        return found

    def _add(self, head: KeptHead, found: HeadComparison) -> None:
        if self._tree is None or self._trail_id is None:
            return
        kept, there = head.checkpoint, self._tree.size()
        foreign = kept.origin != origin(self._trail_id)
        if foreign and kept.origin in self._former:
            found.notes.append(
                f"{head} is of the trail {self._former[kept.origin]}: former_trails in logd.toml"
                " names it, so a new trail was begun knowingly"
            )
            return
        if not foreign and kept.size <= there and self._tree.root_at(kept.size) == kept.root:
            self._add_matching(head, self._tree, found)
            return
        restore = self._accounting(kept)
        if restore is not None:
            found.notes.append(
                f"{head}: restored {format_time(restore.at_ns)}, as batch {restore.batch}"
                f" declares: back to batch {restore.to}, which took it away"
            )
        elif foreign:
            found.mismatches.append(
                f"{head} is of another trail, {printable(kept.origin)}, than the database's,"
                f" {origin(self._trail_id)}: another database was put in this one's place. (If you"
                " began a new trail on purpose, name the former one in logd.toml: former_trails)"
            )
        elif kept.size > there:
            found.mismatches.append(
                f"{head}: the trail ends with batch {there}: its end was cut off, or an older copy"
                " was put in the database's place"
            )
        else:
            found.mismatches.append(
                f"{head}: the trail has another root there: it was changed and its tree rebuilt, or"
                " another database was put in this one's place"
            )

    def _add_matching(self, head: KeptHead, tree: Tree, found: HeadComparison) -> None:
        """Checks that the present trail continues a head that matches, and notes the result."""
        kept, there = head.checkpoint, tree.size()
        hashes = merkle.consistency_proof(kept.size, there, tree.block)
        now = tree.root_at(there)
        if not merkle.is_consistent(kept.size, there, kept.root, now, hashes):
            found.mismatches.append(f"{head}: the trail's present head does not continue it")
            return
        # A head of the trail while it was empty proves nothing about its events.
        self._matched += kept.size > 0 or there == 0
        found.notes.append(
            f"head {head}: the trail has only grown since, as a proof of {len(hashes)} hashes"
            f" shows; {there - kept.size:,} batches are newer"
        )
        for witness in head.proven.witnesses:
            seen = "" if witness.time_s is None else f" {format_time(witness.time_s * 10**9)}"
            found.notes.append(f"head {head.file}: seen{seen} by {printable(witness.name)}")

    def _accounting(self, kept: Checkpoint) -> Restore | None:
        """Returns the declared restore that took away the head's batch; None if there is none."""
        trail_id = kept.origin.rpartition("/")[2]
        anchor = Anchor(Head(kept.size, 0, kept.root), None, trail_id)
        return next((r for r in self._restores if r.accounts_for(anchor, self._trail_id)), None)
