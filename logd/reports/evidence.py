"""Reports for an evidence sheet: what it has and what may be missing, and its events with proofs.

`evidence` is one row, of one moment: the number of events and the root over them, the caveats, and
the head of the trail, all in a statement that the trail's key signs. `evidence_events` are the
events, each with its proof. The parts of `logd.audit` are imported only when a sheet is asked for:
they take memory.
"""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logd import instance_lock
from logd.clock.event_age import is_plausible
from logd.config.settings import Config
from logd.errors import KeyFileError, LogdError
from logd.reports.evidence_caveats import CaveatSearch
from logd.reports.evidence_events import StoredEvent, Wanted
from logd.reports.parameters import BadParameter, Parameters
from logd.storage import merkle
from logd.storage.database import Connection
from logd.storage.last_verification import read_verification
from logd.storage.tree_head import Head, read_head
from logd.storage.wal import flush_wal
from logd_wire.query import Answer, Row
from logd_wire.schema import INT64_MAX
from logd_wire.wire import unpack_props

if TYPE_CHECKING:
    from logd.audit.checkpoint import Checkpoint
    from logd.audit.head_signer import HeadSigner
    from logd.audit.prover import Prover

# The most events of a sheet, the most bytes of their properties, and the most events looked through
# for those about an item: for more, ask for a shorter time.
SHEET_EVENTS_MAX = 5000
SHEET_BYTES_MAX = 16 * 1024 * 1024
LOOKED_MAX = 20_000
PAGE_EVENTS_MAX = 500
# The most bytes of properties and of proofs in a page, which has at least one event.
PAGE_PROPS_MAX = 512 * 1024
PAGE_PROOFS_MAX = 3 * 1024 * 1024
# A batch from before the tree has a proof with the hashes of all of its events.
PROOF_CHARS_MAX = 512 * 1024


def evidence(connection: Connection, parameters: Parameters) -> Answer:
    """Reports what an evidence sheet has, what may be missing from its time, and the trail's head.

    One row.
    """
    config = parameters.context.config
    wanted = Wanted.take(parameters)
    parameters.done()
    now_ns = time.time_ns()
    head, _stored_ns = read_head(connection)
    up_to = head.events if wanted.up_to is None else min(wanted.up_to, head.events)
    wanted = Wanted(wanted.user, wanted.items, wanted.since_ns, wanted.until_ns, up_to)
    (trail,) = connection.execute("SELECT name FROM trail").fetchone()
    row: Row = {"trail": trail, "made_ns": now_ns, "up_to": up_to}
    found = _Found()
    for event in wanted.find(connection):
        if not found.take(event, wanted):
            break
    row |= found.columns()
    stats = None if config is None else instance_lock.read_runtime_stats(config.lock_file)
    search = CaveatSearch(
        connection,
        wanted.since_ns or 0,
        INT64_MAX if wanted.until_ns is None else wanted.until_ns,
        stats,
    )
    caveats = list(search.caveats())
    row |= _signed(config, trail, head, wanted, found, caveats, now_ns)
    row |= _verified(connection)
    return Answer(
        [
            row
            | {
                "anchored_ns": stats and stats.anchored_ns,
                "anchored_batches": stats.anchored_batch if stats else 0,
                "anchored_root": stats.anchored_root if stats else "",
                "anchored_in_file": stats is not None and stats.anchored_in_file,
            }
        ]
    )


