"""Compares the site's rows of work with the trail, and emits the events that are missing.

A row is missing if no event of its user, item and attempt is in the trail. It is emitted only if
that cannot undo a removal:

- A row that was found in the trail, or was emitted, is never looked at again (`trail_entries`). An
  event that is missing later was removed by retention, or erased with its person.
- Other rows are emitted up to an age (DAYS) within which logd takes their original time, so that
  retention counts from it.
- An erasure does not name its person. So if the trail has had one since the rows were compared
  last, all rows that are missing are withheld, for good, unless someone confirms that they are not
  of erased persons. The trail's events `person_erased` are counted, which are never removed, and
  one is stored together with each removal of the erasure.

Rows younger than SETTLE are left for the next run: their events may still wait in an outbox.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from logd_wire.query import QueryClient, QueryError
from webapp.classroom.store.db import Connection, Database

DAY_NS = 24 * 3600 * 10**9
DAYS = 7
SETTLE_NS = 15 * 60 * 10**9
# An event's time is taken after its row's. The clock may be set in between.
CLOCK_NS = DAY_NS
PAGE_EVENTS, PAGES_MAX = 200, 5000
TASK, QUIZ = "task_completed", "quiz_submitted"
ERASED = "person_erased"
STORED, SENT, WITHHELD = "stored", "sent", "withheld"

# A row's event: user, type, item, and number of the attempt (0 for a task).
Key = tuple[int, str, str, int]

_OPEN = f"""
    FROM (
        SELECT c.user_id, '{TASK}' AS type, c.task AS subject, 0 AS number, c.completed_ns AS at_ns,
            t.course, NULL AS score
        FROM completions c JOIN tasks t ON t.id = c.task
        UNION ALL
        SELECT a.user_id, '{QUIZ}', a.quiz, a.number, a.submitted_ns, q.course, a.score
        FROM attempts a JOIN quizzes q ON q.id = a.quiz
    ) w
    LEFT JOIN trail_entries e USING (user_id, type, subject, number)
    WHERE e.state IS NOT '{STORED}'
"""  # noqa: S608 - our own constants


class Busy(Exception):
    """Another run compares the same site."""


@dataclass(frozen=True)
class Work:
    """A row of work that is not known to be in the trail."""

    key: Key
    at_ns: int
    course: str
    score: float | None
    state: str | None
    state_ns: int | None

    @property
    def props(self) -> dict[str, Any]:
        """Returns the properties that its event has, as the site logs it, and a mark."""
        _, event_type, subject, number = self.key
        if event_type == TASK:
            return {"task": subject, "course": self.course, "reconciled": True}
        return {
            "quiz": subject,
            "course": self.course,
            "score": self.score,
            "attempt": number,
            "reconciled": True,
        }


@dataclass
class Comparison:
    """The rows that were not known to be in the trail, each in one of the lists."""

    found: list[Work] = field(default_factory=list)
    missing: list[Work] = field(default_factory=list)  # to be emitted
    withheld: list[Work] = field(default_factory=list)
    young: int = 0
    old: int = 0
    erasures: int = 0
    emitted: int = 0
    refused: int = 0

    @property
    def rows(self) -> int:
        """The number of rows in all lists."""
        listed = len(self.found) + len(self.missing) + len(self.withheld)
        return listed + self.young + self.old


class Trail:
    """What the comparison asks of logd. Raises QueryError, as `QueryClient.ask` does."""

    def __init__(self, client: QueryClient) -> None:
        self._client = client

    def keys(self, event_type: str, since_ns: int) -> set[Key]:
        """Returns the keys of all events of a type from that time on."""
        found: set[Key] = set()
        before: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            answer = self._client.ask(
                "events", type=event_type, since_ns=since_ns, limit=PAGE_EVENTS, **before
            )
            found.update(filter(None, (_key_of(event_type, row) for row in answer.rows)))
            if answer.next is None:
                return found
            before = {"before_id": answer.next}
            if answer.rows:
                before["before_ns"] = answer.rows[-1]["ts_ns"]
        raise QueryError("too_long", f"{event_type} has over {PAGES_MAX} pages")

    def erasures(self) -> int:
        """Returns how many events of erasures the trail has; only a restore makes them fewer."""
        after: str | None = None
        while True:
            answer = self._client.ask("event_types", after=after)
            for row in answer.rows:
                if row["type"] == ERASED:
                    return int(row["events"])
            if answer.next is None:
                return 0
            after = answer.next


@contextmanager
def only_run(db: Database) -> Iterator[None]:
    """Keeps other runs out during the block. Raises Busy if there is one."""
    path = db.instance.directory / "reconcile.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy from error
    else:
        yield
    finally:
        os.close(descriptor)


def compare(
    db: Database, trail: Trail, now_ns: int, *, days: int = DAYS, not_erased: bool = False
) -> Comparison:
    """Compares the rows with the trail. `not_erased` confirms that no row is an erased person's."""
    since_ns = now_ns - days * DAY_NS
    result = Comparison(old=_count_before(db, since_ns))
    waiting = []
    for work in _rows_from(db, since_ns):
        if work.at_ns > now_ns - SETTLE_NS or _is_recently_sent(work, now_ns):
            result.young += 1
        else:
            waiting.append(work)
    here: set[Key] = set()
    for event_type in (TASK, QUIZ):
        times = [work.at_ns for work in waiting if work.key[1] == event_type]
        if times:
            here |= trail.keys(event_type, min(times) - CLOCK_NS)
    # Counted after the trail is read: events that an erasure had removed by then are counted.
    result.erasures = trail.erasures()
    may_be_erased = result.erasures != _known_erasures(db) and not not_erased
    for work in waiting:
        if work.key in here:
            result.found.append(work)
        elif may_be_erased or (work.state == WITHHELD and not not_erased):
            result.withheld.append(work)
        else:
            result.missing.append(work)
    return result


