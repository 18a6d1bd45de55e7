"""A client that keeps its events, and fakes of what calls a middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

from logd_client import Client
from logd_client.asgi import LogdMiddleware as Asgi
from logd_client.wsgi import LogdMiddleware as Wsgi

Environ = dict[str, Any]


class Recorded:
    """In place of a client: keeps what is emitted, and when it was in the order of `happened`."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, dict[str, Any]]] = []
        self.happened: list[str] = []

    def emit(self, event_type: str, *, user: Any, props: dict[str, Any], **_: Any) -> bool:
        self.events.append((event_type, user, props))
        self.happened.append("logged")
        return True

    @property
    def as_client(self) -> Client:
        return cast(Client, self)


def who(source: Any) -> Any:
    """The user that the application has left in the environ or scope."""
    return source.get("who")


class WsgiServer:
    """Calls a WSGI application as a server does, and notes what it has sent."""

    def __init__(self, app: Callable[..., Iterable[bytes]], **options: Any) -> None:
        self.client = Recorded()
        self.app = Wsgi(app, self.client.as_client, **{"user": who, **options})
        self.body: Any = None

    def ask(self, path: str = "/lessons/3", parts: int = 100, **environ: Any) -> bytes:
        """Asks for a path, reads at most that many parts, and closes the body."""
        sent: list[bytes] = []

        def write(data: bytes) -> None:
            self.client.happened.append("sent")
            sent.append(data)

        def start_response(status: str, headers: Any, *error: Any) -> Callable[..., Any]:
            self.client.happened.append(status)
            return write

        base = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "who": "7"}
        self.body = self.app({**base, **environ}, start_response)
        try:
            for number, part in enumerate(self.body):
                if number == parts:
                    break
                write(part)
        finally:
            if hasattr(self.body, "close"):
                self.body.close()
        return b"".join(sent)


class AsgiServer:
    """Calls an ASGI application as a server does, and notes what it has sent."""

    def __init__(self, app: Any, leaves: bool = False, **options: Any) -> None:
        self._leaves = leaves  # the visitor, before the body
        self.client = Recorded()
        self.app = Asgi(app, self.client.as_client, **{"user": who, **options})

    def ask(self, path: str = "/lessons/3", kind: str = "http", **scope: Any) -> list[Any]:
        """Asks for a path; returns the messages that were sent."""
        messages: list[Any] = []

        async def send(message: Any) -> None:
            if self._leaves and message["type"] == "http.response.body":
                raise OSError("the visitor has left")
            self.client.happened.append(message["type"].removeprefix("http.response."))
            messages.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        base = {"type": kind, "method": "GET", "path": path, "headers": [], "who": "7"}
        asyncio.run(self.app({**base, **scope}, receive, send))
        return messages
