"""The query protocol: named reports over a Unix stream socket, and its client.

A frame is a 4-byte big-endian length and that many bytes of msgpack. One request frame is answered
by one response frame; a connection may carry any number of requests. There is no SQL on this wire:
a report has a name and parameters, and the daemon's report process decides what it reads.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgpack

from logd_wire.causes import why_no_answer
from logd_wire.circuit_breaker import CircuitBreaker, Wait
from logd_wire.paths import check_socket_path
from logd_wire.schema import check_user
from logd_wire.wire import check_whole

QUERY_VERSION = 1
REQUEST_BYTES_MAX = 64 * 1024
RESPONSE_BYTES_MAX = 8 * 1024 * 1024
ROWS_MAX = 1000
TEXTS_MAX = 1000  # the most texts in one list of a request; a longer list takes several requests
# Bytes of the texts in one list: two such lists and the other fields fit into REQUEST_BYTES_MAX.
TEXTS_BYTES_MAX = 24 * 1024

# Of a client with a circuit breaker: how many requests of a process wait on while logd is silent,
# which part of the timeout the others and the probes wait, and the seconds between probes.
SILENT_WAITERS = 1
PATIENCE_PART = 1 / 4
PROBE_PART = 1 / 2
PROBE_FIRST_S = 0.5
PROBE_INTERVAL_MAX_S = 2.0
# Seconds between two looks at the breaker while a request waits for its answer.
_LOOK_INTERVAL_S = 0.05

_LENGTH = struct.Struct("!I")
_TIMEVAL = struct.Struct("@ll")

Row = dict[str, Any]


class QueryError(Exception):
    """The daemon refused a report.

    `code` says whether its name, a parameter or the peer was wrong.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(QueryError):
    """No answer came: the daemon is not running, restarting, or slower than the timeout.

    Or it was not asked, or not waited for, because it has not answered for a while.
    """

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class FrameError(ValueError):
    """The bytes are not a frame of this protocol: too long, cut short, or not a msgpack map."""


@dataclass(frozen=True)
class Answer:
    """The rows of one page, and the key to request the next page with (None: this was the last).

    The key is to be passed unchanged: a number, a text, or a list of texts. The reports of events
    also say up to which time they were searched, and why a single event is not there.
    """

    rows: list[Row] = field(default_factory=list)
    next: Any = None
    searched_to_ns: int | None = None
    removed: str | None = None


def encode_frame(message: dict[str, Any], bytes_max: int = RESPONSE_BYTES_MAX) -> bytes:
    """Encodes one frame. Raises FrameError when it would be longer than a reader accepts."""
    body: bytes = msgpack.packb(message)
    if len(body) > bytes_max:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {bytes_max}")
    return _LENGTH.pack(len(body)) + body


def frame_end(received: bytes | bytearray, bytes_max: int) -> int | None:
    """Returns the end of the first frame in the bytes, or None if the frame is not complete.

    For a frame over the limit it returns the end of its length field, from which `read_frame`
    refuses it.
    """
    if len(received) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(received)
    if length > bytes_max:
        return _LENGTH.size
    end = _LENGTH.size + int(length)
    return end if len(received) >= end else None


