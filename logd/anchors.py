"""Anchors: what the daemon said of the chain's end, kept where the database's key does not reach.

    anchor batch=812 events=20417 head=5f85efdc...

Who has the key can cut off the trail's end, rebuild the chain, or put an older copy in its place,
and what is left is whole. What was said meanwhile, in the journal or at another machine, does not
fit it any more. A restore that the chain declares accounts for the batches that it took away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from logd.chain import Head
from logd.database import Connection
from logd.render import when
from shared.schema import Malformed
from shared.wire import unpack_props

_ANCHOR = re.compile(
    r"(?:\A|[\s:])anchor batch=(\d{1,18}) events=(\d{1,18}) head=([0-9a-f]{64})\s*\Z"
)
EXAMPLES_MAX = 3


def line(head: Head) -> str:
    """What the daemon says."""
    return f"anchor batch={head.batch} events={head.events} head={head.hash.hex()}"


@dataclass(frozen=True)
class Anchor:
    """A head as it was said, and when: nanoseconds since 1970, None without a known time."""

    head: Head
    said_ns: int | None = None

    def __str__(self) -> str:
        said = f", anchored {when(self.said_ns)}" if self.said_ns is not None else ""
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
