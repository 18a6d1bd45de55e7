"""Compares a trail with anchors: mismatches, declared restores, and the batches that are proven.

A restore that the trail declares accounts for the batches that it took away. A new trail that was
begun knowingly accounts for the anchors of the former trail, whose id the administrator names in
logd.toml (former_trails): whoever has the database's key cannot write there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from logd.audit.anchors import Anchor
from logd.audit.head_signer import AnchorSignatures
from logd.errors import LogdError
from logd.render import format_time
from logd.storage.database import Connection
from logd.storage.hash_chain import GENESIS
from logd.storage.trail_id import read_trail_id
from logd.storage.tree import NotKept, Tree
from logd.storage.tree_head import has_tree
from logd_wire.schema import Malformed
from logd_wire.wire import unpack_props

# The most former trails that the notes name: whoever writes the log decides how many ids it has.
TRAILS_MAX = 8


@dataclass(frozen=True)
class Restore:
    """A restore that the trail declares in batch `batch`.

    The restored trail continues after batch `to`; the replaced database ended with batch `upto`
    (None: that database could not be read). `trail_id` is that of the replaced database, if it was
    another trail.
    """

    batch: int
    to: int
    upto: int | None
    at_ns: int
    trail_id: str | None = None

    def accounts_for(self, anchor: Anchor, trail_id: str | None) -> bool:
        """Whether the restore took away the anchor's batch, in the trail with the id `trail_id`."""
        batch = anchor.head.batch
        if self.upto is not None and batch > self.upto:
            return False
        if _is_of_another(anchor, trail_id):
            return self.upto is None or self.trail_id == anchor.trail_id
        return self.to < batch


def restores(connection: Connection) -> list[Restore]:
    """Returns the restores recorded in the trail, oldest first."""
    found = []
    for event_id, ts_ns, props in connection.execute(
        "SELECT e.id, e.ts_ns, e.props FROM event e WHERE e.type ="
        " (SELECT id FROM event_type WHERE name = 'trail_restored') ORDER BY e.id"
    ).fetchall():
        (batch,) = connection.execute(
            "SELECT max(id) FROM batch WHERE first_event <= ?", (event_id,)
        ).fetchone()
        try:
            unpacked = unpack_props(props)
            upto = unpacked["replaced_batch_max"]
            replaced = unpacked.get("replaced_trail")
            found.append(
                Restore(
                    batch,
                    int(unpacked["backup_batch"]),
                    upto and int(upto),
                    ts_ns,
                    replaced and str(replaced),
                )
            )
        except (Malformed, LookupError, TypeError, ValueError):
            # An unreadable record accounts for nothing; `verify` reports that it was changed.
            continue
    return found


@dataclass
class _Bad:
    """The number of anchors that do not match for one reason, and the one of the lowest batch."""

    count: int = 0
    first: Anchor | None = None

    def add(self, anchor: Anchor) -> None:
        self.count += 1
        if self.first is None or anchor.head.batch < self.first.head.batch:
            self.first = anchor


class _Mismatches:
    """The anchors that do not match, divided by the reason."""

    def __init__(self) -> None:
        self.beyond, self.other, self.gone = _Bad(), _Bad(), _Bad()

    def add(self, anchor: Anchor, digest: bytes | None, end: int) -> None:
        missing = self.beyond if anchor.head.batch > end else self.gone
        (missing if digest is None else self.other).add(anchor)

    def findings(self, end: int, last: Anchor | None) -> Iterator[str]:
        for bad, what in (
            (self.beyond, f"is missing, the trail ends with batch {end}: its end was cut"
                          " off, or an older copy was put in the database's place"),
            (self.other, "has another hash: the tree was rebuilt, or another database was put in "
                         "this one's place"),
            (self.gone, "was removed"),
        ):  # fmt: skip
            if bad.first is not None:
                yield _finding(bad.first, bad.count, what, last)


