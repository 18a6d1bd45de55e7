"""`logd verify`: verifies an instance's trail, compares it with anchors, and keeps the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path

from logd.audit import recomputed
from logd.audit.anchors import Anchor
from logd.audit.answer import Anchored, Answer, compare_anchors, compare_heads
from logd.audit.kept_heads import KeptHead
from logd.audit.proven import Proven, from_json, is_of
from logd.audit.verifier import Verifier
from logd.audit.verify_batches import Progress
from logd.audit.verify_part import PartDone, PartVerifier
from logd.audit.verify_processes import process_count, running
from logd.audit.verify_rows import Verdict
from logd.config.settings import Config
from logd.errors import DatabaseCorrupt, LogdError
from logd.storage import keyfile, opening
from logd.storage.database import Connection, DatabaseError, connect, translate
from logd.storage.last_verification import (
    NOT_WHOLE,
    Integrity,
    read_verification,
    record_verification,
)
from logd.storage.migrations import MIGRATIONS, check_not_newer, schema_version

# A progress bar is made for a total of events, and yields a function that adds to the progress.
Bar = Callable[[int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Verification:
    """The result of `logd verify`: the findings in the trail, and the comparison with anchors.

    `part` is None if everything was verified. `unrecorded` says why the result is not kept for
    `logd status`.
    """

    trail: Verdict
    part: PartDone | None
    took_s: float
    processes: int
    anchored: Anchored = field(default_factory=Anchored)
    notes: tuple[str, ...] = ()
    unrecorded: str | None = None

    @property
    def answer(self) -> Answer:
        """The answer: whole, not whole or not proven."""
        return Answer(self.trail.whole, self.anchored)


@dataclass(frozen=True)
class _Done:
    """The result of one run over a database."""

    trail: Verdict
    processes: int = 1
    part: PartDone | None = None
    proven: Proven | None = None


def verify_instance(
    config: Config,
    logged: Iterable[Anchor] | None,
    bar: Bar,
    since_ns: int | None = None,
    *,
    heads: Sequence[KeptHead] = (),
    incremental: bool = False,
    processes: int | None = None,
) -> Verification:
    """Verifies an instance's trail, compares it, and keeps the result for `logd status`.

    The trail is compared with the anchors of `since_ns` or later, and with kept heads, if there are
    any. With `incremental`, only what is new and one part of the rest are verified, if all was
    proven before. Raises a LogdError if the trail cannot be read.
    """
    started_s = time.monotonic()
    anchored = Anchored()
    notes: tuple[str, ...] = ()
    try:
        with closing(opening.open_for_reading(config)) as connection:
            key = keyfile.read(config.key_file)
            part = _verify_part(connection, config, key, bar) if incremental else None
            if part is None and incremental:
                notes = ("all is verified: nothing of this trail is proven yet",)
            done = part or _verify_all(connection, config.database, key, False, processes, bar)
            if logged is not None:
                anchored = compare_anchors(connection, config, logged, since_ns)
            if heads:
                anchored = anchored.and_also(compare_heads(connection, config, heads))
    except (DatabaseCorrupt, DatabaseError) as error:
        done = _Done(_unreadable(error, config.database))
    trail, findings = done.trail, len(done.trail.findings) + len(anchored.mismatches)
    answer = Answer(trail.whole, anchored).name
    # Without anchors nothing is wrong, and what is proven in itself need not be proven again.
    proven = done.proven.to_json() if done.proven and not findings else None
    result = Integrity(
        *(time.time_ns(), answer != NOT_WHOLE, trail.events, trail.batches, trail.head),
        *(findings, answer, proven),
    )
    unrecorded = None
    try:
        record_verification(config, result)
    except LogdError as error:  # if the result cannot be kept, the answer is still valid
        unrecorded = str(error)
    took_s = time.monotonic() - started_s
    return Verification(trail, done.part, took_s, done.processes, anchored, notes, unrecorded)


def verify_file(path: Path, key: bytes, bar: Bar, processes: int | None = None) -> Verification:
    """Verifies a backup in its place, without writing anything beside it.

    Raises a LogdError.
    """
    started_s = time.monotonic()
    try:
        with closing(connect(path, key, read_only=True, immutable=True)) as connection:
            check_not_newer(connection)
            done = _verify_all(connection, path, key, True, processes, bar)
    except (DatabaseCorrupt, DatabaseError) as error:
        done = _Done(_unreadable(error, path))
    return Verification(done.trail, None, time.monotonic() - started_s, done.processes)


def verify(connection: Connection, progress: Progress = lambda _events: None) -> Verdict:
    """Verifies a whole database in one transaction.

    `progress` is called with the number of events just checked.

    Raises NotChecked when the database cannot be read now.
    """
    with recomputed.temporary(connection):
        return Verifier(connection, progress).run()


def _verify_all(
    connection: Connection,
    path: Path,
    key: bytes,
    immutable: bool,
    processes: int | None,
    bar: Bar,
) -> _Done:
    # The estimate is not count(*), which reads a whole index: one damaged page would hide the rest.
    total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    count = process_count(processes, total)
    with (
        running(path, key, immutable, count) as helpers,
        recomputed.temporary(connection),
        bar(total) as advance,
    ):
        verifier = Verifier(connection, advance, helpers)
        trail = verifier.run()
    return _Done(trail, count, proven=verifier.proven)


def _verify_part(connection: Connection, config: Config, key: bytes, bar: Bar) -> _Done | None:
    """Verifies the next part; returns None if nothing of this trail is known to be proven."""
    kept = read_verification(config.database)
    proven = from_json(kept.proven) if kept is not None and kept.whole else None
    current = schema_version(connection) == len(MIGRATIONS)
    if proven is None or not current or not is_of(connection, proven):
        return None
    (events,) = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()
    with recomputed.temporary(connection), bar(events // proven.parts) as advance:
        trail, part = PartVerifier(connection, key, advance, proven, time.time_ns()).run()
    return _Done(trail, part=part, proven=part.next)


def _unreadable(error: Exception, path: Path) -> Verdict:
    """Returns the verdict on a damaged file. Raises the error if it does not show damage."""
    problem = error if isinstance(error, LogdError) else translate(error, path)
    if not isinstance(problem, DatabaseCorrupt):
        raise problem from error
    trail = Verdict()
    trail.add_finding(f"file: {problem}")
    return trail
