"""The job `forget`: erases a person's events, with roll-ups and mentions of that person.

It first records the person, as a token, and each producer's boundary (`logd.storage.boundaries`),
so that earlier events are erased when they arrive. In the end the file is vacuumed (`clean`):
SQLite overwrites what it deletes, but moving rows between pages leaves copies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from logd.batch import PERSON_ERASED
from logd.maintenance.event_removal import STEP_TARGET_S, Steps
from logd.maintenance.outbox_survey import survey
from logd.maintenance.subject_rollups import SubjectRecount
from logd.storage import erasure_list, event_types, job_table, mentions
from logd.storage.boundaries import SurveyedOutboxes
from logd.storage.database import Connection, question_marks
from logd.storage.job_table import Job
from logd.storage.removal_log import ERASED
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.schema import SUBJECTS, Malformed

_log = logging.getLogger("logd")

PROGRESS_INTERVAL_S = 0.5
ARRIVALS_LOOK_S = 0.005
CLEAN_AGAIN_S = 0.5
# How slow a disk may be before a vacuum is taken for a hang.
CLEAN_S_MIN, CLEAN_BYTES_PER_S_MIN = 120.0, 2_000_000
_READ_ROWS = 1000
_NAMES_ROWS = 5000
_QUARANTINE_ROWS = 500
_WINDOW_MIN, _WINDOW_MAX = 500, 20_000

Arrivals = Callable[[], Callable[[], bool]]


def request_reforget(
    connection: Connection, entries: erasure_list.Entries, bound: int, now_ns: int
) -> int:
    """Adds a job that forgets the persons of these tokens again, in a restored database, with all
    their events below `bound`; their names are not known. Returns its id.
    """
    params = {"users": [], "tokens": list(entries), "bound": bound}
    return job_table.add_job(connection, job_table.FORGET, params, now_ns)


@dataclass(frozen=True)
class Surroundings:
    """What a forget uses beside the database: the list of persons, and the outboxes, if any.

    `arrivals` returns a check that is true once all that has reached the daemon by now is
    committed; it is None without a daemon.
    """

    list_file: Path
    outboxes: Path | None = None
    arrivals: Arrivals | None = None


def forget(
    job: Job, store: Store, steps: Steps, surroundings: Surroundings
) -> Iterator[float | None]:
    """Does a bounded step at each `next`; after a crash a phase resumes where it stopped."""
    names = list(_PHASES)
    start = 0 if job.phase == job_table.ASKED else names.index(job.phase)
    for name in names[start:]:
        if job.phase != name:
            job.phase, job.position = name, 0
            store.transact(lambda connection, _batch: job.save(connection), steps.now_ns())
        yield from _PHASES[name](job, store, steps, surroundings)
    _record_done(job, store, steps.now_ns())


def _write_down(
    job: Job, store: Store, _steps: Steps, surroundings: Surroundings
) -> Iterator[float | None]:
    """Records the persons to forget.

    Later arrivals are erased by the list; stored events to erase have ids below `bound`.

    Events made during this step may count as before or after the forget.
    """
    until_ns = job.asked_ns
    tokens = {store.erasure_list.token(user): until_ns for user in job.params["users"]}
    if "bound" not in job.params:  # else a kill came between the transaction and the list's file
        # A job that was running when a backup was made, and that the list beside it knows as done:
        # that entry has already added the job that erases again (`request_reforget`).
        known = store.erasure_list.entries
        known_as_done = bool(tokens) and all(known.get(token) == until_ns for token in tokens)
        seen = None
        if tokens and not known_as_done:
            seen = yield from _survey_outboxes(store, surroundings)
        job.params["tokens"] = [*job.params.get("tokens", ()), *tokens]
        job.params["bound"] = 0 if known_as_done else store.next_event

        def work(connection: Connection, _batch: object) -> None:
            number = 0
            if seen is not None:
                complete = surroundings.arrivals is not None
                number = store.erasure_list.boundaries.record_forget(
                    connection, seen, complete=complete
                )
            erasure_list.save(connection, tokens, number)
            job.save(connection)

        store.transact(work, until_ns)
        store.reload_erasure_list()
    job.total = 2 * job.params["bound"]
    erasure_list.merge_file(surroundings.list_file, store.erasure_list.entries)
    yield None


def _survey_outboxes(
    store: Store, surroundings: Surroundings
) -> Generator[float | None, None, SurveyedOutboxes]:
    """Surveys the outboxes, once all that was in transit to the daemon is committed."""
    arrivals = surroundings.arrivals
    if arrivals is not None:
        arrived = arrivals()
        while not arrived():
            yield ARRIVALS_LOOK_S
    if surroundings.outboxes is None:
        return SurveyedOutboxes()
    return (yield from survey(surroundings.outboxes, store.connection, known=arrivals is not None))


def _find_names(
    job: Job, store: Store, _steps: Steps, _surroundings: Surroundings
) -> Iterator[None]:
    """Finds the users in this database that tokens from a list stand for."""
    wanted = set(job.params["tokens"]) - {store.erasure_list.token(u) for u in job.params["users"]}
    users: dict[str, None] = {}
    place: tuple[Any, ...] = (-1, 0, "")
    while wanted and (
        rows := store.connection.execute(
            "SELECT type, day, user FROM rollup_day WHERE (type, day, user) > (?, ?, ?)"
            " ORDER BY type, day, user LIMIT ?",
            (*place, _NAMES_ROWS),
        ).fetchall()
    ):
        # Clients may have invented any number of users: only those wanted are kept in memory.
        for user in dict.fromkeys(user for _, _, user in rows):
            if store.erasure_list.token(user) in wanted:
                users[user] = None
        place = rows[-1]
        yield
    job.params["users"] += users


def _events(job: Job, store: Store, steps: Steps, _surroundings: Surroundings) -> Iterator[None]:
    connection, bound = store.connection, job.params["bound"]
    by_subject = event_types.find(connection, list(SUBJECTS))
    for user in job.params["users"]:
        for name, type_id in by_subject.items():
            more = True
            while more:
                recount = SubjectRecount(name, type_id, user, lambda event_id, _: event_id < bound)
                while not recount.read(connection, _READ_ROWS):
                    yield
                more = bool(recount.ids)
                while gone := recount.ids[: steps.events_max]:
                    job.add("events", len(gone))
                    steps.remove(ERASED, (), {recount: gone}, job.save, job=job.id)
                    yield
        yield from _plain_events(job, user, list(by_subject.values()), store, steps)


def _plain_events(
    job: Job, user: str, but_types: list[int], store: Store, steps: Steps
) -> Iterator[None]:
    block = 0
    but = question_marks(but_types)
    while ids := [
        event_id
        for (event_id,) in store.connection.execute(
            "SELECT e.id FROM event_block b CROSS JOIN event e INDEXED BY event_user"  # noqa: S608 - question marks only
            f" ON (e.id >> {BLOCK_BITS}) = +b.block WHERE b.block >= ? AND e.user = ?"
            f" AND e.type NOT IN ({but}) AND e.id < ? ORDER BY b.block LIMIT ?",
            (block, user, *but_types, job.params["bound"], steps.events_max),
        )
    ]:
        job.add("events", len(ids))
        job.done = max(ids)
        block = job.done >> BLOCK_BITS
        steps.remove(ERASED, ids, {}, job.save, job=job.id)
        yield


def _mentions(job: Job, store: Store, steps: Steps, _surroundings: Surroundings) -> Iterator[None]:
    """Redacts mentions; reads the properties of all events, since no index covers them."""
    connection, bound = store.connection, job.params["bound"]
    tokens = frozenset(job.params["tokens"])

    @lru_cache(10_000)
    def is_person(name: str) -> bool:
        return store.erasure_list.token(name) in tokens

    window, saved_s = _WINDOW_MIN, time.monotonic()
    marks = " OR ".join("instr(props, ?)" for _ in mentions.MARKS)
    while job.position < bound:
        started_s, end = time.thread_time(), min(bound, job.position + window)
        rows = connection.execute(
            f"SELECT id, props FROM event WHERE id > ? AND id <= ? AND ({marks}) ORDER BY id",  # noqa: S608 - question marks only
            (job.position, end, *mentions.MARKS),
        ).fetchall()
        contents = dict(_redacted(rows, is_person))
        taken_s = time.thread_time() - started_s
        job.position, job.done = end, bound + end
        if contents:
            job.add("redacted", len(contents))
            steps.redact(contents, job.save)
        elif time.monotonic() - saved_s > PROGRESS_INTERVAL_S:
            store.transact(lambda connection, _: job.save(connection), steps.now_ns(), flush=False)
            saved_s = time.monotonic()
        scale = 2 if taken_s < STEP_TARGET_S / 2 else 0.5 if taken_s > STEP_TARGET_S else 1
        window = int(min(_WINDOW_MAX, max(_WINDOW_MIN, window * scale)))
        yield


def _redacted(
    rows: Iterable[tuple[int, bytes]], is_person: Callable[[str], bool]
) -> Iterator[tuple[int, bytes]]:
    for event_id, props in rows:
        try:
            less = mentions.redact(props, is_person)
        except Malformed:
            continue  # unreadable for everyone; `verify` reports that it was changed
        if less is not None:
            yield event_id, less


def _quarantine(
    job: Job, store: Store, steps: Steps, _surroundings: Surroundings
) -> Iterator[None]:
    """Deletes all excerpts, and what reasons quote: whose bytes they are is not known."""
    (last,) = store.connection.execute("SELECT coalesce(max(id), 0) FROM quarantine").fetchone()
    while job.position < last:
        first, job.position = job.position, min(last, job.position + _QUARANTINE_ROWS)

        def work(connection: Connection, _batch: object, first: int = first) -> None:
            changed = connection.execute(
                "UPDATE quarantine SET excerpt = x'',"
                " reason = substr(reason, 1, instr(reason || ':', ':') - 1)"
                " WHERE id > ? AND id <= ? AND (excerpt <> x'' OR instr(reason, ':'))",
                (first, job.position),
            )
            job.add("quarantine", changed.rowcount)
            job.save(connection)

        store.transact(work, steps.now_ns(), flush=False)
        yield


_PHASES = {
    "write down": _write_down,
    "find names": _find_names,
    "events": _events,
    "mentions": _mentions,
    "quarantine": _quarantine,
}


def _record_done(job: Job, store: Store, now_ns: int) -> None:
    """Deletes the name from the job, and records the forget. What is left is the vacuum."""
    job.phase, job.params = job_table.CLEAN, {}

    def work(connection: Connection, batch: Any) -> None:
        counts = {name: job.outcome.get(name, 0) for name in ("events", "redacted", "quarantine")}
        store.append_internal_event(
            batch, PERSON_ERASED, {"job": job.id, "done": True, **counts}, now_ns
        )
        job.save(connection)

    store.transact(work, now_ns)


def clean(
    store: Store,
    keep_going: Callable[[], bool],
    may_take: Callable[[float], AbstractContextManager[None]],
) -> Iterator[float]:
    """Vacuums the database and truncates its WAL; yields the seconds to wait before a retry."""
    seconds = CLEAN_S_MIN + store.size_bytes / CLEAN_BYTES_PER_S_MIN
    _log.info("vacuuming the database, so that no remains are left in it: events wait")
    done = False
    while not done:
        with may_take(seconds):
            done = store.vacuum(keep_going)
        if not done:
            yield CLEAN_AGAIN_S
    while True:
        with may_take(seconds):
            truncated = store.truncate_wal()
        if truncated:
            return
        yield CLEAN_AGAIN_S


def preview(connection: Connection, user: str) -> dict[str, int]:
    """Counts what would be erased: `events`, `redacted` events of others, and excerpts in
    `quarantine`.
    """
    marks = " OR ".join("instr(props, ?)" for _ in mentions.MARKS)
    (events,) = connection.execute(
        "SELECT coalesce(sum(events), 0) FROM rollup_day WHERE user = ?", (user,)
    ).fetchone()
    rows = connection.execute(
        f"SELECT id, props FROM event WHERE user IS NOT ? AND ({marks})",  # noqa: S608 - question marks only
        (user, *mentions.MARKS),
    )
    redacted = sum(1 for _ in _redacted(rows, user.__eq__))
    (excerpts,) = connection.execute(
        "SELECT count(*) FROM quarantine WHERE excerpt <> x'' OR instr(reason, ':')"
    ).fetchone()
    return {"events": events, "redacted": redacted, "quarantine": excerpts}