@dataclass
class Comparison:
    """The result of comparing a trail with anchors.

    `findings` are mismatches. `not_proven` says why nothing is proven although there are no
    findings; if that is because the source of the anchors could not be read to its end,
    `unreadable` has the error.
    """

    end: int = 0  # the number of the trail's last batch
    compared: int = 0
    pruned: int = 0  # the number of anchors whose batches are gone, so that they cannot be compared
    # The number of lines that do not match and that no daemon of this trail wrote.
    falsely_signed: int = 0
    first: Anchor | None = None
    last: Anchor | None = None  # the matching anchor of the highest batch
    accounted: dict[Restore, int] = field(default_factory=dict)
    # The number of anchors of each former trail, by the trail's id.
    former: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    not_proven: str | None = None
    unreadable: LogdError | None = None

    def describe(self) -> Iterator[str]:
        """Yields the result as lines for display."""
        for restore, count in self.accounted.items():
            upto = "one that could not be read" if restore.upto is None else f"batch {restore.upto}"
            yield (
                f"restored {format_time(restore.at_ns)}, as batch {restore.batch} declares:"
                f" back to batch {restore.to}, from {upto};"
                f" {count:,} anchors are of batches that it took away"
            )
        if self.pruned:
            yield (
                f"{self.pruned:,} anchors are of batches whose rows are gone since all of their"
                " events were removed: they cannot be compared"
            )
        if self.falsely_signed:
            yield (
                f"{self.falsely_signed:,} lines are left out: they do not match, and their"
                " signature by this instance's key is false, so that its daemon did not write them"
            )
        for trail_id, count in self.former.items():
            yield (
                f"{count:,} anchors are of the trail {trail_id}: former_trails in logd.toml names"
                " it, so a new trail was begun knowingly"
            )
        if self.first is not None and self.first.head.batch > 1:
            yield (
                f"the anchors begin with {self.first}: they do not show changes made before that"
            )
        if self.last is not None:
            newer = self.end - self.last.head.batch
            yield (
                f"anchors: {self.compared:,} compared, up to {self.last}"
                f"; {newer:,} batches are newer than the last"
            )


class _Comparer:
    """Compares anchors one by one, in the order in which they were logged."""

    def __init__(
        self,
        connection: Connection,
        former_trails: Collection[str],
        signatures: AnchorSignatures | None,
    ) -> None:
        self._connection = connection
        self._signatures = signatures
        self._former_trails = former_trails
        self._trail_id = read_trail_id(connection)
        self._hashes = _Hashes(connection)
        self._restores = restores(connection)
        self._matches_up_to = -1
        self._mismatches, self._without_id, self._foreign = _Mismatches(), _Mismatches(), _Bad()
        self.found = Comparison()

    def add(self, anchor: Anchor) -> None:
        found, number = self.found, anchor.head.batch
        foreign = _is_of_another(anchor, self._trail_id)
        if foreign and anchor.trail_id in self._former_trails:
            self._add_former(str(anchor.trail_id))
            return
        try:
            digest = self._hashes.of(anchor)
        except NotKept:
            found.pruned += 1
            return
        if not foreign and digest == anchor.head.hash:
            self._count(anchor)
            if number > self._matches_up_to:
                self._matches_up_to, found.last = number, anchor
            return
        # Once an anchor matches the restored trail, no anchor logged after it can
        # be of the replaced one. The order of logging counts, since clocks jump.
        restore = next(
            (
                r
                for r in self._restores
                if r.accounts_for(anchor, self._trail_id) and r.batch > self._matches_up_to
            ),
            None,
        )
        if restore is None and self._signatures is not None and self._signatures.is_false(anchor):
            # The signature is checked only here, since that takes longer than everything else.
            # A matching anchor is true, whoever wrote it.
            found.falsely_signed += 1
            return
        self._count(anchor, foreign=foreign)
        if restore is not None:
            found.accounted[restore] = found.accounted.get(restore, 0) + 1
        elif foreign:
            self._foreign.add(anchor)
        else:
            bad = self._without_id if anchor.trail_id is None else self._mismatches
            bad.add(anchor, digest, self._hashes.last)

    def _count(self, anchor: Anchor, *, foreign: bool = False) -> None:
        self.found.compared += 1
        if not foreign:
            self.found.first = self.found.first or anchor

    def _add_former(self, trail_id: str) -> None:
        former = self.found.former
        if trail_id in former or len(former) < TRAILS_MAX:
            former[trail_id] = former.get(trail_id, 0) + 1
        if self._matches_up_to <= 0:
            # Anchors without an id that were logged before are of that trail or an earlier one.
            self._without_id = _Mismatches()
            self.found.first = None

    def finish(self, since_ns: int | None) -> Comparison:
        """Returns the result; only anchors of `since_ns` or later were added, if it is given."""
        found = self.found
        end = found.end = self._hashes.last
        for mismatches in (self._without_id, self._mismatches):
            found.findings += mismatches.findings(end, found.last)
        foreign = self._foreign
        if foreign.first is not None:
            what = (
                f"is of another trail, {foreign.first.trail_id}, than the database's,"
                f" {self._trail_id}: another database was put in this one's place. (If you began a"
                " new trail on purpose, name the former one in logd.toml: former_trails ="
                f' ["{foreign.first.trail_id}"])'
            )
            found.findings.append(_finding(foreign.first, foreign.count, what, found.last))
        # An anchor of the trail while it was empty proves nothing about its events.
        proven = found.last is not None and (found.last.head.batch > 0 or end == 0)
        if not found.findings and found.unreadable is not None:
            found.not_proven = str(found.unreadable)
        elif not found.findings and not proven:
            time = "" if since_ns is None else f" of {format_time(since_ns)} or later"
            there = found.compared + found.pruned + sum(found.former.values())
            found.not_proven = (
                f"no anchors were found{time}: nothing outside the database proves it"
                if not there
                else f"none of the {there:,} anchors{time} is of a batch that the trail has now:"
                " nothing outside the database proves it"
            )
        return found


