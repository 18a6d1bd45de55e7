"""Counts input that is received and ignored, by sender. Pure.

A duplicate, a redundant farewell or a record that is read from an outbox instead leaves no row
anywhere. The counts here show the sender of a flood of them in `logd status`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

# The most senders counted separately for each kind, which bounds the memory.
SENDERS_MAX = 100
KINDS = ("duplicates", "early", "farewells", "skipped", "closings")

# (uid, pid); a pid of None stands for several processes of the user.
Sender = tuple[int, int | None]


class Tally:
    """Counts by (uid, pid), for at most SENDERS_MAX such pairs."""

    def __init__(self) -> None:
        self.counts: dict[Sender, int] = {}
        self.total = 0

    def add(self, uid: int, pid: int | None, count: int = 1) -> None:
        """Adds to the count of a sender; `pid` is None if only the user is known."""
        self.total += count
        sender = (uid, pid)
        try:
            self.counts[sender] += count
        except KeyError:
            if len(self.counts) >= SENDERS_MAX:
                self._make_room()
            self.counts[sender] = count

    def _make_room(self) -> None:
        """Merges processes of the user with the most, so that no user displaces another."""
        counts = self.counts
        users = Counter(uid for uid, _ in counts)
        uid, processes = users.most_common(1)[0]
        if processes == 1:
            del counts[min(counts, key=counts.__getitem__)]
            return
        own = sorted((s for s in counts if s[0] == uid and s[1] is not None), key=counts.get)  # type: ignore[arg-type] # each is there
        merged = sum(counts.pop(sender) for sender in own[: len(own) // 2 + 1])
        counts[uid, None] = counts.get((uid, None), 0) + merged


class Ignored:
    """Counts of ignored input since the start, by kind and sender."""

    def __init__(self) -> None:
        self.duplicates = Tally()  # records at or below the watermark
        self.early = Tally()  # records past a gap, which the daemon reads from the outbox
        self.farewells = Tally()  # farewells of producers that have an outbox, or have ended
        self.skipped = Tally()  # datagrams not decoded, since their records are in an outbox
        # Wake-ups by the closing of files that are not outboxes, by owner of the file.
        self.closings = Tally()

    @property
    def total(self) -> int:
        """The number of records and datagrams ignored, of all kinds."""
        return self.duplicates.total + self.early.total + self.farewells.total + self.skipped.total

    def senders(self, rows_max: int) -> list[dict[str, Any]]:
        """Returns a row for each of the senders with the most ignored input."""
        rows: dict[Sender, dict[str, Any]] = {}
        totals: Counter[Sender] = Counter()
        for name in KINDS:
            for sender, count in getattr(self, name).counts.items():
                row = rows.setdefault(sender, _row(sender))
                row[name] = count
                totals[sender] += count
        return [rows[sender] for sender, _ in totals.most_common(rows_max)]


def _row(sender: Sender) -> dict[str, Any]:
    uid, pid = sender
    return {"uid": uid, "pid": pid, **dict.fromkeys(KINDS, 0)}
