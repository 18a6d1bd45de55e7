"""Shares a verification among processes, each with its own snapshot of the same state.

SQLite cannot pass a snapshot to another process. But every change of the trail adds a batch, so
snapshots with the same last batch are of the same state: all processes begin together, again and
again until they agree.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from logd.audit.child import CONTEXT, start_process
from logd.audit.recomputed import KEY_BYTES, Recomputed, attached, temporary_directory
from logd.audit.verify_batches import BatchesCheck, BatchRange, Progress, RangeResult
from logd.audit.verify_sequences import Disorder, Sequences
from logd.errors import DatabaseCorrupt, LogdError, NotChecked
from logd.storage.database import Connection, DatabaseError, connect, damage

# SQLite attaches up to ten files to a connection.
PROCESSES_MAX = 8
# Starting a process takes about as long as verifying this many events.
EVENTS_PER_PROCESS_MIN = 50_000
ATTEMPTS = 200
ATTEMPT_PAUSE_S = 0.005
PROGRESS_EVENTS = 20_000


@dataclass(frozen=True)
class HelperResult:
    """The result of a helper for its range; its sums are in the attached `schema`.

    If `failure` names damage that ended the check, the sums are not complete.
    """

    checked: RangeResult
    disorder: Disorder
    schema: str
    failure: str | None


def process_count(wanted: int | None, events: int) -> int:
    """Returns how many processes to use for `events`: at most `wanted`, or one per core."""
    cores = wanted or len(os.sched_getaffinity(0))
    return max(1, min(cores, PROCESSES_MAX, events // EVENTS_PER_PROCESS_MIN))


class Helpers:
    """The processes that each check a range of batches; `running` starts and ends them."""

    def __init__(self, path: Path, key: bytes, immutable: bool, count: int, place: Path) -> None:
        self._files = [
            (place / f"helper{n}", os.urandom(KEY_BYTES), f"helper{n}") for n in range(count)
        ]
        self._attached = contextlib.ExitStack()
        self._pipes: list[Pipe] = []
        self._processes: list[Any] = []
        for file, file_key, _schema in self._files:
            ours, theirs = CONTEXT.Pipe()
            process = start_process(_help, theirs, path, key, immutable, file, file_key)
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def close(self) -> None:
        """Ends the helper processes."""
        for process in self._processes:
            process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()

    @contextmanager
    def in_one_moment(self, connection: Connection) -> Iterator[None]:
        """Reads the database as it is now in a `with` block, in all processes.

        Raises NotChecked if the processes cannot see the same state.
        """
        try:
            self._begin_together(connection)
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._attached.close()

    def _begin_together(self, connection: Connection) -> None:
        for _ in range(ATTEMPTS):
            for pipe in self._pipes:
                self._send(pipe, "begin")
            mine = _begin(connection)
            theirs = [self._receive(pipe) for pipe in self._pipes]
            if all(state == mine for state in theirs):
                return
            connection.execute("ROLLBACK")
            for pipe in self._pipes:
                self._send(pipe, "end")
            time.sleep(ATTEMPT_PAUSE_S)
        raise NotChecked(
            f"not checked: {len(self._pipes)} processes never read the same state, so often is"
            " something stored. Use one: --processes 1."
        )

    def start(self, connection: Connection, upto: int) -> None:
        """Makes the helpers check all batches up to `upto`. Raises DatabaseError."""
        for pipe, part in zip(
            self._pipes, _ranges(connection, upto, len(self._pipes)), strict=True
        ):
            self._send(pipe, part)

    def results(self, connection: Connection, progress: Progress) -> Iterator[HelperResult]:
        """Yields the helpers' results in the order of the batches, with their tables attached.

        Raises NotChecked if a process could not check its range.
        """
        there: dict[int, Any] = {}
        waiting = dict(zip(self._pipes, range(len(self._pipes)), strict=True))
        for n, file in enumerate(self._files):
            while n not in there:
                for pipe in wait(list(waiting)):
                    assert isinstance(pipe, Pipe)
                    got = self._receive(pipe)
                    if type(got) is int:
                        progress(got)
                    else:
                        there[waiting.pop(pipe)] = got
            checked, disorder, failure = there.pop(n)
            if failure is None:
                self._attached.enter_context(_attached_now(connection, *file))
            yield HelperResult(checked, disorder, file[2], failure)

    def _send(self, pipe: Pipe, what: object) -> None:
        # If the process has ended, its next answer is missing too, and that is reported.
        with contextlib.suppress(OSError):
            pipe.send(what)

    def _receive(self, pipe: Pipe) -> Any:
        try:
            got = pipe.recv()
        except (OSError, EOFError) as error:
            raise NotChecked(
                "not checked: a process of the verification was ended (too little memory?)."
                " Try again, or use one process: --processes 1."
            ) from error
        if isinstance(got, LogdError):
            raise got
        return got


@contextmanager
def running(path: Path, key: bytes, immutable: bool, count: int) -> Iterator[Helpers | None]:
    """Gives the helpers for the database at `path`; None if one process is to do everything."""
    if count == 1:
        yield None
        return
    with temporary_directory() as place:
        try:
            helpers = Helpers(path, key, immutable, count, place)
        except OSError as error:
            raise NotChecked(
                f"not checked: no process can be started ({error}). Use one: --processes 1."
            ) from error
        with closing(helpers):
            yield helpers


@contextmanager
def _attached_now(connection: Connection, file: Path, key: bytes, schema: str) -> Iterator[None]:
    connection.execute(f"ATTACH ? AS {schema} KEY ?", (str(file), f"x'{key.hex()}'"))
    try:
        # A small cache is enough for tables that are read once, in order.
        connection.execute(f"PRAGMA {schema}.cache_size = -1000")
        yield
    finally:
        connection.execute(f"DETACH {schema}")


def _ranges(connection: Connection, upto: int, count: int) -> Iterator[BatchRange]:
    """Yields as many ranges of batches as `count`, with about as many events each."""
    row = connection.execute("SELECT first_event FROM batch WHERE id = ?", (upto,)).fetchone()
    after = 0
    for n in range(1, count + 1):
        end = upto
        if n < count and row is not None:
            found = connection.execute(
                "SELECT id FROM batch WHERE first_event <= ? ORDER BY first_event DESC LIMIT 1",
                (int(row[0]) * n // count,),
            ).fetchone()
            end = min(upto, max(after, found[0] if found else 0))
        yield BatchRange(after, end)
        after = end


def _begin(connection: Connection) -> tuple[Any, ...]:
    """Begins a transaction; returns the last batch, which identifies the state that it reads."""
    connection.execute("BEGIN")
    row = connection.execute("SELECT id, hash FROM batch ORDER BY id DESC LIMIT 1").fetchone()
    return tuple(row or ())


def _help(pipe: Pipe, path: Path, key: bytes, immutable: bool, file: Path, file_key: bytes) -> None:
    """Runs in a helper process: checks the range that the parent sends, and sends the result."""
    answer: object
    try:
        answer = _follow(pipe, path, key, immutable, file, file_key)
    except (EOFError, OSError):
        return  # the parent process has ended, so no answer is sent
    except LogdError as error:
        answer = error if isinstance(error, DatabaseCorrupt) else NotChecked(str(error))
    except DatabaseError as error:
        answer = _as_logd_error(error)
    except Exception as error:  # noqa: BLE001 - the parent reports it
        answer = LogdError(
            f"internal error in a process of the verification: {type(error).__name__}: {error}."
            " Please report it."
        )
    with contextlib.suppress(OSError):
        pipe.send(answer)


def _as_logd_error(error: Exception) -> LogdError:
    try:
        return DatabaseCorrupt(f"cannot be read: {damage(error)}")
    except NotChecked as problem:
        return problem


def _follow(
    pipe: Pipe, path: Path, key: bytes, immutable: bool, file: Path, file_key: bytes
) -> object:
    """Begins transactions until the parent sends a range; checks it and returns the result.

    Raises EOFError if the parent closes the pipe.
    """
    with (
        closing(connect(path, key, read_only=True, immutable=immutable)) as connection,
        attached(connection, file, file_key),
    ):
        part = None
        while not isinstance(part, BatchRange):
            if part is not None:
                connection.execute("ROLLBACK")
            pipe.recv()
            pipe.send(_begin(connection))
            part = pipe.recv()
        answer = _check(connection, part, pipe)
        connection.execute("COMMIT")
    return answer  # the result is returned once the file of tables is complete and closed


def _check(
    connection: Connection, part: BatchRange, pipe: Pipe
) -> tuple[RangeResult, Disorder, str | None]:
    waiting = 0

    def progress(events: int) -> None:
        nonlocal waiting
        waiting += events
        if waiting >= PROGRESS_EVENTS:
            pipe.send(waiting)
            waiting = 0

    sequences = Sequences(connection)
    check = BatchesCheck(connection, sequences, Recomputed(connection).add, progress)
    failure = None
    try:
        check.check(part)
        sequences.flush()
    except DatabaseError as error:
        failure = str(damage(error))
    pipe.send(waiting)
    return check.result, sequences.disorder, failure
