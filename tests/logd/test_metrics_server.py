"""Metrics served on a socket or an address: to whom, and whatever a scraper does."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from logd.serve.metrics_server import HEAD_BYTES_MAX, SEATS_MAX, MetricsService
from logd.serve.request_server import Credentials
from logd_wire.query import QueryClient
from tests.logd.made_status import samples
from tests.support.instance import Instance, check_sums, emitters, until


def accepts(path: Path) -> bool:
    """Whether it listens: its name is there a moment before that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


class _OnSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def ask(connection: http.client.HTTPConnection, path: str = "/metrics") -> tuple[int, str]:
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_they_are_off_until_they_are_asked_for(instance: Instance) -> None:
    instance.start()
    assert QueryClient(str(instance.config.query_socket), timeout_s=20).ask("summary").rows
    assert not (instance.directory / "metrics.sock").exists()
    pid = instance.daemon.popen.pid if instance.daemon else 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert "prometheus" not in Path(f"/proc/{children[0]}/maps").read_text()


def test_a_socket_gives_them_to_whom_its_mode_lets_in(instance: Instance) -> None:
    instance.configure(metrics="metrics.sock", metrics_socket_mode="0660")
    daemon = instance.start()
    path = instance.directory / "metrics.sock"
    until(lambda: accepts(path), "the socket is there")
    assert path.stat().st_mode & 0o777 == 0o660
    with emitters(instance, count=1, events=50) as (emitter,):
        emitter.finish()
    check_sums(instance.settle(), attempted=50, accepted=50)
    status, text = ask(_OnSocket(path))
    assert status == 200
    found = samples(text)
    assert (found["logd_up", ""], found["logd_events_stored_total", ""]) == (1, 50)
    assert ask(_OnSocket(path), "/other")[0] == 404
    # Who says nothing, or half a request, holds up nobody.
    silent = [_OnSocket(path) for _ in range(5)]
    for one in silent:
        one.connect()
        one.sock.send(b"GET /met")
    assert ask(_OnSocket(path))[0] == 200
    for one in silent:
        one.close()
    path.unlink()  # a cleaner does
    until(path.exists, "it is made again")
    until(lambda: daemon.says("was removed or replaced: created again"), "the log says so")
    assert ask(_OnSocket(path))[0] == 200
    assert not any("Traceback" in line for line in daemon.lines)
    instance.stop()
    assert not path.exists()


def service() -> MetricsService:
    return MetricsService(CollectorRegistry())


ANYBODY = Credentials(0, -1, frozenset())


def test_a_request_is_whole_with_its_head_at_its_end_or_past_its_bound() -> None:
    head = bytearray(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r")
    assert service().take_request(head, ended=False) is None
    head += b"\nmore"
    assert service().take_request(head, ended=False) is not None
    assert head == b""
    assert service().take_request(head, ended=True) is None
    assert service().take_request(bytearray(b"GET /met"), ended=True) == b"GET /met"
    endless = bytearray(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * HEAD_BYTES_MAX)
    assert service().take_request(endless, ended=False) is not None


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", 200),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 501),
        (b"GET /metrics HTTP/9.9\r\n\r\n", 505),
        (b"nonsense without an end\r\n\r\n", 400),
        (b"GET /" + b"x" * HEAD_BYTES_MAX, 404),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: cut", 200),
    ],
)
def test_whatever_is_asked_one_response_ends_the_connection(
    request_head: bytes, status: int
) -> None:
    response, stays = service().answer(request_head, ANYBODY)
    assert not stays
    if response.startswith(b"<"):  # to what names no version of HTTP there is no head
        assert f"Error code: {status}<".encode() in response
    else:
        assert f" {status} ".encode() in response.splitlines()[0]


def test_a_scraper_too_slow_or_one_too_many_gets_an_http_error() -> None:
    for code, status in (("busy", b"503 Service Unavailable"), ("bad_request", b"408 Request Tim")):
        response = service().error(code, "why")
        assert response.startswith(b"HTTP/1.0 " + status)
        assert response.endswith(b"\r\n\r\nwhy\n")


def test_slow_scrapers_keep_no_other_from_the_metrics(instance: Instance) -> None:
    """More than there are seats; each has one second for all of its request."""
    instance.configure(metrics="metrics.sock")
    instance.start()
    path = instance.directory / "metrics.sock"
    until(lambda: accepts(path), "the socket is there")
    slow = [_OnSocket(path) for _ in range(2 * SEATS_MAX)]
    for one in slow:
        one.connect()
        one.sock.send(b"GET /metrics HTTP/1.1\r\nX: ")
    assert ask(_OnSocket(path))[0] == 200
    over = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):  # let go
            while not over.is_set():
                slow[-1].sock.send(b"y")
                over.wait(0.05)

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        assert b" 408 " in slow[-1].sock.recv(4096), "though it never stops sending"
    finally:
        over.set()
        trickling.join()
        for one in slow:
            one.close()


def test_an_address_of_this_machine_gives_them_too(instance: Instance) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    instance.configure(metrics=f"127.0.0.1:{port}")
    instance.start()

    def asked() -> bool:
        try:
            return ask(http.client.HTTPConnection("127.0.0.1", port, timeout=20))[0] == 200
        except ConnectionError:
            return False

    until(asked, "they are served")


def test_an_address_that_is_taken_costs_the_metrics_and_no_report(instance: Instance) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        instance.configure(metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        daemon = instance.start()
        until(lambda: daemon.says("no metrics at"), "it says so")
        assert QueryClient(str(instance.config.query_socket), timeout_s=20).ask("summary").rows
