"""Verifies what is new since the last run, and one part of the rest.

New are batches and removals, with the blocks and days that they touch, as far as that needs few
other events to be read. Of the rest, one part of a cycle of `logd.audit.proven` is verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from logd.audit import proven as proving
from logd.audit.page_check import damaged_pages_between
from logd.audit.proven import Part, Proven
from logd.audit.verifier import Checks, in_one_moment, last_batch
from logd.audit.verify_batches import BatchesCheck, BatchRange, Progress
from logd.audit.verify_removals import check_removals, check_removed_in_batches
from logd.audit.verify_rows import Verdict
from logd.storage.database import Connection
from logd.storage.rollups import DAY_NS
from logd.storage.time_blocks import BLOCK_BITS, IN_ANY_BLOCK
from logd_wire.schema import INT64_MAX, SUBJECTS

# The most days that are compared of those that the new events touch: the latest ones.
NEW_DAYS_MAX = 60
# Blocks that are read again for those days; many are old ones if the clocks of clients were wrong.
NEW_DAY_BLOCKS_MIN = 16

# This condition finds the types without reading all of the table.
_TYPES = (
    "r.type IN (WITH RECURSIVE t (x) AS (SELECT min(type) FROM main.rollup_day UNION ALL"
    " SELECT (SELECT min(type) FROM main.rollup_day WHERE type > x) FROM t WHERE x IS NOT NULL)"
    " SELECT x FROM t UNION SELECT id FROM event_type)"
)


@dataclass(frozen=True)
class PartDone:
    """The result of a run: number of new batches, part of a cycle, state for the next run."""

    new_batches: int
    part: int
    parts: int
    next: Proven


class PartVerifier(Checks):
    """Verifies what is new and one part of the rest, as of one moment."""

    def __init__(
        self, connection: Connection, key: bytes, progress: Progress, proven: Proven, now_ns: int
    ) -> None:
        super().__init__(connection, progress)
        self._key, self._proven, self._now_ns = key, proven, now_ns

    def run(self) -> tuple[Verdict, PartDone]:
        """Runs the checks; damage becomes a finding.

        The state is to be kept if there are no findings.

        Raises NotChecked if the database cannot be read now.
        """
        connection, proven = self._connection, self._proven
        with in_one_moment(connection):
            part = proving.next_part(connection, proven)
            for check in (
                lambda: self._check_pages(part),
                lambda: self._check_batches(part),
                lambda: self._check_removals(part),
                lambda: self._check_days(part),
                self._check_blocks,
                self._check_subjects,
                self._check_types,
            ):
                self._attempt(check)
            upto = last_batch(connection)
            return self._verdict, PartDone(
                upto - proven.batch, proven.part + 1, proven.parts, self._next(part)
            )

    def _next(self, part: Part) -> Proven:
        proven = self._proven
        if not self._verdict.whole:
            return proven  # the state stays as it was; such a trail may have no head either
        end = proving.begin_cycle(self._connection, self._now_ns)
        if part.last:
            return replace(end, since_ns=proven.cycle_ns)
        after = proving.advance(proven, part)
        return replace(after, batch=end.batch, hash=end.hash, removal=end.removal)

    def _check_pages(self, part: Part) -> None:
        first = self._proven.page_position + 1
        if first <= part.page:
            for problem in damaged_pages_between(self._connection, self._key, first, part.page):
                self._verdict.add_finding(f"file: {problem}")

    def _check_batches(self, part: Part) -> None:
        new = BatchRange(self._proven.batch, last_batch(self._connection))
        self._ranges: list[tuple[int, int]] = []  # (first, end) of the events that are read
        next_event = 1
        self._new_from = self._event_after(self._proven.batch)
        for batches in (part.batches, new):
            check = BatchesCheck(
                self._connection,
                self._sequences,
                lambda first, end: self._ranges.append((first, end)),
                self._progress,
            )
            try:
                next_event = check.check(batches).next_event
            finally:
                self._add(check.result)
        self._check_tree([part.batches, new], next_event)
        self._check_stray_rows(next_event)
        (outside,) = self._connection.execute(
            "SELECT count(*) FROM loss WHERE batch < 1 OR batch > ?", (new.upto,)
        ).fetchone()
        if outside:
            self._verdict.add_finding(f"loss ledger: {outside} entries belong to no batch")
        self._sequences.check(self._verdict, 1, next_event)
        self._kept.check_counters(next_event - 1, new.upto)
        check_removed_in_batches(self._connection, self._verdict, next_event)

    def _check_removals(self, part: Part) -> None:
        for after, upto in (
            (self._proven.removal_position, part.removal),
            (self._proven.removal, INT64_MAX),
        ):
            check_removals(self._connection, self._verdict, after, upto)

    # -- days ------------------------------------------------------------------------------------

    def _check_days(self, part: Part) -> None:
        """Compares the roll-ups for the days of the part, and for the days of the new events."""
        since, until = self._proven.day_position, part.day
        where, values = _within("ts_ns", since, until, DAY_NS)
        self._add_days(self._blocks_of(since, until), where, values)
        days = self._new_days(since, until)
        for day, blocks in days:
            where, values = _within("ts_ns", day, day + 1, DAY_NS)
            self._add_days(blocks, where, values)
        bounds, numbers = _within("r.day", since, until, 1)
        self._kept.check_days(f"AND {_TYPES} {bounds.replace('?', '{}').format(*numbers)}")
        if days:
            listed = ", ".join(str(day) for day, _blocks in days)
            self._kept.check_days(f"AND {_TYPES} AND r.day IN ({listed})")

    def _new_days(self, since: int | None, until: int | None) -> list[tuple[int, list[int]]]:
        """Returns the days of new events outside the part, each with the blocks of its events."""
        first, end = self._new_from, self._event_after(last_batch(self._connection))
        days = [
            day
            for (day,) in self._connection.execute(
                f"SELECT DISTINCT ts_ns / {DAY_NS} FROM event WHERE id >= ? AND id < ?"  # noqa: S608 - numbers only
                " ORDER BY 1 DESC LIMIT ?",
                (first, end, NEW_DAYS_MAX),
            )
            if not ((since is None or day >= since) and (until is None or day < until))
        ]
        left = NEW_DAY_BLOCKS_MIN + 2 * ((end - first) >> BLOCK_BITS)
        found: list[tuple[int, list[int]]] = []
        for day in days:
            blocks = self._blocks_of(day, day + 1)
            left -= len(blocks)
            if left < 0:
                break  # later days are proven by their own part of the cycle
            found.append((day, blocks))
        return found

    def _event_after(self, batch: int) -> int:
        (event,) = self._connection.execute(
            "SELECT coalesce((SELECT first_event + events FROM batch WHERE id <= ?"
            " ORDER BY id DESC LIMIT 1), 1)",
            (batch,),
        ).fetchone()
        return int(event)

    def _blocks_of(self, since: int | None, until: int | None) -> list[int]:
        """Returns the blocks with events of the days from `since` to before `until`."""
        where, values = "WHERE true", []
        if since is not None:
            where, values = where + " AND last_ts_ns >= ?", [since * DAY_NS]
        if until is not None:
            until_ns = min(until * DAY_NS - 1, INT64_MAX)
            where, values = where + " AND first_ts_ns <= ?", [*values, until_ns]
        rows = self._connection.execute(
            f"SELECT block FROM event_block {where} ORDER BY block",  # noqa: S608 - no data in it
            values,
        )
        return [block for (block,) in rows]

    def _add_days(self, blocks: Iterable[int], where: str, values: Sequence[int]) -> None:
        for block in blocks:
            ids = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
            self._recomputed.add_days(*ids, where, values)

    # -- blocks, subjects, types -----------------------------------------------------------------

    def _check_blocks(self) -> None:
        """Compares the times of the blocks whose events the check of batches has read."""
        blocks = sorted(
            {
                block
                for first, end in self._ranges
                for block in range(first >> BLOCK_BITS, ((end - 1) >> BLOCK_BITS) + 1)
            }
        )
        for first, last in _runs(blocks):
            self._recomputed.add_blocks(first << BLOCK_BITS, (last + 1) << BLOCK_BITS)
            self._kept.check_blocks(f"AND r.block BETWEEN {first} AND {last}")
            self._kept.check_values(first, last)
        (end,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()
        self._kept.check_blocks(f"AND (r.block < 0 OR r.block > {end >> BLOCK_BITS})")

    def _check_subjects(self) -> None:
        """Compares the roll-ups by subject of the users that this part of the cycle includes."""
        types = self._connection.execute(
            f"SELECT id FROM event_type WHERE name IN ({', '.join('?' * len(SUBJECTS))})",  # noqa: S608 - marks only
            list(SUBJECTS),
        ).fetchall()
        listed = ", ".join(str(type_id) for (type_id,) in types)

        def rows() -> Iterator[tuple[int, int, str, bytes]]:
            blocks = self._connection.execute("SELECT block FROM event_block").fetchall()
            for (block,) in blocks if types else ():
                yield from self._connection.execute(
                    "SELECT type, ts_ns, user, props FROM event INDEXED BY event_user"  # noqa: S608 - numbers only
                    f" WHERE (id >> {BLOCK_BITS}) = ? AND user IS NOT NULL"
                    f" AND type IN ({listed}) AND {self._turn('user')} ORDER BY id",
                    (block,),
                ).fetchall()

        self._recomputed.add_subject_rows(rows())
        self._kept.check_subjects(f"AND {self._turn('r.user')}")

    def _turn(self, user: str) -> str:
        """Returns the SQL condition that a user is in this part, by the id's last characters."""
        digits = " + ".join(
            f"{factor} * coalesce(unicode(substr({user}, -{place}, 1)), 0)"
            for place, factor in ((1, 1), (2, 10), (3, 100))
        )
        return f"({digits}) % {self._proven.parts} = {self._proven.part}"

    def _check_types(self) -> None:
        """Compares the counts of the types that this part includes, and the sum over all types."""
        query, turn = self._connection.execute, f"id % {self._proven.parts} = {self._proven.part}"
        counted = {
            type_id: query(
                f"SELECT count(*) FROM event e WHERE {IN_ANY_BLOCK} AND e.type = ?",  # noqa: S608 - no data in it
                (type_id,),
            ).fetchone()[0]
            for (type_id,) in query(f"SELECT id FROM event_type WHERE {turn}").fetchall()  # noqa: S608 - numbers only
        }
        self._kept.check_types({i: n for i, n in counted.items() if n}, turn)
        stored, kept = query(
            "SELECT (SELECT coalesce(max(first_event + events - 1), 0) FROM batch WHERE id ="
            " (SELECT max(id) FROM batch)) - (SELECT coalesce(sum(events), 0) FROM removal),"
            " (SELECT coalesce(sum(events), 0) FROM event_type)"
        ).fetchone()
        if stored != kept:
            self._verdict.add_finding(f"event_type: {kept} events of all types, {stored} stored")


def _within(
    column: str, since: int | None, until: int | None, factor: int
) -> tuple[str, list[int]]:
    where, values = "", []
    if since is not None:
        where, values = f" AND {column} >= ?", [since * factor]
    if until is not None:
        where, values = where + f" AND {column} <= ?", [*values, min(until * factor - 1, INT64_MAX)]
    return where, values


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Groups ascending numbers into runs without a gap, as (first, last)."""
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last
