"""Finds what may be missing from a time range of the trail, whoever's events they were.

A lost number names its producer, and neither a person nor a time. Its time is bounded by the
producer's events before and after it; where these are not found, by what is certain: an event was
made before its loss was noticed, and its producer not earlier than an outbox may wait before it
was first seen. Each caveat is a map with a `kind`; shared/PROTOCOL.md describes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logd.batch import LOST_CLAIMED
from logd.clock.event_age import AHEAD_MAX_NS, LATE_MAX_NS, is_plausible
from logd.runtime_stats import RuntimeStats
from logd.storage.database import Connection
from logd_wire.schema import INT64_MAX

Caveat = dict[str, Any]

LOSSES_MAX = 1000
# Events that are read to find those of the producer next to a loss: of one loss, and of all.
SEARCHED_MAX = 20_000
SEARCHED_ALL_MAX = 400_000
REASONS_MAX = 20


@dataclass
class CaveatSearch:
    """Searches one transaction's view of the trail for caveats from `since_ns` to `until_ns`."""

    connection: Connection
    since_ns: int
    until_ns: int
    stats: RuntimeStats | None = None
    searched: int = 0

    def caveats(self) -> Iterator[Caveat]:
        """Yields all caveats, those of the loss ledger first."""
        yield from self._losses()
        yield from self._open_tails()
        yield from self._pending()
        yield from self._quarantined()
        yield from self._refused()
        yield from self._removed()
        yield from self._begin()

    # -- missing numbers -------------------------------------------------------------------------

    def _losses(self) -> Iterator[Caveat]:
        # An event is made before its loss is noticed.
        rows = self.connection.execute(
            "SELECT l.id, p.uid || '-' || p.key, p.id, p.first_seen_ns, l.first, l.last, l.cause,"
            " l.detected_ns, b.first_event, b.first_event + b.events"
            " FROM loss l JOIN producer p ON p.id = l.producer JOIN batch b ON b.id = l.batch"
            " WHERE l.detected_ns >= ? ORDER BY l.id LIMIT ?",
            (self.since_ns, LOSSES_MAX + 1),
        ).fetchall()
        for loss, producer, row, seen_ns, first, last, cause, detected_ns, start, end in rows[
            :LOSSES_MAX
        ]:
            from_ns = self._before(row, first, end)
            if from_ns is None:
                from_ns = seen_ns - LATE_MAX_NS
            to_ns = None if last is None else self._after(row, last, start)
            to_ns = detected_ns if to_ns is None else to_ns
            if from_ns >= self.until_ns or max(from_ns, to_ns) < self.since_ns:
                continue
            yield {
                "kind": "claimed" if cause == LOST_CLAIMED else "loss",
                "loss": loss,
                "producer": producer,
                "first": first,
                "last": last,
                "events": None if last is None else last - first + 1,
                "cause": cause,
                "from_ns": min(from_ns, to_ns),
                "to_ns": max(from_ns, to_ns),
                "detected_ns": detected_ns,
            }
        if len(rows) > LOSSES_MAX:
            yield {"kind": "more_losses", "listed": LOSSES_MAX}

    def _before(self, producer: int, first: int, end: int) -> int | None:
        """Returns the time of the producer's last event before the lost ones; None if not found."""
        return self._neighbour(
            "SELECT e.id, e.ts_ns FROM event e WHERE e.id < :end AND e.id >= :end - :searched"
            " AND e.producer = :producer AND e.sequence < :sequence ORDER BY e.id DESC LIMIT 1",
            {"producer": producer, "sequence": first, "end": end},
            start=end,
            earliest=True,
        )

    def _after(self, producer: int, last: int, start: int) -> int | None:
        """Returns the time of the producer's first event after the lost ones; None if not found."""
        return self._neighbour(
            "SELECT e.id, e.ts_ns FROM event e WHERE e.id >= :start AND e.id < :start + :searched"
            " AND e.producer = :producer AND e.sequence > :sequence ORDER BY e.id LIMIT 1",
            {"producer": producer, "sequence": last, "start": start},
            start=start,
            earliest=False,
        )

    def _neighbour(
        self, sql: str, values: dict[str, int], *, start: int, earliest: bool
    ) -> int | None:
        if self.searched >= SEARCHED_ALL_MAX:
            return None
        found = self.connection.execute(sql, {**values, "searched": SEARCHED_MAX}).fetchone()
        if found is None:
            self.searched += SEARCHED_MAX
            return None
        event_id, ts_ns = found
        self.searched += abs(event_id - start)
        (stored_ns,) = self.connection.execute(
            "SELECT stored_ns FROM batch WHERE first_event <= ? ORDER BY first_event DESC, id DESC"
            " LIMIT 1",
            (event_id,),
        ).fetchone()
        if is_plausible(ts_ns, stored_ns):
            return int(ts_ns)
        # An event's own time is no bound if its clock was wrong, or if it was imported.
        return int(stored_ns - LATE_MAX_NS if earliest else stored_ns)

    def _open_tails(self) -> Iterator[Caveat]:
        """Yields producers without an outbox that have not reported their last sequence.

        Whether their last events were received is unknown until they send again, or end.
        """
        producers, from_ns = self.connection.execute(
            "SELECT count(*), min(last_seen_ns) FROM producer"
            " WHERE ended = 0 AND has_outbox = 0 AND last_seen_ns < ?",
            (self.until_ns,),
        ).fetchone()
        if producers:
            yield {"kind": "open_tail", "producers": producers, "from_ns": from_ns}

    def _pending(self) -> Iterator[Caveat]:
        stats = self.stats
        if stats is None:
            return
        from_ns = stats.backlog_since_ns or 0
        if stats.backlog and self.since_ns <= stats.at_ns and from_ns < self.until_ns:
            yield {
                "kind": "pending",
                "events": stats.backlog,
                "from_ns": from_ns,
                "at_ns": stats.at_ns,
            }

    # -- what has or had no number ---------------------------------------------------------------

    def _quarantined(self) -> Iterator[Caveat]:
        """Yields what logd refused in the range, and what it refused up to seven days after it.

        What it refused later may have been waiting in an outbox since the range.
        """
        until_ns = self.until_ns
        for after, low, high in (
            (False, self.since_ns, until_ns),
            (True, until_ns, min(until_ns + LATE_MAX_NS, INT64_MAX)),
        ):
            rows = self.connection.execute(
                "SELECT iif(instr(reason, ':'), substr(reason, 1, instr(reason, ':') - 1), reason),"
                " count(*), sum(sequence IS NOT NULL) FROM quarantine"
                " WHERE detected_ns >= ? AND detected_ns < ? GROUP BY 1 ORDER BY 1 LIMIT ?",
                (low, high, REASONS_MAX),
            ).fetchall()
            if rows:
                yield {
                    "kind": "quarantined",
                    "after": after,
                    "entries": sum(row[1] for row in rows),
                    "events": sum(row[2] for row in rows),
                    "reasons": {reason: entries for reason, entries, _ in rows},
                }
        ever, kept, oldest_ns = self.connection.execute(
            "SELECT (SELECT coalesce(sum(value), 0) FROM counter WHERE name = 'quarantined'),"
            " count(*), min(detected_ns) FROM quarantine"
        ).fetchone()
        if ever > kept and (oldest_ns is None or oldest_ns >= self.since_ns):
            yield {"kind": "quarantine_cut", "entries": ever - kept, "before_ns": oldest_ns}

    def _refused(self) -> Iterator[Caveat]:
        """Yields what producers, as they report, refused while they were seen, or before."""
        rows = self.connection.execute(
            "SELECT r.cause, sum(r.events), count(*), min(p.first_seen_ns), max(p.last_seen_ns)"
            " FROM refusal r JOIN producer p ON p.id = r.producer"
            " WHERE p.last_seen_ns >= ? AND p.first_seen_ns - ? < ? GROUP BY r.cause ORDER BY 1",
            (self.since_ns, LATE_MAX_NS, self.until_ns),
        ).fetchall()
        if rows:
            yield {
                "kind": "refused",
                "events": sum(row[1] for row in rows),
                "causes": {row[0]: row[1] for row in rows},
                "from_ns": min(row[3] for row in rows),
                "to_ns": max(row[4] for row in rows),
            }

    def _removed(self) -> Iterator[Caveat]:
        """Yields what was removed or redacted of the events stored in the range or soon after."""
        first, end = self._stored_ids()
        query = self.connection.execute
        # The runs are disjoint, so that only the last one that begins before `first` reaches it.
        rows = query(
            "WITH gone (removal, events, redacted) AS ("
            " SELECT removal, sum(min(last, ?2 - 1) - max(first, ?1) + 1), 0 FROM removed"
            " WHERE first < ?2 AND last >= ?1 AND first >="
            " coalesce((SELECT max(first) FROM removed WHERE first <= ?1), 0) GROUP BY removal"
            " UNION ALL SELECT removal, 0, count(*) FROM redacted WHERE event >= ?1 AND event < ?2"
            " GROUP BY removal)"
            " SELECT r.kind, sum(g.events), sum(g.redacted), count(DISTINCT r.id), min(r.event),"
            " max(r.event), min(e.ts_ns), max(e.ts_ns)"
            " FROM gone g JOIN removal r ON r.id = g.removal LEFT JOIN event e ON e.id = r.event"
            " GROUP BY r.kind ORDER BY r.kind",
            (first, end),
        ).fetchall()
        names = ("how", "events", "redacted", "acts", "first_act", "last_act", "from_ns", "to_ns")
        for row in rows:
            yield {"kind": "removed", **dict(zip(names, row, strict=True))}
        (every,) = query("SELECT coalesce(sum(events), 0) FROM removal").fetchone()
        others = every - sum(row[1] for row in rows)
        if others > 0:
            yield {"kind": "removed_others", "events": others}

    def _stored_ids(self) -> tuple[int, int]:
        """Returns the events (first, end) stored when those of the range may have been stored.

        The clock of the daemon is taken to have gone forward.
        """
        return (
            self._first_stored(self.since_ns - AHEAD_MAX_NS),
            self._first_stored(min(self.until_ns + LATE_MAX_NS, INT64_MAX)),
        )

    def _first_stored(self, ns: int) -> int:
        """Returns the first event of the first batch stored at `ns` or later."""
        query = self.connection.execute
        low, high = 0, query("SELECT coalesce(max(id), 0) + 1 FROM batch").fetchone()[0]
        while low + 1 < high:
            middle = (low + high) // 2
            row = query(
                "SELECT stored_ns FROM batch WHERE id <= ? ORDER BY id DESC LIMIT 1", (middle,)
            ).fetchone()
            if row is None or row[0] < ns:
                low = middle
            else:
                high = middle
        row = query(
            "SELECT first_event FROM batch WHERE id >= ? ORDER BY id LIMIT 1", (high,)
        ).fetchone()
        return INT64_MAX if row is None else int(row[0])

    def _begin(self) -> Iterator[Caveat]:
        (began_ns,) = self.connection.execute("SELECT min(started_ns) FROM run").fetchone()
        if began_ns is not None and self.since_ns < began_ns:
            yield {"kind": "begins", "at_ns": began_ns}
