"""The report process: answers named reports on a Unix stream socket, and reads only.

A process of its own, so that a heavy report takes nothing from receiving and committing. It ends
when its standard input does: the daemon holds the other end, and the kernel closes it whatever
happens to the daemon.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from logd import config as configuration
from logd import journal
from logd.config import Config
from logd.database import DatabaseError, connect, is_interrupt, translate
from logd.errors import EXIT_UNAVAILABLE, LogdError
from logd.keyfile import read as read_key
from logd.log_limit import LimitedLog
from logd.migrations import check_not_newer
from logd.reports import REPORTS, Parameters
from shared.client import Client
from shared.query import (
    QUERY_VERSION,
    REQUEST_BYTES_MAX,
    FrameError,
    QueryError,
    encode_frame,
    read_frame,
)
from shared.schema import Malformed, check_user

CONNECTIONS_MAX = 32
PEER_TIMEOUT_S = 5.0
FORBIDDEN_TIMEOUT_S = 0.5
PARAMETER_CHARS_MAX = 200
# A page of the site waits no longer than this either.
REPORT_TIMEOUT_S = 2.0
PROGRESS_STEPS = 10_000
SO_PEERGROUPS = 59  # not in Python's socket module; the same on every common architecture
GROUPS_BYTES_MAX = 1024  # as much as Python reads of an option: 256 groups
_UCRED = struct.Struct("iII")

_log = logging.getLogger("logd.reports")


class Reporter:
    """Serves connections, each in a thread with a database connection of its own."""

    def __init__(self, config: Config, key: bytes) -> None:
        self._config = config
        self._key = key
        self._allowed_uids = {os.geteuid(), 0, *config.query_uids}
        self._allowed_gid = configuration.query_gid(config)
        self._seats = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._limited_log, self._log_lock = LimitedLog(_log), threading.Lock()
        # Small: it keeps who read what, and only while the daemon is busy.
        self._client = Client(str(config.socket), outbox_bytes=1024 * 1024)

    def serve(self, listener: socket.socket, lifeline_fd: int) -> None:
        """Accepts until the lifeline ends."""
        listener.setblocking(True)
        while True:
            readable, _, _ = select.select([listener.fileno(), lifeline_fd], [], [])
            if lifeline_fd in readable and not os.read(lifeline_fd, 1):
                return
            if listener.fileno() in readable:
                peer, _address = listener.accept()
                if self._seats.acquire(blocking=False):
                    threading.Thread(target=self._converse, args=(peer,), daemon=True).start()
                else:
                    _send_off(peer, "busy", f"{CONNECTIONS_MAX} others are being answered")

    def _converse(self, peer: socket.socket) -> None:
        try:
            with peer, contextlib.suppress(OSError):
                peer.settimeout(PEER_TIMEOUT_S)
                credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
                pid, uid, gid = _UCRED.unpack(credentials)
                if uid not in self._allowed_uids and (
                    self._allowed_gid not in {gid, *_supplementary_groups(peer)}
                ):
                    peer.settimeout(FORBIDDEN_TIMEOUT_S)
                    peer.recv(REQUEST_BYTES_MAX)  # so that it is there to hear the answer
                    _send_off(
                        peer,
                        "forbidden",
                        f"user id {uid} may not read reports: who may is in logd.toml's "
                        "query_uids and query_group",
                    )
                    return
                while True:
                    try:
                        request = read_frame(_until(peer, PEER_TIMEOUT_S), REQUEST_BYTES_MAX)
                    except FrameError as error:
                        peer.sendall(_refusal("bad_request", str(error)))
                        return
                    if request is None:
                        return
                    peer.sendall(self.answer(request, uid, pid))
        finally:
            self._seats.release()

    def answer(self, request: dict[str, Any], uid: int, pid: int) -> bytes:
        """The response frame to one request of the peer that the kernel names."""
        try:
            return self._answer(request, uid, pid)
        except QueryError as error:
            return _refusal(error.code, str(error))
        except FrameError as error:
            return _refusal("too_large", f"{error}: ask for fewer rows")
        except DatabaseError as error:
            if is_interrupt(error):
                return _refusal(
                    "too_slow", f"stopped after {REPORT_TIMEOUT_S:.0f} s: narrow the question"
                )
            problem = translate(error, self._config.database)
            self._warn("report %r: %s", request.get("report"), problem, user=uid)
            return _refusal("database", str(problem))
        except LogdError as error:
            return _refusal("database", str(error))

    def _warn(self, message: str, *args: object, user: int | None = None) -> None:
        with self._log_lock:
            self._limited_log.warning(time.monotonic(), message, *args, user=user)

    def log_mistake(self, mistake: threading.ExceptHookArgs) -> None:
        """What a request has made of a thread, in place of a traceback for each."""
        if mistake.exc_value is not None:
            trace = "".join(traceback.format_exception(mistake.exc_value))
            self._warn("a mistake in logd itself ended an answer: %s", trace)

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
            answer = report.run(connection, Parameters(params))
        finally:
            connection.close()  # and with it the transaction, before the answer is on its way
        if report.names_persons:
            written = self._client.emit(
                "report_read",
                user=asked_by,
                props={"report": name, "params": _short(params), "peer_uid": uid, "peer_pid": pid},
            )
            if not written:
                # Who reads about persons is in the trail, or does not read.
                raise QueryError("unavailable", "the trail cannot take this reading just now")
        return encode_frame({"ok": True, "rows": answer.rows, "next": answer.next})


def _supplementary_groups(peer: socket.socket) -> tuple[int, ...]:
    """Group ids that the peer had, beside its own, when it connected: the kernel's word."""
    try:
        packed = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES_MAX)
    except OSError:  # more groups than that: none of them counts
        return ()
    return struct.unpack(f"{len(packed) // 4}I", packed)


