"""Runs a job for a command: in the instance's running daemon, or else in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from logd.config.settings import Config
from logd.errors import AlreadyRunning, ClockRefused, LogdError, NoDatabase, StorageBusy
from logd.instance_lock import instance_lock, read_lock_page
from logd.maintenance import rekey
from logd.maintenance.worker import Worker
from logd.storage import erasure_list, job_table, keyfile
from logd.storage.database import Connection
from logd.storage.job_table import Job
from logd.storage.opening import (
    check_database,
    open_for_events,
    open_for_writing,
    opened_store,
)

POLL_INTERVAL_S = 0.1
# Seconds for the service manager to restart a killed daemon. Until then the lock is left to it.
DAEMON_COMES_BACK_S = 15.0
# Seconds that a daemon may take to record an event, beyond look_interval_ms, its interval for jobs.
RECORDED_LATE_S = 20.0
RECORD_INTERVAL_S = 0.01

# A function called with the job as it progresses.
OnProgress = Callable[[Job], None]


class JobFailed(LogdError):
    """A job cannot be done."""

    exit_code = 70


def run_job(
    config: Config,
    kind: str,
    params: Mapping[str, Any],
    on_progress: OnProgress = lambda _job: None,
) -> Job:
    """Submits a job and returns it when it is done. Raises a LogdError.

    If the command is interrupted, the daemon continues the job, now or at its next start.
    """
    if not config.database.exists():
        check_database(config, read_lock_page(config.lock_file)[1].made)
        raise NoDatabase(f"{config.database}: no database here yet, so there is nothing to do.")
    job_id: int | None = None
    while True:
        try:
            with instance_lock(config.lock_file) as lock:
                check_database(config, lock.database_made)
                return _run_here(config, kind, params, job_id, on_progress)
        except AlreadyRunning:
            if job_id is None:
                job_id = _submit(config, kind, params)
            job = _wait(config, job_id, on_progress)
            if job is not None:
                return job


def complete_record(config: Config, job_id: int) -> None:
    """Returns once the event of a RECORD job is in the trail.

    The daemon stores it, or this process if none runs. Raises StorageBusy if the daemon does not
    store it in time, and other LogdErrors.
    """
    within_s = RECORDED_LATE_S + config.look_interval_ms / 1000
    end_s = time.monotonic() + within_s
    with closing(open_for_events(config)) as connection:
        while _read_progress(connection, job_id, _ignore).finished_ns is None:
            if time.monotonic() >= end_s:
                raise StorageBusy(
                    f"the daemon stored no record of it within {within_s:.0f} s: see `logd status`,"
                    " and try again later."
                )
            with contextlib.suppress(AlreadyRunning), instance_lock(config.lock_file) as lock:
                check_database(config, lock.database_made)
                _run_here(config, job_table.RECORD, {}, job_id, _ignore)
            time.sleep(RECORD_INTERVAL_S)


def _ignore(_job: Job) -> None:
    pass


def _run_here(
    config: Config,
    kind: str,
    params: Mapping[str, Any],
    job_id: int | None,
    on_progress: OnProgress,
) -> Job:
    """Runs the job in this process, which holds the instance's lock."""
    key = keyfile.read(config.key_file)
    rekey.complete_rekey(config, key)
    with opened_store(config, key, time.time_ns()) as store:
        connection = store.connection
        if job_id is None:
            job_id = job_table.add_job(connection, kind, params, time.time_ns())
        list_file = erasure_list.file_beside(config.database)
        worker = Worker(store, list_file, outboxes=config.outbox_directory)
        while (job := _read_progress(connection, job_id, on_progress)).finished_ns is None:
            if job.trouble is not None:
                time.sleep(max(0.0, worker.due_s - time.monotonic()))
            worker.step()
    return job


def _submit(config: Config, kind: str, params: Mapping[str, Any]) -> int:
    """Adds the job to the database for the daemon, in a short transaction; returns its id."""
    with open_for_writing(config) as connection:
        return job_table.add_job(connection, kind, params, time.time_ns())


def _wait(config: Config, job_id: int, on_progress: OnProgress) -> Job | None:
    """Returns the job when it is done; None if the daemon has ended and does not start again."""
    seen_s = time.monotonic()
    with closing(open_for_events(config)) as connection:
        while (job := _read_progress(connection, job_id, on_progress)).finished_ns is None:
            if read_lock_page(config.lock_file)[0] is not None:
                seen_s = time.monotonic()
            elif time.monotonic() >= seen_s + DAEMON_COMES_BACK_S:
                return None
            time.sleep(POLL_INTERVAL_S)
    return job


def _read_progress(connection: Connection, job_id: int, on_progress: OnProgress) -> Job:
    job = job_table.read_job(connection, job_id)
    if job is None:
        raise JobFailed(f"job {job_id} does not exist any more: was the database replaced?")
    on_progress(job)
    if job.phase == job_table.STOPPED:
        raise ClockRefused(job.trouble)
    if job.finished_ns is not None and job.trouble is not None:
        raise JobFailed(f"job {job_id} {job.trouble}")
    return job
