"""Clients of reports that share a circuit breaker: a logd that hangs holds one thread of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from logd_wire.circuit_breaker import CircuitBreaker
from logd_wire.query import (
    REQUEST_BYTES_MAX,
    QueryClient,
    QueryError,
    Unavailable,
    breaker_of_reports,
    encode_frame,
    read_frame,
)

TIMEOUT_S = 1.0
ANSWER = {"ok": True, "rows": [], "next": None}
CANNOT_RECORD = {"ok": False, "error": "unavailable", "message": "cannot be recorded now"}
REFUSED = {"ok": False, "error": "bad_parameter", "message": "no"}


class Reports:
    """A report process that hangs while `hangs` is set, and that answers each request alike.

    With `hangs` it takes connections and requests, as the kernel does for a stopped process.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.answer: dict[str, object] = ANSWER
        self.answers_after_s = 0.0
        self.asked = 0
        self.waiting = 0
        self.waiting_most = 0
        self.hangs = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(100)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            read_frame(peer.recv, REQUEST_BYTES_MAX)
            self.asked += 1
            self.waiting += 1
            self.waiting_most = max(self.waiting_most, self.waiting)
            time.sleep(self.answers_after_s)
            peer.settimeout(0.01)
            while self.hangs:
                with suppress(TimeoutError):
                    if not peer.recv(1):  # the client has given up
                        break
            self.waiting -= 1
            peer.sendall(encode_frame(self.answer))

    def close(self) -> None:
        self.hangs = False
        with suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def reports(directory: Path) -> Iterator[Reports]:
    made = Reports(directory / "q.sock")
    yield made
    made.close()


@pytest.fixture
def breaker() -> CircuitBreaker:
    return breaker_of_reports()


@pytest.fixture
def ask(reports: Reports, breaker: CircuitBreaker) -> Callable[[], tuple[str, float]]:
    """Asks with a new client, as each page does; the error's code ("" for none) and the seconds."""

    def ask() -> tuple[str, float]:
        client = QueryClient(reports.path, TIMEOUT_S, breaker)
        begun_s = time.monotonic()
        try:
            client.ask("summary")
            code = ""
        except QueryError as error:
            code = error.code
        return code, time.monotonic() - begun_s

    return ask


Ask = Callable[[], tuple[str, float]]


