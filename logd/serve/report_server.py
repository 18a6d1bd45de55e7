"""The report process: answers named reports on a Unix stream socket; read-only.

It is a process of its own, so that a heavy report does not slow receiving and committing. Its
standard input is a socket, the lifeline: over it this process has the daemon store an event for
each reading of persons. When the daemon ends, the kernel closes the daemon's end, and this process
ends.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from logd import instance_lock, log_format
from logd.config import settings as configuration
from logd.config.settings import Config
from logd.errors import EXIT_UNAVAILABLE, LogdError
from logd.log_limit import ThrottledLog
from logd.reports.context import Context
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.serve.access_events import access_events
from logd.serve.access_requests import AccessRequests
from logd.serve.request_server import Credentials, RequestServer
from logd.serve.signals import ignore_other_signals
from logd.storage.database import DatabaseError, connect, is_interrupt, translate
from logd.storage.keyfile import read as read_key
from logd.storage.mentions import PersonKeys
from logd.storage.migrations import check_not_newer
from logd_wire.query import (
    QUERY_VERSION,
    REQUEST_BYTES_MAX,
    FrameError,
    QueryError,
    encode_frame,
    frame_end,
    read_frame,
)
from logd_wire.schema import Malformed, check_user

SEATS_MAX = 128
# How many reports run at a time, each with an answer of up to 8 MiB.
# One user may run two while no other user sends requests.
RUNNING_MAX = 4
# At nice 10 this process gets a tenth of the daemon's share of the processor;
# its priority on the disk follows from that (ioprio_set(2)).
NICENESS = 10
# Seconds that a report may run: as long as the site's pages wait for it.
REPORT_TIMEOUT_S = 2.0
PROGRESS_STEPS = 10_000

_log = logging.getLogger("logd.reports")


class RecordAccess(Protocol):
    """A function that stores an event with each of the properties, for the user who reads.

    It returns False if that is not possible.
    """

    def __call__(self, user: str | None, /, *events: Mapping[str, Any]) -> bool: ...


class Reporter:
    """Answers named reports, each with a database connection of its own."""

    def __init__(self, config: Config, key: bytes, record_access: RecordAccess) -> None:
        self._config = config
        self._key = key
        self._allowed_uids = {os.geteuid(), 0, *config.query_uids}
        self._allowed_gid = configuration.query_gid(config)
        self._throttled = ThrottledLog(_log)
        self._record_access = record_access
        self._person_keys = PersonKeys(config.person_keys)

    def serve(self, listener: socket.socket, lifeline: AccessRequests) -> None:
        """Serves connections until the daemon closes the lifeline."""
        server = RequestServer(
            listener,
            _Queries(self),
            seats_max=SEATS_MAX,
            running_max=RUNNING_MAX,
            publish=lambda readers: instance_lock.publish_readers(self._config.lock_file, readers),
        )
        server.serve(lifeline.fileno(), lifeline.take_answers)

    def deny(self, peer: Credentials) -> bytes | None:
        """Returns the error frame for a peer that may not read reports; None for one that may."""
        if peer.uid in self._allowed_uids or self._allowed_gid in peer.gids:
            return None
        return _error_frame(
            "forbidden",
            f"user id {peer.uid} may not read reports: logd.toml's query_uids and query_group name "
            "those who may",
        )

    def answer(self, request: dict[str, Any], uid: int, pid: int) -> bytes:
        """Returns the response frame to one request; `uid` and `pid` are the peer's."""
        try:
            return self._answer(request, uid, pid)
        except QueryError as error:
            return _error_frame(error.code, str(error))
        except FrameError as error:
            return _error_frame("too_large", f"{error}: ask for fewer rows")
        except DatabaseError as error:
            if is_interrupt(error):
                return _error_frame(
                    "too_slow", f"stopped after {REPORT_TIMEOUT_S:.0f} s: narrow the query"
                )
            problem = translate(error, self._config.database)
            self._throttled.warning("report %r: %s", request.get("report"), problem, user=uid)
            return _error_frame("database", str(problem))
        except LogdError as error:
            return _error_frame("database", str(error))

    def _answer(self, request: dict[str, Any], uid: int, pid: int) -> bytes:
        if request.get("v") != QUERY_VERSION:
            raise QueryError("other_version", f"this daemon speaks query version {QUERY_VERSION}")
        name, params = request.get("report"), request.get("params", {})
        report = REPORTS.get(name) if isinstance(name, str) else None
        if report is None:
            raise QueryError("unknown_report", f"reports are: {', '.join(sorted(REPORTS))}")
        if not isinstance(params, dict):
            raise QueryError("bad_parameter", "params: expected a map")
        try:
            asked_by = check_user(request.get("asked_by"))
        except Malformed as error:
            raise QueryError("bad_parameter", f"asked_by: {error}") from error
        connection = connect(self._config.database, self._key, read_only=True)
        deadline_s = time.monotonic() + REPORT_TIMEOUT_S
        connection.set_progress_handler(lambda: time.monotonic() > deadline_s, PROGRESS_STEPS)
        try:
            # One transaction is used, so that the answer
            # and the persons in it are of the same moment.
            connection.execute("BEGIN")
            answer = report.run(connection, Parameters(params, Context(self._config)))
            concerned = report.concern and report.concern(
                connection, params, answer, self._person_keys.persons
            )
        finally:
            connection.close()  # this ends the transaction before the answer is sent
        if concerned is not None:
            events = access_events(str(name), params, concerned, uid=uid, pid=pid)
            if not self._record_access(asked_by, *events):
                # A report is refused if its reading cannot be recorded.
                raise QueryError("unavailable", "the access to this report cannot be recorded now")
        return encode_frame({"ok": True, "rows": answer.rows, "next": answer.next})