def record(db: Database, result: Comparison, now_ns: int) -> None:
    """Records what was found and withheld, and what will be emitted, before it is."""
    with db.transaction() as connection:
        _mark(connection, result.found, STORED, now_ns)
        _mark(connection, result.missing, SENT, now_ns)
        _mark(connection, result.withheld, WITHHELD, now_ns)
        connection.execute(
            "INSERT OR REPLACE INTO trail_erasures VALUES (1, ?)", (result.erasures,)
        )


def emit(
    db: Database,
    result: Comparison,
    log: Callable[[Work], bool],
    flush: Callable[[], bool],
) -> bool:
    """Emits the missing events; returns whether all that were accepted are on disk.

    What was refused is tried again by the next run. What is accepted and not yet on disk is looked
    for in the trail by a later one.
    """
    refused = []
    for work in result.missing:
        if log(work):
            result.emitted += 1
        else:
            refused.append(work)
    result.refused = len(refused)
    stored = flush()
    with db.transaction() as connection:
        connection.executemany(
            "DELETE FROM trail_entries"
            " WHERE user_id = ? AND type = ? AND subject = ? AND number = ?",
            [work.key for work in refused],
        )
        if stored:
            gone = {work.key for work in refused}
            done = [work for work in result.missing if work.key not in gone]
            _mark(connection, done, STORED, time.time_ns())
    return stored


def _rows_from(db: Database, since_ns: int) -> list[Work]:
    rows = db.connection().execute(
        "SELECT w.user_id, w.type, w.subject, w.number, w.at_ns, w.course, w.score, e.state,"
        f" e.at_ns {_OPEN} AND w.at_ns >= ?"
        " ORDER BY w.at_ns, w.user_id, w.type, w.subject, w.number",
        (since_ns,),
    )
    return [Work((row[0], row[1], row[2], row[3]), *row[4:]) for row in rows]


def _count_before(db: Database, until_ns: int) -> int:
    query = f"SELECT count(*) {_OPEN} AND w.at_ns < ?"
    return int(db.connection().execute(query, (until_ns,)).fetchone()[0])


def _is_recently_sent(work: Work, now_ns: int) -> bool:
    return work.state == SENT and work.state_ns is not None and now_ns - SETTLE_NS < work.state_ns


def _known_erasures(db: Database) -> int:
    """Returns the erasures at the last comparison; 0 before the first one."""
    row = db.connection().execute("SELECT events FROM trail_erasures").fetchone()
    return 0 if row is None else int(row[0])


def _mark(connection: Connection, rows: Iterable[Work], state: str, now_ns: int) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO trail_entries VALUES (?, ?, ?, ?, ?, ?)",
        [(*work.key, state, now_ns) for work in rows],
    )


def _key_of(event_type: str, row: dict[str, Any]) -> Key | None:
    """Returns the key of an event; None for one that the site cannot have logged."""
    user, props = row["user"], row["props"]
    subject = props.get("task" if event_type == TASK else "quiz")
    number = 0 if event_type == TASK else props.get("attempt")
    if not isinstance(user, str) or not (user.isascii() and user.isdigit()):
        return None
    if not isinstance(subject, str) or type(number) is not int:
        return None
    return int(user), event_type, subject, number
