"""Anchors: the chain's head as the daemon logged it, kept outside the reach of the database's key.

    anchor batch=812 events=20417 head=5f85efdc...

Whoever has the key can cut off the trail's end, rebuild the chain, or put an older copy in its
place, and the result verifies. Anchors logged meanwhile, in the journal or on another machine, no
longer match it. A restore that the chain declares accounts for the batches that it took away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from logd.render import format_time
from logd.storage.database import Connection
from logd.storage.hash_chain import GENESIS, Head
from logd.storage.time_blocks import IN_ANY_BLOCK
from logd_wire.schema import Malformed
from logd_wire.wire import unpack_props

_ANCHOR = re.compile(
    r"(?:\A|[\s:>])anchor batch=(\d{1,18}) events=(\d{1,18}) head=([0-9a-f]{64})\s*\Z"
)


def format_anchor(head: Head) -> str:
    """Returns the anchor as the daemon logs it."""
    return f"anchor batch={head.batch} events={head.events} head={head.hash.hex()}"


@dataclass(frozen=True)
class Anchor:
    """A chain head as it was logged, and when: nanoseconds since 1970, None if unknown."""

    head: Head
    anchored_ns: int | None = None

    def __str__(self) -> str:
        time = f", anchored {format_time(self.anchored_ns)}" if self.anchored_ns is not None else ""
        return f"batch {self.head.batch} ({self.head.events} events{time})"


def parse(text: str, anchored_ns: int | None = None) -> Anchor | None:
    """Returns the anchor at the end of a log line; None if there is none."""
    found = _ANCHOR.search(text)
    if found is None:
        return None
    batch, events, head = found.groups()
    return Anchor(Head(int(batch), int(events), bytes.fromhex(head)), anchored_ns)


class AnchorSchedule:
    """When the daemon logs an anchor: at most every `interval_s`, and only if the head has moved.

    With an interval of 0 never. Times are of the monotonic clock.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._logged: Head | None = None
        self._due_s = 0.0

    def set_interval(self, interval_s: float) -> None:
        """Changes the interval from now on."""
        if interval_s != self._interval_s:
            self._interval_s, self._due_s = interval_s, 0.0

    def due_head(self, head: Head, now_s: float, *, now: bool = False) -> Head | None:
        """Returns the head if an anchor is due, with `now` whatever the time; else None."""
        if self._interval_s == 0 or head == self._logged or not (now or now_s >= self._due_s):
            return None
        self._logged, self._due_s = head, now_s + self._interval_s
        return head


# -- restores ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restore:
    """A restore that the chain declares in batch `batch`: back to the end of batch `to`, from a
    database that ended with batch `upto` (None: it could not be read).
    """

    batch: int
    to: int
    upto: int | None
    at_ns: int

    def accounts_for(self, batch: int) -> bool:
        """Whether the restore took away a batch of that number."""
        return self.to < batch and (self.upto is None or batch <= self.upto)


def restores(connection: Connection) -> list[Restore]:
    """Returns the restores recorded in the trail, oldest first."""
    found = []
    for event_id, ts_ns, props in connection.execute(
        f"SELECT e.id, e.ts_ns, e.props FROM event e WHERE {IN_ANY_BLOCK} AND e.type ="  # noqa: S608 - no data in it
        " (SELECT id FROM event_type WHERE name = 'trail_restored') ORDER BY e.id"
    ).fetchall():
        (batch,) = connection.execute(
            "SELECT max(id) FROM batch WHERE first_event <= ?", (event_id,)
        ).fetchone()
        try:
            unpacked = unpack_props(props)
            upto = unpacked["replaced_batch_max"]
            found.append(Restore(batch, int(unpacked["backup_batch"]), upto and int(upto), ts_ns))
        except (Malformed, LookupError, TypeError, ValueError):
            continue  # an invalid one explains no missing batch; `verify` reports the change
    return found


# -- comparing -----------------------------------------------------------------------------------


@dataclass
class _Bad:
    """Anchors that do not match for one reason: how many, and the one of the lowest batch."""

    count: int = 0
    first: Anchor | None = None

    def add(self, anchor: Anchor) -> None:
        self.count += 1
        if self.first is None or anchor.head.batch < self.first.head.batch:
            self.first = anchor


@dataclass
class Comparison:
    """The result of comparing a trail with anchors: mismatches, and what to report otherwise."""

    compared: int = 0
    first: Anchor | None = None
    last: Anchor | None = None  # of the highest batch that matches
    accounted: dict[Restore, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def describe(self, head: Head) -> Iterator[str]:
        """Yields lines for display, of a trail that ends with `head`."""
        for restore, count in self.accounted.items():
            upto = "one that could not be read" if restore.upto is None else f"batch {restore.upto}"
            yield (
                f"restored {format_time(restore.at_ns)}, as batch {restore.batch} declares:"
                f" back to batch {restore.to}, from {upto};"
                f" {count:,} anchors are of batches that it took away"
            )
        if self.first is not None and self.first.head.batch > 1:
            yield (
                f"the anchors begin with {self.first}: they do not show changes made before that"
            )
        if self.last is not None:
            newer = head.batch - self.last.head.batch
            yield (
                f"anchors: {self.compared:,} compared, up to {self.last}"
                f"; {newer:,} batches are newer than the last"
            )


def compare(connection: Connection, anchors: Iterable[Anchor]) -> Comparison:
    """Compares each anchor with its batch; the anchors in the order in which they were logged."""
    found, declared = Comparison(), restores(connection)
    beyond, other, gone = _Bad(), _Bad(), _Bad()
    matches_up_to = -1
    for anchor in anchors:
        found.compared += 1
        found.first = found.first or anchor
        number = anchor.head.batch
        digest, end = _at(connection, number)
        if digest == anchor.head.hash:
            if number > matches_up_to:
                matches_up_to, found.last = number, anchor
            continue
        # Once an anchor matches the restored chain, those logged after it cannot be of the replaced
        # one. By the order of logging, since clocks jump.
        restore = next(
            (r for r in declared if r.accounts_for(number) and r.batch > matches_up_to), None
        )
        if restore is not None:
            found.accounted[restore] = found.accounted.get(restore, 0) + 1
        else:
            (other if digest is not None else beyond if number > end else gone).add(anchor)
    (end,) = connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()
    for bad, what in (
        (beyond, f"is missing, the trail ends with batch {end}: its end was cut off, or an older "
                 "copy was put in the database's place"),
        (other, "has another hash: the chain was rebuilt, or another database was put in "
                "this one's place"),
        (gone, "was removed"),
    ):  # fmt: skip
        if bad.first is not None:
            found.findings.append(_finding(bad.first, bad.count, what, found.last))
    if not found.compared:
        found.findings = ["no anchors were found: nothing outside the database proves it"]
    return found


def _at(connection: Connection, number: int) -> tuple[bytes | None, int]:
    """Returns the hash of that batch, None if missing, and the number of the last batch."""
    if number == 0:
        return GENESIS, 0
    digest, end = connection.execute(
        "SELECT (SELECT hash FROM batch WHERE id = ?), (SELECT coalesce(max(id), 0) FROM batch)",
        (number,),
    ).fetchone()
    return digest, end


def _finding(first: Anchor, count: int, what: str, last: Anchor | None) -> str:
    text = f"{first}: {what}"
    if last is not None and last.head.batch < first.head.batch:
        text += f"; the trail matches the anchors up to batch {last.head.batch}"
    return text + (f" ({count:,} anchors do not match)" if count > 1 else "")