def compare(
    connection: Connection,
    anchors: Iterable[Anchor],
    former_trails: Collection[str] = (),
    since_ns: int | None = None,
    signatures: AnchorSignatures | None = None,
) -> Comparison:
    """Compares each anchor with its batch; the anchors come in the order in which they were logged.

    With `since_ns`, anchors of an earlier time are left out; an anchor of unknown time is compared.
    With `signatures`, an anchor that does not match is left out if its signature is false.
    """
    comparer = _Comparer(connection, former_trails, signatures)
    try:
        for anchor in anchors:
            if since_ns is None or anchor.anchored_ns is None or anchor.anchored_ns >= since_ns:
                comparer.add(anchor)
    except LogdError as error:  # the result of the anchors read so far still counts
        comparer.found.unreadable = error
    return comparer.finish(since_ns)


def _is_of_another(anchor: Anchor, trail_id: str | None) -> bool:
    return None not in (anchor.trail_id, trail_id) and anchor.trail_id != trail_id


class _Hashes:
    """The hashes with which the anchors of a trail are compared."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tree = Tree(connection) if has_tree(connection) else None
        (self.last,) = connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()

    def of(self, anchor: Anchor) -> bytes | None:
        """Returns the hash that the anchor should have; None if there is no such batch.

        Raises NotKept if the hash cannot be known any more.
        """
        batch = anchor.head.batch
        if batch > self.last:
            return None
        if not anchor.chained:
            return None if self._tree is None else self._tree.root_at(batch)
        if batch == 0:
            return GENESIS
        row = self._connection.execute("SELECT hash FROM batch WHERE id = ?", (batch,)).fetchone()
        if row is None and self._tree is not None:
            # The batch's row is gone. Whether a removal of it
            # was recorded is checked with the trail itself.
            raise NotKept(f"batch {batch} is not there any more")
        return row and bytes(row[0])


def _finding(first: Anchor, count: int, what: str, last: Anchor | None) -> str:
    text = f"{first}: {what}"
    if last is not None and last.head.batch < first.head.batch:
        text += f"; the trail matches the anchors up to batch {last.head.batch}"
    return text + (f" ({count:,} anchors do not match)" if count > 1 else "")
