"""Runs the jobs in the database, one bounded step at a time.

The daemon calls `step` between its steps; a command calls it when no daemon runs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from logd.clock.readings import JUMP_MIN_NS
from logd.errors import ClockRefused, StorageBusy
from logd.maintenance.event_removal import Steps
from logd.maintenance.forget import Arrivals, Surroundings, clean, forget, request_reforget
from logd.maintenance.prune import prune
from logd.storage import erasure_list, job_table
from logd.storage.boundaries import complete_forgets
from logd.storage.database import DatabaseError
from logd.storage.job_table import Job
from logd.storage.store import Store
from logd.storage.trail_clock import TrailClock, clock_refusal
from logd.storage.tree import NotKept

# Seconds that one call of `step` works at most, unless a single statement takes longer.
STEP_S = 0.02
RETRY_S = 5.0
_NEVER_S = float("inf")
_NO_MORE_PRUNED = "no event was pruned, or no more of them"
# The errors that occur when a job reads values that the daemon never writes.
_CHANGED = (TypeError, ValueError, AttributeError, LookupError, OverflowError, NotKept)

_log = logging.getLogger("logd")

# A function called with the most seconds that an indivisible operation can take.
MayTake = Callable[[float], contextlib.AbstractContextManager[None]]


class Worker:
    """Runs the jobs of one open store.

    `outboxes` is the outboxes' directory, which a forget surveys. A vacuum runs inside `may_take`,
    and calls `keep_going` at intervals: on False it is cancelled, and retried later.
    """

    def __init__(
        self,
        store: Store,
        list_file: Path,
        clock: TrailClock | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        keep_going: Callable[[], bool] = lambda: True,
        may_take: MayTake = lambda _seconds: contextlib.nullcontext(),
        outboxes: Path | None = None,
    ) -> None:
        self._store = store
        self._list_file = list_file
        self.outboxes = outboxes
        self._arrivals: Arrivals | None = None
        self._arrived: Callable[[], bool] | None = None
        self._clock = clock or TrailClock(store)
        self._clock_ns = self._clock.now_ns
        self._monotonic_s = monotonic_s
        self._keep_going = keep_going
        self._may_take = may_take
        self._steps = Steps(store, self._clock_ns)
        self._job: Job | None = None
        self._work: Iterator[float | None] | None = None
        self.due_s = _NEVER_S  # monotonic time of the next step; infinite without a job
        self._apply_list()
        self.poll()

    @property
    def is_busy(self) -> bool:
        """Whether there is a job to do."""
        return self._job is not None

    def attach_daemon(self, arrivals: Arrivals) -> None:
        """Attaches the worker to a daemon; `arrivals` waits for what the daemon has received."""
        self._arrivals = arrivals

    def _complete_forgets(self) -> None:
        """Completes forgets that ran without a daemon, once the input queued then is committed."""
        if self._arrivals is None or not self._store.erasure_list.boundaries.has_incomplete:
            return
        if self._arrived is None:
            self._arrived = self._arrivals()
        elif self._arrived():
            self._arrived = None
            self._store.transact(
                lambda connection, _: complete_forgets(connection), self._clock_ns()
            )
            self._store.reload_erasure_list()

    def _apply_list(self) -> None:
        """Adds a job for persons in the list beside the database who are not in the database."""
        store, known = self._store, self._store.erasure_list.entries
        listed = erasure_list.read_file(self._list_file)
        missing = {token: at for token, at in listed.items() if known.get(token, -1) < at}
        if missing:
            now_ns = self._clock_ns()

            def work(connection: Any, _batch: object) -> None:
                erasure_list.save(connection, missing)
                request_reforget(connection, missing, store.next_event, now_ns)

            store.transact(work, now_ns)
            store.erasure_list.add(missing)
        if known:
            erasure_list.merge_file(self._list_file, known)

    def poll(self) -> None:
        """Finds the next job; events that are only to be recorded are stored at once."""
        try:
            self._clock.record_reading()
            job = job_table.next_job(self._store.connection)
            while job is not None and job.kind == job_table.RECORD:
                self._finish(job, record=job.params)
                job = job_table.next_job(self._store.connection)
            self._complete_forgets()
        except StorageBusy:
            return  # the database is busy: the next poll retries
        except DatabaseError as error:
            raise self._store.problem(error) from error
        if self._job is None:
            self._job = job
            self.due_s = _NEVER_S if job is None else self._monotonic_s()

    def step(self) -> None:
        """Works for about STEP_S seconds at most, then rests for as long.

        Raises a LogdError that ends the process; after a temporary one the job is retried.
        """
        started_s = now_s = self._monotonic_s()
        wait_s: float | None = None
        try:
            while self._job is not None and wait_s is None and now_s - started_s < STEP_S / 4:
                wait_s = self._step(self._job)
                now_s = self._monotonic_s()
        except (StorageBusy, DatabaseError) as problem:
            self._wait_for(problem)
            wait_s = RETRY_S
        except ClockRefused as problem:
            self._stop(problem)
        except _CHANGED as problem:
            self._fail(problem)
        if self._job is None:
            self.poll()
        if self._job is not None:
            self.due_s = now_s + (now_s - started_s if wait_s is None else wait_s)

    def _step(self, job: Job) -> float | None:
        if self._work is None:
            _log.info("job %d, %s: %s", job.id, job.kind, job.phase)
            job.trouble = None
            self._work = self._begin(job)
        try:
            return next(self._work)
        except StopIteration:
            self._work = self._job = None
            return None

    def _begin(self, job: Job) -> Iterator[float | None]:
        store = self._store
        if job.kind == job_table.FORGET and job.phase == job_table.CLEAN:
            yield from clean(store, self._keep_going, self._may_take)
            store.transact(
                lambda connection, _: job_table.finish_cleaned(connection, self._clock_ns()),
                self._clock_ns(),
            )
        elif job.kind == job_table.FORGET:
            surroundings = Surroundings(self._list_file, self.outboxes, self._arrivals)
            yield from forget(job, store, self._steps, surroundings)
        else:
            start = self._clock.check(_NO_MORE_PRUNED)
            if job.asked_ns > start.wall_ns + JUMP_MIN_NS:
                raise clock_refusal(
                    _NO_MORE_PRUNED, "the clock has gone back since this was asked for"
                )
            for _ in prune(job, store, self._steps):
                yield None
                self._clock.check_from(start, _NO_MORE_PRUNED)
            self._finish(job)

    def _finish(
        self, job: Job, record: Mapping[str, Any] | None = None, trouble: str | None = None
    ) -> None:
        now_ns = self._clock_ns()
        job.finished_ns, job.params, job.trouble = now_ns, {}, trouble

        def work(connection: Any, batch: Any) -> None:
            if record is not None:
                self._store.append_internal_event(batch, record["type"], record["props"], now_ns)
            job.save(connection)

        self._store.transact(work, now_ns)

    def _wait_for(self, error: Exception) -> None:
        """Postpones the job after a temporary error; it resumes from its stored state."""
        assert self._job is not None
        problem = error if isinstance(error, StorageBusy) else self._store.problem(error)
        logged, self._work = self._job.trouble, None
        try:
            self._job = job_table.read_job(self._store.connection, self._job.id)
        except DatabaseError as other:
            raise self._store.problem(other) from other
        if self._job is not None and logged != str(problem):
            _log.warning("job %d, %s: waits: %s", self._job.id, self._job.kind, problem)
            self._job.trouble = str(problem)
            # If the database is busy, the job waits for that anyway.
            with contextlib.suppress(StorageBusy):
                self._store.transact(lambda connection, _: self._save(connection), self._clock_ns())

    def _save(self, connection: Any) -> None:
        assert self._job is not None
        self._job.save(connection)

    def _stop(self, problem: ClockRefused) -> None:
        """Stops the job for good; what it did stays done, and the next prune continues."""
        assert self._job is not None
        job, self._job, self._work = self._job, None, None
        job.phase = job_table.STOPPED
        _log.error("job %d, %s: stopped: %s", job.id, job.kind, problem)
        self._finish(job, trouble=str(problem))

    def _fail(self, problem: Exception) -> None:
        """Marks the job as failed: stored data was changed, so a retry would fail as well."""
        assert self._job is not None
        job, self._job, self._work = self._job, None, None
        what = f"failed: stored data was changed ({type(problem).__name__}); see logd verify"
        _log.error("job %d, %s: %s", job.id, job.kind, what)
        self._finish(job, trouble=what)