class _Queries:
    """The query protocol for a `RequestServer`: each request is a frame."""

    def __init__(self, reporter: Reporter) -> None:
        self.deny = reporter.deny
        self._reporter = reporter

    def take_request(self, received: bytearray, *, ended: bool) -> bytes | None:
        end = frame_end(received, REQUEST_BYTES_MAX)
        if end is None:
            if not ended or not received:
                return None
            end = len(received)
        frame = bytes(received[:end])
        del received[:end]
        return frame

    def answer(self, request: bytes, credentials: Credentials) -> tuple[bytes, bool]:
        try:
            message = read_frame(io.BytesIO(request).read, REQUEST_BYTES_MAX)
        except FrameError as error:
            return _error_frame("bad_request", str(error)), False
        assert message is not None
        return self._reporter.answer(message, credentials.uid, credentials.pid), True

    def error(self, code: str, message: str) -> bytes:
        return _error_frame(code, message)


def _error_frame(code: str, message: str) -> bytes:
    return encode_frame({"ok": False, "error": code, "message": message})


def _lower_priority() -> None:
    """Lowers the priority, since reports run in C, without the GIL, and compete with the daemon."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    except OSError as error:
        _log.warning("reports run at the daemon's own priority: setpriority: %s", error.strerror)


def main(config: Config, listener_fd: int) -> None:
    """Runs the report process. The listener is inherited; standard input is the lifeline."""
    _lower_priority()
    key = read_key(config.key_file)
    connection = connect(config.database, key, read_only=True)
    check_not_newer(connection)
    connection.close()
    listener = socket.socket(fileno=listener_fd)
    with contextlib.ExitStack() as stack:
        if config.metrics is not None:
            from logd.serve import (
                metrics_server,  # imported only if metrics are on: its library takes memory
            )

            stack.enter_context(metrics_server.serving(config))
        requests = AccessRequests(socket.socket(fileno=sys.stdin.fileno()))
        Reporter(config, key, requests.record).serve(listener, requests)


def _run(listener_fd: str, config_file: str) -> None:
    ignore_other_signals()  # only the daemon acts on signals, for both processes
    log_format.log_to_stderr("reports: ")
    try:
        main(configuration.load(config_file), int(listener_fd))
    except LogdError as error:
        _log.warning("%s", error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_UNAVAILABLE)


if __name__ == "__main__":
    # `logd run` starts this module:
    # without the command line's imports that takes a third less time.
    _run(*sys.argv[1:])
