"""An ASGI middleware that logs requests, for any framework and server.

    app = LogdMiddleware(app, client, user=lambda scope: scope.get("user_id"))

Messages reach the server unchanged and as soon as they are sent. Websockets and the lifespan are
passed through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from logd_client.client import Client
from logd_client.request_event import ReadSource, RequestEvent, RequestLog

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_START = "http.response.start"
_BODY = "http.response.body"
# Extensions by which a server sends a file for the application: the message is the whole body.
_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class LogdMiddleware:
    """Logs the requests to an ASGI application through `client`, which it may share with others.

    `user` is called with the scope when the answer is complete, and returns the user's id, or None.
    Without a user a request is logged only with `anonymous`. `route` returns which page it was, by
    default the path without the query; name it where a path may hold a secret. Both run in the
    event loop: they read what is there, and wait for nothing. Requests for a path that matches a
    pattern in `exclude` ("/static/*") are not logged.
    """

    def __init__(
        self,
        app: Application,
        client: Client,
        *,
        user: ReadSource,
        route: ReadSource | None = None,
        exclude: Iterable[str] = (),
        anonymous: bool = False,
    ) -> None:
        self._app = app
        self._log = RequestLog(
            client, user=user, route=route, exclude=exclude, anonymous=anonymous
        )  # fmt: skip

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._log.includes(scope["path"]):
            await self._app(scope, receive, send)
            return
        event = RequestEvent(
            self._log,
            scope,
            scope["method"],
            scope["path"],
            _header(scope["headers"], b"x-request-id"),
        )

        async def sending(message: Message) -> None:
            kind = message["type"]
            if kind == _START:
                length = _header(message.get("headers", ()), b"content-length")
                event.start(message["status"], length)
            elif kind in _FILES or (kind == _BODY and not message.get("more_body", False)):
                event.finish()
            elif kind == _BODY:
                event.send(len(message.get("body", b"")))
            try:
                await send(message)
            except Exception:  # the visitor has left: no failure of the application
                event.finish()
                raise

        try:
            await self._app(scope, receive, sending)
        except BaseException as error:
            event.finish(error)
            raise
        event.finish()


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    if not isinstance(headers, list | tuple):  # an iterator can be read once, by whom it is for
        return None
    found = (value for key, value in headers if key.lower() == name)
    value = next(found, None)
    return None if value is None else value.decode("latin-1")
