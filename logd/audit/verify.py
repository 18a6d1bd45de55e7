"""`logd verify`: verifies an instance's trail, compares it with anchors, and keeps the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass

from logd.audit import anchors, recomputed
from logd.audit.last_verification import Integrity, record_verification
from logd.audit.verifier import Verifier
from logd.audit.verify_chain import Progress
from logd.audit.verify_rows import Verdict
from logd.config.settings import Config
from logd.errors import DatabaseCorrupt, LogdError
from logd.storage import opening
from logd.storage.chain_head import read_head
from logd.storage.database import Connection, DatabaseError, damage, translate


@dataclass(frozen=True)
class Verification:
    """What `logd verify` found in the trail, and by comparing it with anchors.

    `unrecorded` says why the result is not kept for `logd status`.
    """

    trail: Verdict
    mismatches: list[str]
    notes: list[str]
    unrecorded: str | None

    @property
    def problem(self) -> str | None:
        """The verdict in one line; None if nothing is wrong."""
        if not self.trail.whole:
            return "the trail is not whole"
        return "the trail is whole, but it does not match the anchors" if self.mismatches else None


def verify_instance(
    config: Config,
    logged: Iterable[anchors.Anchor] | None,
    bar: Callable[[int], AbstractContextManager[Progress]],
) -> Verification:
    """Verifies an instance's trail, compares it with anchors if there are any, and keeps the result
    for `logd status`.

    Raises LogdError kinds when it cannot be read, or NoJournal.
    """
    mismatches: list[str] = []
    notes: list[str] = []
    try:
        with closing(opening.open_for_reading(config)) as connection:
            # Not count(*): it reads a whole index: one damaged page of it would hide the rest.
            total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
            with bar(total) as advance:
                trail = verify(connection, advance)
            if logged is not None:
                try:
                    found = anchors.compare(connection, logged)
                    mismatches += found.findings
                    notes += found.describe(read_head(connection)[0])
                except DatabaseError as error:
                    mismatches.append(f"anchors: cannot be compared: {damage(error)}")
    except (DatabaseCorrupt, DatabaseError) as error:
        problem = error if isinstance(error, LogdError) else translate(error, config.database)
        if not isinstance(problem, DatabaseCorrupt):
            raise problem from error
        trail = Verdict()
        trail.add_finding(f"file: {problem}")
    findings = len(trail.findings) + len(mismatches)
    try:
        record_verification(
            config,
            Integrity(
                time.time_ns(), not findings, trail.events, trail.batches, trail.head, findings
            ),
        )
    except LogdError as error:  # the verdict is still valid
        return Verification(trail, mismatches, notes, str(error))
    return Verification(trail, mismatches, notes, None)


def verify(connection: Connection, progress: Progress = lambda _events: None) -> Verdict:
    """Reads everything in one transaction. `progress` gets the number of events just checked.

    Raises NotChecked when the database cannot be read now.
    """
    with recomputed.temporary(connection):
        return Verifier(connection, progress).run()
