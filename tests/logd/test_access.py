"""Access events: the report process has the daemon store them, and neither can hurt the other."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from logd.errors import StorageBusy
from logd.serve import access_requests
from logd.serve.access_messages import ANSWER, REQUEST_BYTES_MAX, pack_request
from logd.serve.access_recorder import REQUESTS_MAX, AccessRecorder
from logd.serve.access_requests import AccessRequests
from logd.storage.store import Store
from logd_wire.query import QueryClient, QueryError
from logd_wire.schema import PAYLOAD_BYTES_MAX, REPORT_READ
from tests.logd.stepped_daemon import SteppedDaemon
from tests.logd.trails import back_up, restore
from tests.support.instance import Instance, check_streams, check_sums, until

COMMIT_S = 0.05


class Ends:
    """Both ends of a lifeline, over a store; the daemon's end steps only when it is called."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "a.db", os.urandom(32), 1, 10)
        self.selector = selectors.DefaultSelector()
        self.warnings: list[str] = []
        self.now_s = 1.0
        self.recorder = AccessRecorder(
            self.store, (self.selector,), lambda: 9, lambda: self.now_s,
            lambda message, *args: self.warnings.append(message % args),
        )  # fmt: skip
        self.open()

    def open(self) -> None:
        self.socket = self.recorder.open()
        self.requests = AccessRequests(self.socket)

    def step(self, now_s: float) -> None:
        self.now_s = now_s
        self.recorder.step()

    def send(self, count: int = 1) -> None:
        for number in range(count):
            self.socket.send(pack_request(number, 5, "7", {"report": "timeline"}))

    def answers(self) -> list[tuple[int, bool]]:
        heard = []
        while True:
            try:
                heard.append(ANSWER.unpack(self.socket.recv(ANSWER.size)))
            except BlockingIOError:
                return heard

    def readings(self) -> list[tuple[Any, ...]]:
        query = (
            "SELECT t.name, e.user, e.ts_ns FROM event e JOIN event_type t ON t.id = e.type"
            " ORDER BY e.id"
        )
        return list(self.store.connection.execute(query))

    def has_ended(self) -> bool:
        return not self.requests.take_answers() and not self.selector.get_map()

    def close(self) -> None:
        self.recorder.close()
        self.socket.close()
        self.selector.close()
        self.store.close()


@pytest.fixture
def ends(directory: Path) -> Iterator[Ends]:
    made = Ends(directory)
    yield made
    made.close()


def test_requests_of_several_threads_are_one_commit_and_each_is_answered(ends: Ends) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ends.requests.record, str(n), {"report": "events"}) for n in range(4)]
        until(lambda: len(ends.requests._open) == 4, "all wait")
        time.sleep(0.05)  # sent
        assert not any(one.done() for one in asked), "not before the commit"
        ends.step(1.0)
        assert ends.requests.take_answers()
        assert [one.result(10) for one in asked] == [True] * 4
    assert sorted(user for _, user, _ in ends.readings()) == ["0", "1", "2", "3"]
    assert ends.store.head.batch == 1
    counters = dict(ends.store.connection.execute("SELECT name, value FROM counter"))
    assert (counters["stored"], counters["own"]) == (4, 4)


def test_a_commit_for_requests_is_followed_by_a_rest_as_long(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that readers take half of the disk's time at most."""
    real = ends.store.transact

    def slow(*arguments: Any) -> None:
        real(*arguments)
        ends.now_s += COMMIT_S

    monkeypatch.setattr(ends.store, "transact", slow)
    never_s, next_s = float("inf"), 1.0 + 2 * COMMIT_S
    for now_s, batches, due_s in (
        (1.0, 1, never_s), (1.06, 1, next_s), (1.07, 1, next_s), (next_s, 2, never_s),
    ):  # fmt: skip
        ends.send()
        ends.step(now_s)
        assert ends.store.head.batch == batches
        assert ends.recorder.due_s == pytest.approx(due_s)
    assert len(ends.readings()) == 4


def test_a_commit_takes_a_bounded_number_of_requests(ends: Ends) -> None:
    ends.send(REQUESTS_MAX + 1)
    ends.step(1.0)
    assert len(ends.answers()) == REQUESTS_MAX
    ends.step(2.0)
    assert ends.answers() == [(REQUESTS_MAX, True)]


def test_what_cannot_be_stored_is_refused_and_never_stored_later(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise StorageBusy("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(ends.store, "_write", full)
        ends.send(2)
        ends.step(1.0)
    assert ends.answers() == [(0, False), (1, False)]
    assert ends.warnings == ["reports about persons are refused: the disk is full."]
    ends.send()
    ends.step(2.0)
    assert ends.answers() == [(0, True)]
    assert ends.readings() == [(REPORT_READ, "7", 5)]


def test_an_answer_that_comes_too_late_is_dropped(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_requests, "ACCESS_TIMEOUT_S", 0.05)
    assert ends.requests.record("7", {}) is False
    ends.step(1.0)
    assert len(ends.readings()) == 1, "recorded and refused"
    assert ends.requests.take_answers()


def test_a_daemon_that_does_not_read_has_further_requests_refused_in_time(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_requests, "ACCESS_TIMEOUT_S", 0.2)
    with pytest.raises(BlockingIOError):
        ends.send(10**6)
    start_s = time.monotonic()
    assert ends.requests.record("7", {}) is False
    assert 0.2 <= time.monotonic() - start_s < 1


def test_a_reading_larger_than_the_socket_is_recorded_whole_and_in_few_commits(ends: Ends) -> None:
    """Of 64 events of the largest size, a socket holds a few."""
    large = [{"n": n, "text": "x" * (PAYLOAD_BYTES_MAX - 100)} for n in range(REQUESTS_MAX)]
    ends.now_s, ends.recorder._due_s = 1.0, 2.0  # it rests after a commit
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ends.requests.record, "42", *large)

        def received() -> bool:
            ends.step(1.0)
            return ends.store.head.batch > 0

        until(received, "all of them are requested")
        assert ends.store.head.batch == 1
        assert ends.requests.take_answers()
        assert asked.result(10) is True
    assert len(ends.readings()) == REQUESTS_MAX
    assert ends.requests._open == {}


def test_a_reading_of_which_one_event_is_not_stored_is_refused(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ends.requests.record, "42", {"n": 1}, {"n": 2})
        until(lambda: len(ends.requests._open) == 2, "both are open")
        for number in (1, 2):
            answers = ends.requests._open[number]
            answers.put(number == 1)
        assert asked.result(10) is False


def test_what_the_daemon_would_not_take_for_a_request_is_not_sent(ends: Ends) -> None:
    for props in ({"text": "x" * PAYLOAD_BYTES_MAX}, {"bytes": b"x"}):
        assert ends.requests.record("7", props) is False
    ends.step(1.0)
    assert not ends.has_ended()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\1",
        bytes(8),
        bytes(100),
        bytes(REQUEST_BYTES_MAX + 1),
        pack_request(1, 5, "7", {}).replace(REPORT_READ.encode(), b"events_read"),
        pack_request(1, 5, "7", {}).replace(b"\xab" + REPORT_READ.encode(), b"\xaeevents_restored"),
    ],
)
def test_garbage_ends_the_report_process_and_stores_nothing(ends: Ends, garbage: bytes) -> None:
    ends.socket.send(garbage)
    ends.step(1.0)
    assert ends.has_ended()
    assert len(ends.warnings) == 1
    assert ends.readings() == []
    ends.open()
    ends.send()
    ends.step(2.0)
    assert ends.answers() == [(0, True)], "the next one is served"