def read_frame(read: Callable[[int], bytes], bytes_max: int) -> dict[str, Any] | None:
    """Reads one frame with `read(n) -> up to n bytes` (b"" at the end of the stream).

    Returns None when the stream ends between two frames. Raises FrameError on anything that is not
    a frame of at most `bytes_max` bytes.
    """
    head = _read_exactly(read, _LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise FrameError("the stream ended inside a frame's length")
    (length,) = _LENGTH.unpack(head)
    if length > bytes_max:
        raise FrameError(f"a frame of {length} bytes is over the limit of {bytes_max}")
    body = _read_exactly(read, length)
    if len(body) < length:
        raise FrameError(f"the stream ended after {len(body)} of {length} bytes of a frame")
    try:
        check_whole(body)
        message = msgpack.unpackb(body, strict_map_key=True)
    except (ValueError, TypeError, RecursionError) as error:
        # msgpack's own errors derive from ValueError; TypeError is an unhashable key.
        raise FrameError(f"a frame that is not msgpack: {error}") from error
    if not isinstance(message, dict):
        raise FrameError(f"a frame holds a map, not {type(message).__name__}")
    return message


def _read_exactly(read: Callable[[int], bytes], length: int) -> bytes:
    parts: list[bytes] = []
    missing = length
    while missing:
        part = read(missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def text_parts(texts: Iterable[str]) -> list[list[str]]:
    """Divides texts into lists that each fit into a request; each text is in one of them.

    The lists are about equally long, so that the last one does not single out a few persons.
    Without texts the result is one empty list, since a report without a list would be about all
    users.
    """
    every = list(dict.fromkeys(texts))
    # In msgpack, the length before each text takes up to 3 bytes.
    bytes_max = max((len(text.encode()) for text in every), default=0) + 3
    texts_max = max(1, min(TEXTS_MAX, TEXTS_BYTES_MAX // bytes_max))
    parts = -(-len(every) // texts_max) or 1
    bounds = [len(every) * number // parts for number in range(parts + 1)]
    return [every[start:end] for start, end in pairwise(bounds)]


class QueryClient:
    """Requests reports from the daemon. Holds no connection and no key; threads may share it.

    `timeout_s` (seconds) bounds request and answer together, however slow either is, so that a page
    with a chart answers even while the daemon does not. With a `breaker`, which the clients of a
    process share, a daemon that hangs does not hold all threads of a server: see
    `breaker_of_reports`.
    """

    def __init__(
        self, socket_path: str, timeout_s: float = 2.0, breaker: CircuitBreaker | None = None
    ) -> None:
        check_socket_path(socket_path)
        self.socket_path = socket_path
        self.timeout_s = timeout_s
        self._breaker = breaker

    def ask(self, report: str, *, asked_by: str | None = None, **params: Any) -> Answer:
        """Requests one page of one report.

        `asked_by` is the person on whose behalf the report is read: each reading of a report about
        persons is itself an event in the trail, and carries it. Raises Unavailable when no answer
        came, and QueryError when the report was refused, also because `asked_by` is not a valid
        user.
        """
        try:
            asked_by = check_user(asked_by)
            (asked_by or "").encode()
        except ValueError as error:  # invalid as a user, or not valid Unicode
            raise QueryError("bad_parameter", f"asked_by: {error}") from error
        request = {
            "v": QUERY_VERSION,
            "report": report,
            "asked_by": asked_by,
            "params": {name: value for name, value in params.items() if value is not None},
        }
        try:
            frame = encode_frame(request, REQUEST_BYTES_MAX)
        except FrameError as error:
            raise QueryError("bad_request", f"{error}: use shorter lists") from error
        try:
            response = self._exchange(frame)
        except (OSError, FrameError) as error:
            raise Unavailable(why_no_answer(error, self.socket_path)) from error
        if response is None:
            raise Unavailable(f"logd closed the connection at {self.socket_path} without an answer")
        if response.get("ok") is not True:
            raise QueryError(
                str(response.get("error", "unknown")),
                str(response.get("message", "refused without a reason")),
            )
        return Answer(
            response.get("rows", []),
            response.get("next"),
            response.get("searched_to_ns"),
            response.get("removed"),
        )

    def _exchange(self, frame: bytes) -> dict[str, Any] | None:
        """Sends a request and returns its response, unless the breaker ends the wait."""
        begun_s = time.monotonic()
        timeout_s = self.timeout_s
        wait = Wait(begun_s + timeout_s, timeout_s * PATIENCE_PART, timeout_s * PROBE_PART)
        # A breaker of its own lets a request wait for its whole timeout.
        breaker = self._breaker or breaker_of_reports()
        try:
            if not breaker.begin(wait, begun_s):
                raise _not_waited_for()
            response = self._send_and_receive(frame, wait, breaker)
            ended_s = time.monotonic()
            # A report about persons that cannot be recorded is refused only after a while.
            refused = response is not None and response.get("error") == "unavailable"
            if refused and ended_s - begun_s >= wait.patience_s:
                breaker.timed_out(wait, ended_s)
            else:
                breaker.moved()
            return response
        except TimeoutError:
            if not wait.skipped:
                breaker.timed_out(wait, time.monotonic())
            raise
        except (OSError, FrameError):
            breaker.moved()  # the error came at once: whoever asks again does not wait for it
            raise
        finally:
            breaker.end(wait)

    def _send_and_receive(
        self, frame: bytes, wait: Wait, breaker: CircuitBreaker
    ) -> dict[str, Any] | None:
        deadline_s = wait.until_s

        def receive(length: int) -> bytes:
            while True:
                if breaker.must_end(wait, time.monotonic()):
                    raise _not_waited_for()
                sock.settimeout(min(_left(deadline_s), _LOOK_INTERVAL_S))
                with contextlib.suppress(TimeoutError):
                    return sock.recv(length)

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            _connect(sock, self.socket_path, self.timeout_s)
            sock.settimeout(_left(deadline_s))
            # The daemon may refuse before it has read everything; its answer has the reason.
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(frame)
            return read_frame(receive, RESPONSE_BYTES_MAX)


def breaker_of_reports() -> CircuitBreaker:
    """Returns a circuit breaker for the clients of one process.

    While no answer comes at all, one request waits for its timeout, and the others for a quarter of
    it. After a timeout the next ones raise Unavailable at once, except for one at a time, at
    intervals of 2 seconds at most; any answer ends that.
    """
    return CircuitBreaker(SILENT_WAITERS, PROBE_FIRST_S, PROBE_INTERVAL_MAX_S)


def _not_waited_for() -> TimeoutError:
    return TimeoutError("it has not answered lately, and others are waiting for it already")


def _connect(sock: socket.socket, path: str, timeout_s: float) -> None:
    """Connects, and waits for a place in the listener's queue.

    With Python's own timeout, a full queue would be an error at once.
    """
    seconds, fraction = divmod(timeout_s, 1)
    wait = _TIMEVAL.pack(int(seconds), int(fraction * 1e6) + 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
    try:
        sock.connect(path)
    except BlockingIOError as error:
        raise TimeoutError("timed out, with too many others in front") from error


def _left(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s
