"""A WSGI middleware that logs requests, for any framework and server.

    application = LogdMiddleware(application, client, user=lambda environ: environ["logd.user"])

A list, a tuple or a file that the application returns reaches the server as it is, so that
`sendfile` and a counted Content-Length still work; any other body is iterated and closed as the
server asks for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from logd_client.client import Client
from logd_client.request_event import ROUTE_CHARS_MAX, ReadSource, RequestEvent, RequestLog

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_WHOLE = (list, tuple, io.IOBase)


class LogdMiddleware:
    """Logs the requests to a WSGI application through `client`, which it may share with others.

    `user` is called with the environ when the answer is complete, and returns the user's id, or
    None. Without a user a request is logged only with `anonymous`. `route` returns which page it
    was, by default the path without the query; name it where a path may hold a secret. Requests for
    a path that matches a pattern in `exclude` ("/static/*") are not logged.
    """

    def __init__(
        self,
        application: Application,
        client: Client,
        *,
        user: ReadSource,
        route: ReadSource | None = None,
        exclude: Iterable[str] = (),
        anonymous: bool = False,
    ) -> None:
        self._application = application
        self._log = RequestLog(
            client, user=user, route=route, exclude=exclude, anonymous=anonymous
        )  # fmt: skip

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = _decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
        if not self._log.includes(path):
            return self._application(environ, start_response)
        event = RequestEvent(
            self._log,
            environ,
            environ.get("REQUEST_METHOD", ""),
            path,
            environ.get("HTTP_X_REQUEST_ID"),
        )

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[..., Any]:
            write = start_response(status, headers, *error)
            event.start(_number(status), _content_length(headers))

            def send(data: bytes) -> Any:
                event.send(len(data))
                return write(data)

            return send

        try:
            body = self._application(environ, start)
        except BaseException as error:
            event.finish(error)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, _WHOLE) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            event.finish()
            return body
        return _Body(body, event)


class _Body:
    """A body of which each part is counted before it is sent."""

    def __init__(self, body: Iterable[bytes], event: RequestEvent) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._event = event

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            part = next(self._parts)
        except StopIteration:
            self._event.finish()
            raise
        except BaseException as error:
            self._event.finish(error)
            raise
        self._event.send(len(part))
        return part

    def close(self) -> None:
        """Called by the server at the end, also if the visitor has left before it."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._event.finish()


def _decoded(path: str) -> str:
    """Returns the path as text; WSGI has its bytes as characters. Cut before it is decoded."""
    return path[: 4 * ROUTE_CHARS_MAX].encode("latin-1", "replace").decode("utf-8", "replace")


def _number(status: str) -> int:
    return int(status[:3]) if status[:3].isdecimal() else 500


def _content_length(headers: list[tuple[str, str]]) -> str | None:
    return next((value for name, value in headers if name.lower() == "content-length"), None)