def test_a_report_process_that_reads_no_answers_holds_nothing_up(ends: Ends) -> None:
    for number in range(1000):
        ends.send()
        ends.step(float(number))
    assert len(ends.readings()) == 1000
    assert 0 < len(ends.answers()) < 1000


def test_a_report_process_that_dies_leaves_nothing_to_wake_for(ends: Ends) -> None:
    ends.socket.close()
    assert ends.selector.select(10)
    ends.step(1.0)
    assert not ends.selector.get_map()
    ends.step(2.0)


def test_without_a_daemon_requests_are_refused_at_once(ends: Ends) -> None:
    ends.recorder.close()
    assert ends.requests.take_answers() is False
    assert ends.requests.record("7", {}) is False


def test_a_daemon_that_can_store_nothing_refuses_at_once(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = SteppedDaemon(instance)
    try:
        daemon.start()
        requests = AccessRequests(daemon.access.open())

        def full(*_args: object) -> None:
            raise StorageBusy("the disk is full.")

        monkeypatch.setattr(daemon.store, "_write", full)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"garbage", instance.socket)  # for the quarantine
        daemon.run_once(10)
        assert daemon.stalled is not None
        recorded: list[bool] = []
        thread = threading.Thread(target=lambda: recorded.append(requests.record("7", {})))
        thread.start()
        start_s = time.monotonic()
        daemon.run_once(0.5)
        assert time.monotonic() - start_s >= 0.5, "the disk is not tried more often for it"
        assert requests.take_answers()
        thread.join(10)
        assert recorded == [False]
        assert time.monotonic() - start_s < 1, "not by the timeout"
    finally:
        daemon.close()


def test_the_daemon_stores_a_reading_and_the_report_process_is_no_producer(
    instance: Instance,
) -> None:
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    for _ in range(3):
        assert client.ask("timeline", user="7", asked_by="42").rows == []
        status = instance.status()
    assert (status["stored"], status["own"]) == (3, 3), "on disk before the answer"
    assert (status["outboxes"], status["lost"]) == (0, 0)
    check_sums(status, attempted=0, accepted=0)
    check_streams(instance.events())
    assert instance.stop() == 0
    instance.cli("verify")


def test_while_the_daemon_is_stopped_readings_are_refused_in_time(instance: Instance) -> None:
    daemon = instance.start(loads_reports=True)
    client = QueryClient(str(instance.config.query_socket))  # with its own timeout
    assert QueryClient(client.socket_path, timeout_s=20).ask("summary").rows  # they are served
    daemon.popen.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(QueryError, match="cannot be recorded now") as caught:
            client.ask("timeline", user="7")
        assert caught.value.code == "unavailable"
        assert client.ask("summary").rows, "the others are answered"
    finally:
        daemon.popen.send_signal(signal.SIGCONT)
    until(lambda: instance.status()["own"] == 1, "recorded and refused")
    assert client.ask("timeline", user="7").rows == []
    assert instance.status()["own"] == 2


def test_readings_that_a_restore_drops_are_no_lost_events(instance: Instance) -> None:
    """As all that logd itself records: the restore names the replaced batch and its events."""
    instance.start()
    backup = back_up(instance)
    instance.stop()
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    assert client.ask("timeline", user="7").rows == []
    assert instance.status()["own"] == 2
    instance.stop()
    restore(instance, backup)
    instance.start()
    check_sums(instance.status(), attempted=0, accepted=0)
    instance.cli("verify")
