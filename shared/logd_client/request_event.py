"""The event for one request, as the WSGI and ASGI middlewares log it.

It is logged before the last part of the answer is handed to the server: whoever has received a
whole answer is in the trail, even if the worker is killed next.
"""

from __future__ import annotations

import fnmatch
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from logd_client.client import Client
from logd_wire.requests import REQUEST_FAILED, request_type
from logd_wire.schema import type_name

METHOD_CHARS_MAX = 32
ROUTE_CHARS_MAX = 256
_WITHOUT_BODY = frozenset({204, 304})

# Narrow on purpose: the header comes from outside and ends up in the trail.
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# A WSGI environ or an ASGI scope, and what the application reads from it.
Source = Mapping[str, Any]
ReadSource = Callable[[Any], Any]


class RequestLog:
    """What a middleware was told to log of requests; it holds no state of a process or a request.

    The application's callables run without a lock, once a request. An exception of theirs costs no
    answer and no event: the event has its type's name, as `user_error` or `route_error`.
    """

    def __init__(
        self,
        client: Client,
        *,
        user: ReadSource,
        route: ReadSource | None = None,
        exclude: Iterable[str] = (),
        anonymous: bool = False,
    ) -> None:
        if isinstance(exclude, str):
            raise TypeError("exclude: expected a list of patterns for paths, not a single text")
        self._client = client
        self._user = user
        self._route = route
        self._exclude = tuple(exclude)
        self._anonymous = anonymous

    def includes(self, path: str) -> bool:
        """Whether requests for that path are logged."""
        return not any(fnmatch.fnmatchcase(path, pattern) for pattern in self._exclude)

    def log(self, event: RequestEvent, status: int, error: BaseException | None) -> None:
        """Logs the event of a request that was answered, or failed with `error`."""
        props: dict[str, Any] = {
            "method": event.method[:METHOD_CHARS_MAX],
            "status": status,
            "duration_ms": round((time.perf_counter() - event.started_s) * 1e3, 3),
            "request_id": event.request_id,
        }
        user = _call("user", self._user, event.source, props)
        route = event.path
        # The path is logged only if no `route` function is given, since a path may hold a secret.
        if self._route is not None:
            route = _call("route", self._route, event.source, props)
        if isinstance(route, str) and len(route) > ROUTE_CHARS_MAX:
            route = route[: ROUTE_CHARS_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"
        props["route"] = route
        if user is None and not self._anonymous and "user_error" not in props:
            return
        event_type = request_type(event.method, status)
        if error is not None:
            event_type, props["exception"] = REQUEST_FAILED, type_name(type(error))
        self._client.emit(event_type, user=user, props=props)


class RequestEvent:
    """One request: what is known of its answer so far, until its event is logged, once."""

    __slots__ = (
        "_left", "_log", "_logged", "_status",
        "method", "path", "request_id", "source", "started_s",
    )  # fmt: skip

    def __init__(
        self, log: RequestLog, source: Source, method: str, path: str, request_id: str | None
    ) -> None:
        self._log = log
        self._logged = False
        self._status = 0  # of the answer, once it has started
        self._left: int | None = None  # bytes of the body that follow, where that is known
        self.source = source
        self.method = method
        self.path = path
        self.request_id = valid_request_id(request_id)
        self.started_s = time.perf_counter()

    def start(self, status: int, content_length: str | None) -> None:
        """Records the head of the answer; a later one replaces it."""
        self._status = status
        self._left = None
        if self.method == "HEAD" or status in _WITHOUT_BODY:
            self._left = 0
        elif content_length is not None and content_length.isdecimal():
            self._left = int(content_length[:20])

    def send(self, size: int) -> None:
        """Called before a part of the body is sent; the last one completes the answer."""
        if self._left is not None:
            self._left -= size
            if self._left <= 0:
                self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        """Logs the event unless it is logged already. An answer that never started is a failure."""
        if not self._logged:
            self._logged = True
            self._log.log(self, self._status or 500, error)


def valid_request_id(given: str | None) -> str:
    """Returns the request id that a header gives, or a new one if that is not valid."""
    return given if given is not None and _VALID_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _call(name: str, read: ReadSource, source: Source, props: dict[str, Any]) -> Any:
    try:
        return read(source)
    except Exception as error:  # noqa: BLE001 - an answer must not fail for what is logged of it
        props[f"{name}_error"] = type_name(type(error))
        return None
