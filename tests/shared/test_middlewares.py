"""The WSGI and ASGI middlewares: one event a request, before its answer is complete."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from logd_client import Client
from logd_client.wsgi import LogdMiddleware
from tests.shared.recorded import AsgiServer, WsgiServer, who
from tests.support.instance import Instance, check_sums

OK = "200 OK"


def answering(body: Any, status: str = OK, headers: Any = (), **options: Any) -> WsgiServer:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return body() if callable(body) else body

    return WsgiServer(app, **options)


def parts(*given: Any) -> Callable[[], Iterator[bytes]]:
    def body() -> Iterator[bytes]:
        for part in given:
            if isinstance(part, BaseException):
                raise part
            yield part

    return body


def messages(*given: Any, status: int = 200, length: int | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [] if length is None else [(b"Content-Length", b"%d" % length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in given:
            if isinstance(part, BaseException):
                raise part
            await send(part)

    return app


def body(data: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


# -- the event -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("GET", 200, "page_view"),
        ("GET", 304, "page_view"),
        ("POST", 200, "request_answered"),
        ("GET", 302, "request_redirected"),
        ("GET", 403, "request_refused"),
        ("GET", 500, "request_failed"),
    ],
)
def test_a_request_is_one_event_of_the_type_that_its_answer_says(
    method: str, status: int, expected: str
) -> None:
    wsgi = answering([b"x"], f"{status} Words")
    wsgi.ask(REQUEST_METHOD=method, HTTP_X_REQUEST_ID="r-1")
    asgi = AsgiServer(messages(body(b"x", False), status=status))
    asgi.ask(method=method, headers=[(b"x-request-id", b"r-1")])
    for server in (wsgi, asgi):
        ((event_type, user, props),) = server.client.events
        assert (event_type, user) == (expected, "7")
        assert props.pop("duration_ms") >= 0
        assert props == {
            "method": method, "status": status, "route": "/lessons/3", "request_id": "r-1",
        }  # fmt: skip


def test_without_a_user_only_with_anonymous_and_never_what_is_excluded() -> None:
    for server in (answering([b"x"], exclude=["/static/*"]),
                   AsgiServer(messages(body(b"x", False)), exclude=["/static/*"])):  # fmt: skip
        server.ask(who=None)
        server.ask("/static/style.css")
        assert server.client.events == []
    for anonymous in (answering([b"x"], anonymous=True),
                      AsgiServer(messages(body(b"x", False)), anonymous=True)):  # fmt: skip
        anonymous.ask(who=None)
        assert [user for _, user, _ in anonymous.client.events] == [None]
    with pytest.raises(TypeError, match="a list of patterns"):
        answering([], exclude="/static/*")


def test_a_callable_that_fails_costs_no_answer_and_no_event() -> None:
    def failing(source: Any) -> Any:
        raise LookupError("what must not be stored")

    wsgi = answering([b"x"], user=failing, route=failing)
    asgi = AsgiServer(messages(body(b"x", False)), user=failing, route=failing)
    assert wsgi.ask() == b"x"
    assert len(asgi.ask()) == 2
    for server in (wsgi, asgi):
        ((event_type, user, props),) = server.client.events
        assert (event_type, user, props["route"]) == ("page_view", None, None)
        assert (props["user_error"], props["route_error"]) == ("LookupError", "LookupError")


def test_what_a_visitor_sends_is_cut_and_an_odd_request_id_replaced() -> None:
    server = answering([b"x"])
    server.ask("/" + "\xc3\xa4" * 5000, HTTP_X_REQUEST_ID="a b", REQUEST_METHOD="M" * 99)
    ((_, _, props),) = server.client.events
    assert props["route"] == "/" + "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * 254 + "\u2026"
    assert len(props["method"]) == 32
    assert len(props["request_id"]) == 32


# -- when it is logged ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "headers", "environ", "expected"),
    [
        # Of known length: before the part that completes it.
        ([b"a", b"b"], [("Content-Length", "2")], {}, ["sent", "logged", "sent"]),
        # Chunked: the server marks the end after the last part.
        ([b"a", b"b"], [], {}, ["sent", "sent", "logged"]),
        ([b""], [("Content-Length", "2")], {"REQUEST_METHOD": "HEAD"}, ["logged", "sent"]),
        ([], [("Content-Length", "0")], {}, ["logged"]),
    ],
)
def test_a_streamed_body_is_logged_once_before_its_end_reaches_the_visitor(
    given: list[bytes], headers: Any, environ: Any, expected: list[str]
) -> None:
    server = answering(parts(*given), headers=headers)
    server.ask(**environ)
    assert server.client.happened == [OK, *expected]


def test_a_streamed_answer_of_asgi_is_logged_once_before_its_end_reaches_the_visitor() -> None:
    both = [body(b"a", True), body(b"b", True), body(b"", False)]
    for length, expected in (
        (None, ["start", "body", "body", "logged", "body"]),
        (2, ["start", "body", "logged", "body", "body"]),
    ):
        server = AsgiServer(messages(*both, length=length))
        assert len(server.ask()) == 4
        assert server.client.happened == expected
    server = AsgiServer(messages({"type": "http.response.pathsend", "path": "/f"}))
    server.ask()
    assert server.client.happened == ["start", "logged", "pathsend"]


def test_a_list_and_a_file_reach_the_server_as_they_are() -> None:
    class Wrapper:
        def __init__(self) -> None:
            self.parts = iter([b"x"])

        def __iter__(self) -> Iterator[bytes]:
            return self.parts

    for given in ([b"x"], (b"x",), io.BytesIO(b"x"), Wrapper()):
        server = answering(given)
        environ: dict[str, Any] = {"wsgi.file_wrapper": Wrapper}
        assert server.ask(**environ) == b"x"
        assert server.body is given
        assert server.client.happened == [OK, "logged", "sent"]


def test_what_is_written_by_the_write_of_start_response_is_counted() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(OK, [("Content-Length", "2")])(b"ab")
        return []

    server = WsgiServer(app)
    assert server.ask() == b"ab"
    assert server.client.happened == [OK, "logged", "sent"]


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1)])
def test_an_exception_is_a_failed_request_and_reaches_the_server(error: BaseException) -> None:
    def at_once(environ: Any, start_response: Any) -> Any:
        raise error

    wsgi = WsgiServer(at_once), answering(parts(b"a", error))
    asgi = AsgiServer(messages(body(b"a", True), error))
    for server in (*wsgi, asgi):
        with pytest.raises(type(error)):
            server.ask()
        ((event_type, user, props),) = server.client.events
        assert (event_type, user) == ("request_failed", "7")
        assert props["exception"] == type(error).__name__
        assert "secret" not in repr(props)
    assert [server.client.events[0][2]["status"] for server in wsgi] == [500, 200]


def test_a_visitor_who_leaves_is_logged_once_and_the_body_is_closed() -> None:
    class Closing:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield from (b"a", b"b", b"c")

        def close(self) -> None:
            self.closed += 1
            raise OSError("of the application")

    given = Closing()
    server = answering(given)
    with pytest.raises(OSError, match="of the application"):
        server.ask(parts=1)
    assert given.closed == 1
    assert [event[0] for event in server.client.events] == ["page_view"]


def test_a_visitor_of_asgi_who_leaves_is_no_failure_of_the_application() -> None:
    server = AsgiServer(messages(body(b"a", True), body(b"", False)), leaves=True)
    with pytest.raises(OSError, match="the visitor has left"):
        server.ask()
    assert [event[0] for event in server.client.events] == ["page_view"]


def test_headers_that_can_be_read_once_are_left_to_the_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert list(scope["headers"]) == [(b"x-request-id", b"r-1")]
        headers = iter([(b"content-length", b"1")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(body(b"x", False))

    server = AsgiServer(app)
    start, _ = server.ask(headers=iter([(b"x-request-id", b"r-1")]))
    assert list(start["headers"]) == [(b"content-length", b"1")]
    assert len(server.client.events) == 1


def test_a_task_that_is_cancelled_is_a_failed_request() -> None:
    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    server = AsgiServer(waiting)
    with pytest.raises(asyncio.CancelledError):
        server.ask()
    ((event_type, _, props),) = server.client.events
    assert (event_type, props["exception"]) == (
        "request_failed",
        "asyncio.exceptions.CancelledError",
    )


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_websockets_and_the_lifespan_are_passed_through(kind: str) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], receive, send))

    server = AsgiServer(app)
    server.ask(kind=kind)
    ((found, _, send),) = seen
    assert (found, send.__qualname__) == (kind, "AsgiServer.ask.<locals>.send")
    assert server.client.events == []


def test_what_the_client_refuses_costs_no_answer_and_is_counted(instance: Instance) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(OK, [])
        return [b"x"]

    instance.start()
    with Client(instance.socket) as client:
        wrapped = LogdMiddleware(app, client, user=who)
        for user in ("7", object()):
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "who": user}
            assert wrapped(environ, lambda *_: None) == [b"x"]
        stats = client.stats()
        assert stats["refused_by_cause"] == {"malformed": 1}
    sums = {name: stats[name] for name in ("attempted", "accepted", "refused")}
    assert sums == {"attempted": 2, "accepted": 1, "refused": 1}
    check_sums(instance.settle(), **sums)
