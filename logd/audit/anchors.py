"""Anchors: what the daemon said of the chain's end, kept where the database's key does not reach.

    anchor batch=812 events=20417 head=5f85efdc...

Who has the key can cut off the trail's end, rebuild the chain, or put an older copy in its place,
and what is left is whole. What was said meanwhile, in the journal or at another machine, does not
fit it any more. A restore that the chain declares accounts for the batches that it took away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from logd.render import format_time
from logd.storage.database import Connection
from logd.storage.hash_chain import GENESIS, Head
from logd_wire.schema import Malformed
from logd_wire.wire import unpack_props

_ANCHOR = re.compile(
    r"(?:\A|[\s:>])anchor batch=(\d{1,18}) events=(\d{1,18}) head=([0-9a-f]{64})\s*\Z"
)


def line(head: Head) -> str:
    """What the daemon says."""
    return f"anchor batch={head.batch} events={head.events} head={head.hash.hex()}"


@dataclass(frozen=True)
class Anchor:
    """A head as it was said, and when: nanoseconds since 1970, None without a known time."""

    head: Head
    said_ns: int | None = None

    def __str__(self) -> str:
        said = f", anchored {format_time(self.said_ns)}" if self.said_ns is not None else ""
        return f"batch {self.head.batch} ({self.head.events} events{said})"


def parse(text: str, said_ns: int | None = None) -> Anchor | None:
    """The anchor in a line, whatever a system's log put before it; None if there is none."""
    found = _ANCHOR.search(text)
    if found is None:
        return None
    batch, events, head = found.groups()
    return Anchor(Head(int(batch), int(events), bytes.fromhex(head)), said_ns)


class Pace:
    """When the daemon says where the chain ends: at most each `interval_s`, and only if it moved.

    With an interval of 0 never. Times are of the monotonic clock.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._said: Head | None = None
        self._due_s = 0.0

    def change(self, interval_s: float) -> None:
        """Another interval, from now on."""
        if interval_s != self._interval_s:
            self._interval_s, self._due_s = interval_s, 0.0

    def next(self, head: Head, now_s: float, *, now: bool = False) -> Head | None:
        """The head, if it is to be said: with `now` whatever the time."""
        if self._interval_s == 0 or head == self._said or not (now or now_s >= self._due_s):
            return None
        self._said, self._due_s = head, now_s + self._interval_s
        return head


# -- restores ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restore:
    """A restore that the chain declares, in its batch `batch`: it went back to the end of batch
    `to`, from one that had got up to batch `upto` (None: it could not be read).
    """

    batch: int
    to: int
    upto: int | None
    at_ns: int

    def accounts_for(self, batch: int) -> bool:
        """Whether a batch of that number was there before, and is not any more."""
        return self.to < batch and (self.upto is None or batch <= self.upto)


def restores(connection: Connection) -> list[Restore]:
    """The restores that the trail tells of, oldest first."""
    found = []
    for event_id, ts_ns, props in connection.execute(
        "SELECT e.id, e.ts_ns, e.props FROM event e WHERE e.type ="
        " (SELECT id FROM event_type WHERE name = 'trail_restored') ORDER BY e.id"
    ).fetchall():
        (batch,) = connection.execute(
            "SELECT max(id) FROM batch WHERE first_event <= ?", (event_id,)
        ).fetchone()
        try:
            said = unpack_props(props)
            upto = said["replaced_batch_max"]
            found.append(Restore(batch, int(said["backup_batch"]), upto and int(upto), ts_ns))
        except (Malformed, LookupError, TypeError, ValueError):
            continue  # it accounts for nothing; `verify` says that it was changed
    return found


# -- comparing -----------------------------------------------------------------------------------


@dataclass
class _Bad:
    """Anchors that do not fit in one way: how many, and the one of the lowest batch."""

    count: int = 0
    first: Anchor | None = None

    def add(self, anchor: Anchor) -> None:
        self.count += 1
        if self.first is None or anchor.head.batch < self.first.head.batch:
            self.first = anchor


@dataclass
class Comparison:
    """What anchors show of a trail: what does not fit it, and what people should know."""

    compared: int = 0
    first: Anchor | None = None
    last: Anchor | None = None  # of the highest batch that fits
    accounted: dict[Restore, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def told(self, head: Head) -> Iterator[str]:
        """Lines for people, of a trail that ends with `head`."""
        for restore, count in self.accounted.items():
            upto = "one that could not be read" if restore.upto is None else f"batch {restore.upto}"
            yield (
                f"restored {format_time(restore.at_ns)}, as batch {restore.batch} declares:"
                f" back to batch {restore.to}, from {upto};"
                f" {count:,} anchors are of batches that went"
            )
        if self.first is not None and self.first.head.batch > 1:
            yield (
                f"the anchors begin with {self.first}: what was changed before that was said, they "
                "do not show"
            )
        if self.last is not None:
            newer = head.batch - self.last.head.batch
            yield (
                f"anchors: {self.compared:,} compared, up to {self.last}"
                f"; {newer:,} batches are newer than the last"
            )


def compare(connection: Connection, anchors: Iterable[Anchor]) -> Comparison:
    """Looks up each anchor's batch; the anchors in the order in which they were said."""
    found, declared = Comparison(), restores(connection)
    beyond, other, gone = _Bad(), _Bad(), _Bad()
    fits_up_to = -1
    for anchor in anchors:
        found.compared += 1
        found.first = found.first or anchor
        number = anchor.head.batch
        digest, end = _at(connection, number)
        if digest == anchor.head.hash:
            if number > fits_up_to:
                fits_up_to, found.last = number, anchor
            continue
        # Who had anchored the restored chain by then cannot have been on the other one any more:
        # in the order of saying, since clocks jump.
        restore = next(
            (r for r in declared if r.accounts_for(number) and r.batch > fits_up_to), None
        )
        if restore is not None:
            found.accounted[restore] = found.accounted.get(restore, 0) + 1
        else:
            (other if digest is not None else beyond if number > end else gone).add(anchor)
    (end,) = connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()
    for bad, what in (
        (beyond, f"is not there, the trail ends with batch {end}: its end was cut off, or an older "
                 "copy was put in the database's place"),
        (other, "is there with another hash: the chain was rebuilt, or another database was put in "
                "this one's place"),
        (gone, "was removed"),
    ):  # fmt: skip
        if bad.first is not None:
            found.findings.append(_finding(bad.first, bad.count, what, found.last))
    if not found.compared:
        found.findings = ["no anchors were found: nothing outside the database speaks for it"]
    return found


def _at(connection: Connection, number: int) -> tuple[bytes | None, int]:
    """The hash of that batch, and the number of the last."""
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
        text += f"; all is as it was said up to batch {last.head.batch}"
    return text + (f" ({count:,} anchors do not fit)" if count > 1 else "")