def evidence_events(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the events of an evidence sheet in the order of storing, with their proofs."""
    up_to = parameters.whole("up_to", high=INT64_MAX)
    wanted = replace(Wanted.take(parameters), up_to=up_to)
    size = parameters.maybe_whole("size")
    after_id = parameters.whole("after", 0, high=INT64_MAX)
    limit = parameters.whole("limit", 100, low=1, high=PAGE_EVENTS_MAX)
    parameters.done()
    proofs = None if size is None else _Proofs(connection, size)
    rows: list[Row] = []
    looked, props_bytes, proof_chars = after_id, 0, 0
    for at, event in enumerate(wanted.find(connection, after_id)):
        props_bytes += len(event.props)
        if (
            len(rows) == limit
            or at == LOOKED_MAX
            or (rows and (props_bytes > PAGE_PROPS_MAX or proof_chars > PAGE_PROOFS_MAX))
        ):
            return Answer(rows, looked)
        looked = event.id
        if wanted.is_about(event):
            rows.append(_row(event, proofs))
            proof_chars += len(rows[-1]["proof"] or "")
        else:
            props_bytes -= len(event.props)
    return Answer(rows)


class _Found:
    """The events of a sheet: their number, times, and the root over their leaves."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self._times: list[int] = []
        self._in_doubt = self._bytes = 0
        self.more = False

    def take(self, event: StoredEvent, wanted: Wanted) -> bool:
        """Takes an event if it is wanted; returns False once there are too many for a sheet."""
        self._times.append(event.ts_ns)
        if wanted.is_about(event):
            self.leaves.append(merkle.leaf_hash(_data(event)))
            self._bytes += len(event.props)
            self._in_doubt += not is_plausible(event.ts_ns, event.stored_ns)
        self.more = (
            len(self.leaves) > SHEET_EVENTS_MAX
            or self._bytes > SHEET_BYTES_MAX
            or len(self._times) > LOOKED_MAX
        )
        return not self.more

    def columns(self) -> Row:
        """Returns the columns that describe the events; `split_ns` divides a range with too many.

        Before it are nine tenths of the events that were looked at, if they are in order of time.
        """
        split_ns = None
        if self.more:
            times = sorted(self._times)
            later = [ts_ns for ts_ns in times[len(times) * 9 // 10 :] if ts_ns > times[0]]
            split_ns = later[0] if later else None
        return {
            "events": len(self.leaves),
            "more": self.more,
            "split_ns": split_ns,
            "in_doubt": self._in_doubt,
        }


class _Proofs:
    """Makes the proofs of a sheet's events by the head of the first `size` batches."""

    def __init__(self, connection: Connection, size: int) -> None:
        from logd.audit.checkpoint import Checkpoint, origin
        from logd.audit.prover import NoSuchEvent, Prover
        from logd.storage.trail_id import read_trail_id

        self._prover: Prover = Prover(connection)
        try:
            root = self._prover.root_at(size)
        except NoSuchEvent as error:
            raise BadParameter(f"size: {error}") from error
        self._head: Checkpoint = Checkpoint(origin(read_trail_id(connection) or ""), size, root)

    def prove(self, event: StoredEvent) -> tuple[str | None, str | None]:
        """Returns the proof of an event without its head, or the reason why there is none."""
        from logd.audit import proof, prover
        from logd.audit.signed_note import Note

        try:
            made = self._prover.prove_event(event.id, self._head.size, Note("", ()))
            content, _entry = proof.check_inclusion(made, self._head)
        except prover.CannotBeProven as error:
            return None, str(error)
        except (prover.TrailChanged, prover.NoSuchEvent) as error:
            newer = event.batch > self._head.size  # than the head that was asked for
            return None, str(error) if newer else f"CHANGED: {error}"
        except (proof.Refuted, TypeError, ValueError, OverflowError) as error:
            return None, f"CHANGED: {error}. Run `logd verify`."
        assert content[0] == event.id
        text = proof.format_inclusion(made)
        if len(text) > PROOF_CHARS_MAX:
            return None, (
                f"event {event.id} is in a batch from before the tree, and its proof has"
                f" {len(text):,} characters: `logd prove {event.id}` makes it."
            )
        return text, None


def _row(event: StoredEvent, proofs: _Proofs | None) -> Row:
    data = _data(event)
    proof, unproven = (None, None) if proofs is None else proofs.prove(event)
    return {
        "id": event.id,
        "batch": event.batch,
        "ts_ns": event.ts_ns,
        "stored_ns": event.stored_ns,
        "type": event.type,
        "user": event.user,
        "producer": event.producer,
        "sequence": event.sequence,
        "props": unpack_props(event.props),
        "time_in_doubt": not is_plausible(event.ts_ns, event.stored_ns),
        "leaf": _base64(merkle.leaf_hash(data)),
        "proof": proof,
        "unproven": unproven,
        "data": _base64(data) if unproven is not None else None,
    }


def _data(event: StoredEvent) -> bytes:
    try:
        return event.data
    except (TypeError, ValueError, OverflowError) as error:
        raise _Unreadable(
            f"event {event.id} was changed and cannot be read: {error}. Run `logd verify`."
        ) from error


class _Unreadable(LogdError):
    """A row has values that logd does not write."""


def _signed(
    config: Config | None,
    trail: str,
    head: Head,
    wanted: Wanted,
    found: _Found,
    caveats: list[dict[str, Any]],
    made_ns: int,
) -> Row:
    """Returns the columns of the head and of the statement, both signed if there is a key."""
    from logd.audit import evidence_statement
    from logd.audit.checkpoint import Checkpoint, origin
    from logd.audit.head_signer import checkpoint_text

    lines = [evidence_statement.caveat_line(caveat) for caveat in caveats]
    text = evidence_statement.format(
        evidence_statement.Statement(
            Checkpoint(origin(trail), head.batch, head.hash),
            wanted.user,
            wanted.items,
            wanted.since_ns,
            wanted.until_ns,
            wanted.up_to or 0,
            made_ns,
            len(found.leaves),
            merkle.root(found.leaves),
            lines,
        )
    )
    signer, unsigned = _signer(config, trail)
    if signer is not None and config is not None:
        flush_wal(config.database)  # a signed head must outlive a power cut with its batches
    head_text = checkpoint_text(trail, head)
    return {
        "batches": head.batch,
        "root": head.hash.hex(),
        "head": head_text if signer is None else signer.sign(head_text),
        "public_key": signer and signer.vkey,
        "unsigned": unsigned,
        "caveats": lines,
        # Of an incomplete sheet there is no statement.
        "statement": None if found.more else text if signer is None else signer.sign(text),
    }


def _signer(config: Config | None, trail: str) -> tuple[HeadSigner | None, str | None]:
    from logd.audit.head_signer import HeadSigner, read_private_key

    if config is None:
        return None, "there is no configuration"
    try:
        private_key = read_private_key(config)
    except KeyFileError as error:
        return None, str(error)
    if private_key is None:
        return None, "there is no key that signs heads: `logd genkey` makes one"
    return HeadSigner(trail, private_key), None


def _verified(connection: Connection) -> Row:
    (_, _, database), *_ = connection.execute("PRAGMA database_list").fetchall()
    found = read_verification(Path(database))
    return {
        "verified": found and found.answer,
        "verified_ns": found and found.at_ns,
        "verified_batches": found and found.batches,
        "findings": found and found.findings,
    }


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
