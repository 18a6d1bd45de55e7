"""The job `forget`: erases a person's events, with roll-ups and mentions of that person.

It first records the person, as a token, and each producer's boundary (`logd.storage.boundaries`),
so that events made earlier are erased when they arrive later. In the end the file is vacuumed
(`clean`): SQLite overwrites what it deletes, but moving rows between pages leaves copies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from logd.batch import PERSON_ERASED
from logd.maintenance.event_removal import STEP_TARGET_S, Steps
from logd.maintenance.outbox_survey import survey
from logd.maintenance.subject_rollups import SubjectRecount
from logd.storage import erasure_list, event_types, job_table, stored_users, wal
from logd.storage.boundaries import SurveyedOutboxes
from logd.storage.database import Connection, question_marks
from logd.storage.job_table import Job
from logd.storage.mentions import PersonKeys, Value
from logd.storage.removal_log import ERASED
from logd.storage.senders import Person, Senders
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.schema import SUBJECTS, Malformed

_log = logging.getLogger("logd")

PROGRESS_INTERVAL_S = 0.5
ARRIVALS_LOOK_S = 0.005
CLEAN_AGAIN_S = 0.5
# How long a vacuum may take: seconds at least, and bytes per second of a slow disk.
CLEAN_S_MIN, CLEAN_BYTES_PER_S_MIN = 120.0, 2_000_000
_READ_ROWS = 1000
_READ_BYTES = 4 * 1024 * 1024
_QUARANTINE_ROWS = 500
_WINDOW_MIN, _WINDOW_MAX = 500, 20_000

Arrivals = Callable[[], Callable[[], bool]]
# Returns whether a value in an event from a sender (a uid) names a person to erase.
IsErased = Callable[[Value, int], bool]


def job_params(person: Person, person_keys: Sequence[str]) -> dict[str, Any]:
    """Returns the parameters of a job that forgets a person, given the keys that name persons."""
    params: dict[str, Any] = {"users": [person.user], "keys": list(person_keys)}
    if person.uids is not None:
        params |= {"users": [], "pairs": [[person.user, uid] for uid in person.uids]}
    return params


def request_reforget(
    connection: Connection, entries: erasure_list.Entries, bound: int, now_ns: int
) -> int:
    """Adds a job that erases persons again from a restored database. Returns its id.

    The persons are known by their tokens only. All their events below `bound` are erased.
    """
    params = {"users": [], "tokens": list(entries), "bound": bound}
    return job_table.add_job(connection, job_table.FORGET, params, now_ns)


@dataclass(frozen=True)
class Surroundings:
    """What a forget uses beside the database: the list of forgotten persons, and the outboxes.

    `arrivals` returns a check that is true once all input that has reached the daemon up to now is
    committed; it is None without a daemon.
    """

    list_file: Path
    outboxes: Path | None = None
    arrivals: Arrivals | None = None


def forget(
    job: Job, store: Store, steps: Steps, surroundings: Surroundings
) -> Iterator[float | None]:
    """Does a bounded step at each `next`; after a crash a phase resumes where it stopped."""
    # The daemon may not have reloaded logd.toml since
    # the job was added, and must find late events too.
    store.person_keys = store.person_keys.extended(job.params.get("keys", ()))
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

    Events that arrive later are erased by the list; stored events to erase have ids below `bound`.

    Events made during this step may count as before or after the forget.
    """
    until_ns = job.asked_ns
    tokens = {store.erasure_list.token(*person): until_ns for person in _persons(job)}
    # `bound` is there already if a kill came between the transaction and the writing of the list.
    if "bound" not in job.params:
        # If a restored backup has this job unfinished, and the list beside the database has
        # it as done, the list has already added a job that erases again (`request_reforget`).
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
    """Surveys the outboxes, once all input that was on its way to the daemon is committed."""
    arrivals = surroundings.arrivals
    if arrivals is not None:
        arrived = arrivals()
        while not arrived():
            yield ARRIVALS_LOOK_S
    if surroundings.outboxes is None:
        return SurveyedOutboxes()
    return (yield from survey(surroundings.outboxes, store.connection, known=arrivals is not None))


