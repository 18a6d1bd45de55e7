"""Has a job done for a command: by the daemon that serves the instance, or here without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from logd.config.settings import Config
from logd.errors import AlreadyRunning, ClockRefused, LogdError, NoDatabase
from logd.instance_lock import instance_lock, read_lock_page
from logd.maintenance import rekey as rekeying
from logd.maintenance.worker import Worker
from logd.storage import erasure_list, job_table, keyfile
from logd.storage.database import Connection, DatabaseError, connect, translate
from logd.storage.job_table import Job
from logd.storage.migrations import check_not_newer, check_not_older
from logd.storage.opening import check_database, open_for_events
from logd.storage.store import Store

LOOK_INTERVAL_S = 0.1
# A daemon that was killed is started again by its manager: it is not to find the lock taken.
DAEMON_COMES_BACK_S = 15.0

# Told of the job as it goes on.
Tell = Callable[[Job], None]


class GivenUp(LogdError):
    """A job cannot be done. The message says why."""

    exit_code = 70


def carry_out(
    config: Config, kind: str, params: Mapping[str, Any], tell: Tell = lambda _job: None
) -> Job:
    """Asks for a job and returns it when it is done. Raises LogdError kinds.

    Who stops waiting stops nothing: the daemon goes on with it, now or at its next start.
    """
    if not config.database.exists():
        check_database(config, read_lock_page(config.lock_file)[1].made)
        raise NoDatabase(f"{config.database}: no database here yet, so there is nothing to do.")
    job_id: int | None = None
    while True:
        try:
            with instance_lock(config.lock_file) as lock:
                check_database(config, lock.database_made)
                return _alone(config, kind, params, job_id, tell)
        except AlreadyRunning:
            if job_id is None:
                job_id = _ask(config, kind, params)
            job = _wait(config, job_id, tell)
            if job is not None:
                return job


def _alone(
    config: Config, kind: str, params: Mapping[str, Any], job_id: int | None, tell: Tell
) -> Job:
    """With the instance's lock: the daemon's steps, without the daemon."""
    key = keyfile.read(config.key_file)
    rekeying.finish(config, key)
    store = Store(
        config.database,
        key,
        time.time_ns(),
        config.quarantine_rows_max,
        config.cache_bytes_max,
    )
    try:
        connection = store.connection
        if job_id is None:
            job_id = job_table.ask(connection, kind, params, time.time_ns())
        list_file = erasure_list.file_beside(config.database)
        worker = Worker(store, list_file, outboxes=config.outbox_directory)
        while (job := _look(connection, job_id, tell)).finished_ns is None:
            if job.trouble is not None:
                time.sleep(max(0.0, worker.due_s - time.monotonic()))
            worker.step()
    finally:
        store.close()
    return job


def _ask(config: Config, kind: str, params: Mapping[str, Any]) -> int:
    """Leaves the job to the daemon, in a short transaction beside it."""
    connection = connect(config.database, keyfile.read(config.key_file))
    try:
        check_not_newer(connection)
        check_not_older(connection)
        return job_table.ask(connection, kind, params, time.time_ns())
    except DatabaseError as error:
        raise translate(error, config.database) from error
    finally:
        connection.close()


def _wait(config: Config, job_id: int, tell: Tell) -> Job | None:
    """The job when it is done; None when the daemon has gone and does not come back."""
    connection = open_for_events(config)
    seen_s = time.monotonic()
    try:
        while (job := _look(connection, job_id, tell)).finished_ns is None:
            if read_lock_page(config.lock_file)[0] is not None:
                seen_s = time.monotonic()
            elif time.monotonic() >= seen_s + DAEMON_COMES_BACK_S:
                return None
            time.sleep(LOOK_INTERVAL_S)
    finally:
        connection.close()
    return job


def _look(connection: Connection, job_id: int, tell: Tell) -> Job:
    job = job_table.read(connection, job_id)
    if job is None:
        raise GivenUp(f"job {job_id} is not there any more: was another database put in place?")
    tell(job)
    if job.phase == job_table.STOPPED:
        raise ClockRefused(job.trouble)
    if job.finished_ns is not None and job.trouble is not None:
        raise GivenUp(f"job {job_id} was {job.trouble}")
    return job