def _short(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters for the trail: long lists by their length, long texts by their beginning."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value] if len(value) <= 5 else f"{len(value)} of them"
        return value[:PARAMETER_CHARS_MAX] if isinstance(value, str) else value

    return {name: short(value) for name, value in params.items()}


def _until(peer: socket.socket, timeout_s: float) -> Callable[[int], bytes]:
    """`recv` with one deadline for everything read by it, however slowly it trickles in."""
    deadline_s = time.monotonic() + timeout_s

    def read(length: int) -> bytes:
        peer.settimeout(max(0.001, deadline_s - time.monotonic()))
        return peer.recv(length)

    return read


def _send_off(peer: socket.socket, code: str, message: str) -> None:
    with peer, contextlib.suppress(OSError):
        peer.settimeout(0.1)
        peer.sendall(_refusal(code, message))


def _refusal(code: str, message: str) -> bytes:
    return encode_frame({"ok": False, "error": code, "message": message})


def main(config: Config, listener_fd: int) -> None:
    """Runs in the child process. The listener is inherited, the lifeline is standard input."""
    key = read_key(config.key_file)
    connection = connect(config.database, key, read_only=True)
    check_not_newer(connection)
    connection.close()
    listener = socket.socket(fileno=listener_fd)
    with contextlib.ExitStack() as stack:
        if config.metrics is not None:
            from logd import exporter  # its library, and memory for it, only where it is asked for

            stack.enter_context(exporter.serving(config))
        reporter = Reporter(config, key)
        threading.excepthook = reporter.log_mistake
        reporter.serve(listener, sys.stdin.fileno())


def _run(listener_fd: str, config_file: str) -> None:
    journal.log_to_stderr("reports: ")
    try:
        main(configuration.load(config_file), int(listener_fd))
    except LogdError as error:
        _log.warning("%s", error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_UNAVAILABLE)


if __name__ == "__main__":
    # By `logd run`, not by people: without the command line it starts in two thirds of the time.
    _run(*sys.argv[1:])