def together(ask: Ask, threads: int) -> list[tuple[str, float]]:
    """What that many threads get at once, in order of the time they took."""
    got: list[tuple[str, float]] = []
    asking = [threading.Thread(target=lambda: got.append(ask())) for _ in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(30)
    assert len(got) == threads
    return sorted(got, key=lambda result: result[1])


def test_a_crowd_that_asks_a_silent_logd_holds_one_thread(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    reports.hangs = True
    got = together(ask, 8)
    assert [code for code, _ in got] == ["unavailable"] * 8
    assert TIMEOUT_S / 4 <= got[-2][1] < 0.8 * TIMEOUT_S <= got[-1][1]
    assert breaker.is_open
    asked = reports.asked
    got = together(ask, 30)
    assert reports.asked == asked, "none of them is asked"
    assert [code for code, _ in got] == ["unavailable"] * 30
    assert got[-1][1] < TIMEOUT_S / 2


def test_what_it_says_then_is_no_riddle(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    reports.hangs = True
    ask()
    with pytest.raises(Unavailable, match="has not answered lately") as unavailable:
        QueryClient(reports.path, TIMEOUT_S, breaker).ask("summary")
    assert reports.path in str(unavailable.value)


def test_one_request_at_a_time_asks_again_and_an_answer_lets_all_ask(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    reports.hangs = True
    ask()
    until_s = time.monotonic() + 2.5
    asked, results = reports.asked, []
    reports.waiting_most = 0
    while time.monotonic() < until_s:
        results += together(ask, 4)
        time.sleep(0.05)
    assert 1 <= reports.asked - asked <= 4, "a probe now and then"
    assert reports.waiting_most == 1
    assert {code for code, _ in results} == {"unavailable"}
    reports.hangs = False
    back_s = time.monotonic()
    while ask()[0]:
        time.sleep(0.05)
    assert time.monotonic() - back_s < 4.0, "a dashboard works again within a few seconds"
    assert not breaker.is_open
    assert {code for code, _ in together(ask, 20)} == {""}


def test_reports_that_take_long_and_come_hold_nobody_back(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    """One takes most of the timeout, while others are answered."""
    slow: list[tuple[str, float]] = []
    reports.answers_after_s = 0.7 * TIMEOUT_S
    thread = threading.Thread(target=lambda: slow.append(ask()))
    thread.start()
    time.sleep(0.1)
    reports.answers_after_s = 0.0
    while thread.is_alive():
        assert ask()[0] == ""
        time.sleep(0.01)
    assert slow[0][0] == ""
    assert {code for code, _ in together(ask, 8)} == {""}


def test_a_report_that_is_too_slow_beside_others_that_are_not_opens_nothing(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    slow: list[tuple[str, float]] = []
    reports.answers_after_s = 2 * TIMEOUT_S
    thread = threading.Thread(target=lambda: slow.append(ask()))
    thread.start()
    time.sleep(0.1)
    reports.answers_after_s = 0.0
    while thread.is_alive():
        assert ask()[0] == ""
        time.sleep(0.01)
    assert slow[0][0] == "unavailable"
    assert not breaker.is_open


def test_a_logd_that_cannot_record_a_reading_for_long_is_as_one_that_hangs(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    """Its report process answers, once it has waited for the daemon."""
    reports.answer = CANNOT_RECORD
    reports.answers_after_s = 0.5 * TIMEOUT_S
    assert ask()[0] == "unavailable"
    assert breaker.is_open
    asked = reports.asked
    assert together(ask, 8)[-1][1] < 0.25 * TIMEOUT_S
    assert reports.asked == asked
    breaker.moved()
    reports.answers_after_s = 0.0
    for _ in range(3):
        asked = reports.asked
        assert ask()[0] == "unavailable"
        assert reports.asked == asked + 1
        time.sleep(0.15 * TIMEOUT_S)
    assert not breaker.is_open, "such a refusal at once holds nobody"


def test_a_refusal_is_an_answer(reports: Reports, ask: Ask, breaker: CircuitBreaker) -> None:
    reports.hangs = True
    ask()
    assert breaker.is_open
    reports.hangs, reports.answer = False, REFUSED
    time.sleep(0.5)
    assert ask()[0] == "bad_parameter"
    assert not breaker.is_open


def test_a_connection_that_is_refused_does_not_keep_it_open(
    reports: Reports, ask: Ask, breaker: CircuitBreaker
) -> None:
    """logd was hung and is gone: to ask it costs nothing any more."""
    reports.hangs = True
    ask()
    assert breaker.is_open
    reports.close()
    time.sleep(0.5)
    assert ask()[0] == "unavailable"
    assert not breaker.is_open
    results = together(ask, 8)
    assert results[-1][1] < TIMEOUT_S / 4
    assert not breaker.is_open


def test_a_client_without_a_breaker_asks_whatever_happened_to_others(reports: Reports) -> None:
    reports.hangs = True
    client = QueryClient(reports.path, 0.2)
    for _ in range(3):
        begun_s = time.monotonic()
        with pytest.raises(Unavailable, match="timed out"):
            client.ask("summary")
        assert time.monotonic() - begun_s >= 0.2
    assert reports.asked == 3


def test_an_interrupted_request_says_nothing_of_logd(
    reports: Reports, breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is told to end raises SystemExit in the middle of a request."""
    reports.hangs = True
    client = QueryClient(reports.path, TIMEOUT_S, breaker)
    with pytest.raises(Unavailable):
        client.ask("summary")
    time.sleep(0.5)

    def exit_now(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(client, "_send_and_receive", exit_now)
    with pytest.raises(SystemExit):
        client.ask("summary")
    assert breaker.is_open
    assert not breaker._waiting