def _persons(job: Job) -> Iterator[tuple[str, int | None]]:
    """Yields the persons to erase, as user and the sender's uid; None stands for all senders."""
    for user in job.params["users"]:
        yield user, None
    for user, uid in job.params.get("pairs", ()):
        yield user, uid


def _find_names(
    job: Job, store: Store, _steps: Steps, _surroundings: Surroundings
) -> Iterator[None]:
    """Finds the users in this database that the job's tokens stand for.

    They are persons of a restored list, and other spellings of each person.
    """
    token, wanted = store.erasure_list.token, set(job.params["tokens"])
    found = dict.fromkeys(_persons(job))
    uids = {uid for _, uid in found if uid is not None}
    unknown = wanted - {token(*person) for person in found}
    if unknown:  # unknown tokens are of a list, and their persons may be of any sender
        rows = store.connection.execute("SELECT DISTINCT uid FROM producer").fetchall()
        uids |= {uid for (uid,) in rows}

    @lru_cache(1000)
    def named(user: str) -> list[tuple[str, int | None]]:
        tokens: dict[bytes, int | None] = dict.fromkeys(store.erasure_list.tokens(user))
        tokens |= {token(user, uid): uid for uid in uids}
        return [(user, uid) for one, uid in tokens.items() if one in wanted]

    for page in stored_users.pages(store.connection, stored_users.PAGE_ROWS // (len(uids) + 3) + 1):
        # Only the users wanted are kept in memory.
        for user in page:
            found |= dict.fromkeys(named(user))
        yield
    job.params["users"] = [user for user, uid in found if uid is None]
    job.params["pairs"] = [[user, uid] for user, uid in found if uid is not None]
    unknown -= {token(*person) for person in found}
    # Excerpts in quarantine have no user. All are erased,
    # unless every person is of certain senders: then only excerpts from these.
    every = unknown or job.params["users"]
    senders = {uid for _, uid in found if uid is not None}
    job.params["quarantine"] = None if every else sorted(senders)


def _events(job: Job, store: Store, steps: Steps, _surroundings: Surroundings) -> Iterator[None]:
    connection, bound = store.connection, job.params["bound"]
    by_subject = event_types.find(connection, list(SUBJECTS))
    for user, uid in _persons(job):
        goes = _until(connection, bound, uid)
        for name, type_id in by_subject.items():
            more = True
            while more:
                recount = SubjectRecount(name, type_id, user, goes)
                while not recount.read(connection, _READ_ROWS):
                    yield
                more = bool(recount.ids)
                while gone := recount.ids[: steps.events_max]:
                    job.add("events", len(gone))
                    steps.remove(ERASED, (), {recount: gone}, job.save, job=job.id)
                    yield
        yield from _plain_events(job, user, uid, list(by_subject.values()), store, steps)


def _until(connection: Connection, bound: int, uid: int | None) -> Callable[[int, int], bool]:
    """Returns a check whether an event is below `bound` and its sender is `uid` (None: any)."""
    if uid is None:
        return lambda event_id, _: event_id < bound
    sent = "SELECT 1 FROM event e JOIN producer p ON p.id = e.producer WHERE e.id = ? AND p.uid = ?"
    return lambda event_id, _: (
        event_id < bound and connection.execute(sent, (event_id, uid)).fetchone() is not None
    )


def _plain_events(
    job: Job, user: str, uid: int | None, but_types: list[int], store: Store, steps: Steps
) -> Iterator[None]:
    senders, position = Senders(store.connection), 0
    but = question_marks(but_types)
    while rows := store.connection.execute(
        "SELECT e.id, e.producer, e.type, iif(e.type = ?, e.props, x'')"  # noqa: S608 - question marks only
        " FROM event_block b CROSS JOIN event e INDEXED BY event_user"
        f" ON (e.id >> {BLOCK_BITS}) = +b.block"
        f" WHERE b.block >= ? >> {BLOCK_BITS} AND e.user = ? AND e.type NOT IN ({but})"
        " AND e.id > ? AND e.id < ? ORDER BY b.block, e.id LIMIT ?",
        (senders.reading_type, position, user, *but_types, position)
        + (job.params["bound"], steps.events_max),
    ).fetchall():
        position = rows[-1][0]
        ids = [row[0] for row in rows if uid is None or senders.find(*row[1:]) == uid]
        job.done = position
        if ids:
            job.add("events", len(ids))
            steps.remove(ERASED, ids, {}, job.save, job=job.id)
        yield


def _mentions(job: Job, store: Store, steps: Steps, _surroundings: Surroundings) -> Iterator[None]:
    """Redacts mentions; reads the properties of all events, since no index has them."""
    connection, bound = store.connection, job.params["bound"]
    wanted = frozenset(job.params["tokens"])

    @lru_cache(10_000)
    def is_erased(name: Value, uid: int) -> bool:
        return not wanted.isdisjoint(store.erasure_list.tokens(name, uid))

    listed = job.params.get("keys")
    keys = store.person_keys if listed is None else PersonKeys(listed)
    senders = Senders(connection)
    window, saved_s = _WINDOW_MIN, time.monotonic()
    while job.position < bound:
        started_s, end = time.thread_time(), min(bound, job.position + window)
        contents, end = _redact(
            connection, job.position, end, keys, senders, is_erased, steps.events_max
        )
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


def _redact(
    connection: Connection,
    after: int,
    end: int,
    keys: PersonKeys,
    senders: Senders,
    is_erased: IsErased,
    events_max: int,
) -> tuple[dict[int, bytes], int]:
    """Returns the redacted properties by event id, and the last id read.

    It reads events after the id `after` up to `end`, and may stop earlier: the bytes read in a step
    are bounded, and so is the number of events redacted.
    """
    contents: dict[int, bytes] = {}
    rows, size = connection.cursor(), 0
    rows.execute(
        "SELECT id, producer, type, props FROM event WHERE id > ? AND id <= ? ORDER BY id",
        (after, end),
    )
    for event_id, producer, type_id, props in rows:
        size += len(props)
        if keys.may_name(props):
            uid = senders.find(producer, type_id, props)
            less = _less(keys, props, lambda name, uid=uid: is_erased(name, uid))  # type: ignore[misc] # a lambda's default
            if less is not None:
                contents[event_id] = less
                size += len(less)
        if size > _READ_BYTES or len(contents) >= events_max:
            end = event_id
            break
    rows.close()
    return contents, end


def _less(keys: PersonKeys, props: bytes, is_person: Callable[[Value], bool]) -> bytes | None:
    try:
        return keys.redact(props, is_person)
    except Malformed:
        return None  # Invalid properties are left as they are: `verify` reports them.


def _quarantine(
    job: Job, store: Store, steps: Steps, _surroundings: Surroundings
) -> Iterator[None]:
    """Erases excerpts and what reasons quote, since it is unknown whose data they are."""
    (last,) = store.connection.execute("SELECT coalesce(max(id), 0) FROM quarantine").fetchone()
    of, uids = _quarantine_of(job.params.get("quarantine"))
    while job.position < last:
        first, job.position = job.position, min(last, job.position + _QUARANTINE_ROWS)

        def work(connection: Connection, _batch: object, first: int = first) -> None:
            changed = connection.execute(
                "UPDATE quarantine SET excerpt = x'',"  # noqa: S608 - question marks only
                " reason = substr(reason, 1, instr(reason || ':', ':') - 1)"
                f" WHERE id > ? AND id <= ? AND (excerpt <> x'' OR instr(reason, ':')) AND {of}",
                (first, job.position, *uids),
            )
            job.add("quarantine", changed.rowcount)
            job.save(connection)

        store.transact(work, steps.now_ns(), flush=False)
        yield


def _quarantine_of(uids: Sequence[int] | None) -> tuple[str, Sequence[int]]:
    """Returns the SQL condition for rows from these senders (None: all), and its values."""
    return ("1", ()) if uids is None else (f"uid IN ({question_marks(uids)})", uids)


_PHASES = {
    "write down": _write_down,
    "find names": _find_names,
    "events": _events,
    "mentions": _mentions,
    "quarantine": _quarantine,
}


def _record_done(job: Job, store: Store, now_ns: int) -> None:
    """Deletes the person's name from the job, and records the forget.

    A vacuum remains to be done.
    """
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
    """Vacuums the database and truncates the WAL; yields the seconds to wait before a retry."""
    seconds = CLEAN_S_MIN + wal.database_bytes(store.connection) / CLEAN_BYTES_PER_S_MIN
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
