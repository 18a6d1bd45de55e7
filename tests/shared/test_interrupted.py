"""What signal handlers do in the middle of a call: raise, emit, close, fork, at every point.

Python runs a handler where a call begins and where one of a C function returns. So do these tests,
at each such point inside `shared/` in turn; no daemon is needed.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from logd_client import Client, Outcome
from tests.shared.client_scene import Timeout, confirm_all, raise_timeout, retire
from tests.support import client_parts as parts
from tests.support.instance import ROOT, Instance

SHARED = str(ROOT / "shared")
POINTS_MAX = 400
MARK = "this very event"
ROOM = 4 * 65536  # of a small ring, and a larger one to follow it
LARGE = 20_000


class Case:
    """A client, a call of its, and what is done in the middle of that call."""

    def __init__(self, instance: Instance, lost: str) -> None:
        room = ROOM if lost in ("full", "grown") else 65536
        self.client = client = Client(instance.socket, outbox_bytes=room)
        self.point = ""
        self.events = 0
        if lost == "new":
            return
        assert client.emit("page_view")
        self.events = 1
        if lost in ("full", "grown"):
            self.fill(lost)
            return
        producer = parts.producer(client)
        assert producer.outbox is not None
        if lost not in ("", "settled"):
            os.close(parts.descriptor(producer.outbox))
            producer.compare_due_s = 0.0
            producer.sends = lost in ("descriptor", "confirmed")
        if lost == "settled":  # but not in the trail yet
            assert client.emit_durable("page_view", timeout_s=0) is Outcome.UNKNOWN
            confirm_all(producer.outbox)
            self.events = 3
        if lost == "confirmed":
            confirm_all(producer.outbox)
        if lost == "retired":
            retire(producer.outbox)
        if lost == "retired former":  # with an unread event of its own
            assert client.emit("page_view")
            self.events = 2
            assert parts.current(client) is not producer
            retire(producer.outbox, producer.outbox.writer.bytes_written // 2)

    def fill(self, lost: str) -> None:
        """Until the next event needs a larger ring; or until there is one, and one before it."""
        client = self.client
        producer = parts.producer(client)
        assert producer.outbox is not None
        while lost == "full" and producer.outbox.writer.room_bytes >= LARGE + 100:
            assert client.emit("page_view", props={"text": "x" * LARGE})
            self.events += 1
        while lost == "full" and producer.outbox.writer.room_bytes >= 48:
            assert client.emit("page_view")
            self.events += 1
        while lost == "grown" and parts.current(client) is producer:
            assert client.emit("page_view", props={"text": "x" * LARGE})
            self.events += 1

    def run(self, call: Callable[[Client], Any], number: int, act: Callable[[Client], Any]) -> Any:
        """Calls it, and acts at the point of that number; what it returned or raised."""
        left = number

        def trace(frame: Any, event: str, argument: Any) -> None:
            nonlocal left
            file = frame.f_code.co_filename
            if event not in ("call", "c_return") or not file.startswith(SHARED):
                return
            if getattr(argument, "__name__", "") == "open" or frame.f_code.co_name == "__del__":
                return  # no code can keep what is not returned yet
            left -= 1
            if left < 0 and not self.point:
                sys.setprofile(None)
                self.point = f"{file}:{frame.f_lineno} {event}"
                act(self.client)

        sys.setprofile(trace)
        try:
            return call(self.client)
        except Timeout as error:
            return error
        finally:
            sys.setprofile(None)

    def written(self) -> int:
        """How often the event stands where the daemon reads it, or has read it."""
        client = self.client
        found = 0
        for producer, moved in [(parts.current(client), False)] + [
            (former.producer, former.moved) for former in parts.former_producers(client)
        ]:
            if producer is not None and producer.outbox is not None:
                writer = producer.outbox.writer
                if writer._words is not writer._mapped:
                    continue  # closed: what counted there is known
                found += parts.ring(producer.outbox)[: writer.bytes_written].count(MARK.encode())
                found -= moved and MARK.encode() in (writer.only_unconfirmed() or b"")
        return found

    def check_sums(self) -> dict[str, Any]:
        """They hold, and nothing is negative."""
        stats = self.client.stats()
        assert stats["attempted"] == stats["accepted"] + stats["refused"], self.point
        parts = [stats[name] for name in ("confirmed", "pending", "unconfirmable")]
        assert stats["accepted"] == sum(parts), self.point
        assert min(parts) >= 0, self.point
        return stats


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def emit_another(client: Client) -> None:
    client.emit("from_a_handler")


def emit(client: Client) -> Any:
    return client.emit("page_view", props={"text": MARK})


def flush(client: Client) -> Any:
    return client.flush(0)


def emit_durable(client: Client) -> Any:
    return client.emit_durable("page_view", props={"text": MARK}, timeout_s=0).value != "refused"


@pytest.fixture(params=[4, pytest.param(1, marks=pytest.mark.long(minutes=0.2))])
def cases(
    instance: Instance, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Iterator[tuple[int, Case]]]]:
    """Cases one after the other until one has no such point; all are let go of at the end.

    The long form tries each point, the other one in four: other ones in each test.
    """
    first = zlib.crc32(request.node.nodeid.encode()) % request.param

    def each(lost: str) -> Iterator[tuple[int, Case]]:
        for number in itertools.count(first, request.param):
            assert number < POINTS_MAX
            before = descriptors()
            case = Case(instance, lost)
            yield number, case
            assert parts.guard(case.client).free, case.point
            case.client.close()
            point = case.point
            del case
            if descriptors() > before:
                gc.collect()
                assert descriptors() <= before, f"descriptors are left: {point}"
            if not point:
                assert number > 5
                return

    logging.disable(logging.ERROR)
    yield each
    logging.disable(logging.NOTSET)


def raise_again(_: Client) -> None:
    """Raises, and so does a second handler at the next call of a function here."""

    def trace(frame: Any, _event: str, _argument: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(SHARED) and code.co_name != "__del__":
            sys.settrace(None)
            raise Timeout

    sys.settrace(trace)
    raise Timeout


def fork_into(children: list[int], fork: Callable[[], int], _: Client) -> None:
    children.append(fork())


Each = Callable[[str], Iterator[tuple[int, Case]]]


def test_the_next_event_is_read_whatever_two_handlers_have_cut_short(cases: Each) -> None:
    """By the daemon that has retired the outbox: it reads no more of that one."""
    for number, case in cases("retired"):
        before, client = sys.gettrace(), case.client
        try:
            case.run(emit, number, raise_again)
        except Timeout:
            pass
        finally:
            sys.settrace(before)
        assert client.emit("page_view")
        assert parts.producer(client).written, case.point


@pytest.mark.parametrize("call", [emit, emit_durable])
@pytest.mark.parametrize(
    "lost", ["new", "", "descriptor", "confirmed", "retired", "retired former", "full"]
)
def test_a_handler_that_raises_anywhere_leaves_a_client_that_has_reported_the_truth(
    cases: Each, lost: str, call: Callable[[Client], Any]
) -> None:
    for number, case in cases(lost):
        result = case.run(call, number, raise_timeout)
        assert case.client.emit("page_view"), case.point
        case.client.flush(0)
        case.check_sums()
        assert case.written() == result or isinstance(result, Timeout), (case.point, result)
        assert lost != "full" or parts.former_producers(case.client).any, "a larger ring follows"
        assert case.written() <= 1, case.point


@pytest.mark.parametrize("call", [Client.close, parts.end_process, Client.stats, flush])
@pytest.mark.parametrize("lost", ["", "descriptor", "retired former", "grown"])
def test_a_handler_that_raises_in_a_call_that_emits_nothing_costs_nothing(
    cases: Each, lost: str, call: Callable[[Client], Any]
) -> None:
    for number, case in cases(lost):
        case.run(call, number, raise_timeout)
        assert case.check_sums()["accepted"] == case.events, case.point


@pytest.mark.parametrize(
    ("call", "lost"),
    [
        (call, lost)
        for call in (emit, emit_durable, Client.close, parts.end_process, Client.stats, flush)
        for lost in ("", "descriptor", "retired former")
    ]
    + [(emit, "full")],
)
def test_a_handler_that_emits_in_the_middle_of_any_call_is_refused(
    cases: Each, lost: str, call: Callable[[Client], Any]
) -> None:
    for number, case in cases(lost):
        case.run(call, number, emit_another)
        stats = case.check_sums()
        emitted = call in (emit, emit_durable)
        unknown = stats["durable_unknown"]  # each has a note in the trail
        assert stats["attempted"] == case.events + emitted + unknown + bool(case.point), case.point
        if emitted:
            assert case.written() == 1, case.point


@pytest.mark.parametrize(
    ("call", "lost"),
    [
        (call, lost)
        for call in (emit, emit_durable, Client.close, parts.end_process, Client.stats, flush)
        for lost in ("", "descriptor", "retired former")
    ]
    + [(emit, "full"), (emit_durable, "full"), (flush, "grown")],
)
def test_a_handler_that_closes_the_client_closes_it_behind_the_call(
    cases: Each, lost: str, call: Callable[[Client], Any]
) -> None:
    for number, case in cases(lost):
        result = case.run(call, number, Client.close)
        stats = case.check_sums()
        emitted = call in (emit, emit_durable)
        unknown = stats["durable_unknown"]
        assert stats["attempted"] == case.events + emitted + unknown, case.point
        if emitted:
            notes = unknown - stats["refused_by_cause"].get("closed", 0) + (not result)
            assert stats["accepted"] == case.events + bool(result) + notes, case.point
        if case.point:
            assert parts.current(case.client) is None, case.point
            assert not case.client.emit("page_view"), case.point


@pytest.mark.parametrize("hooks", [False, pytest.param(True, marks=pytest.mark.long(minutes=0.1))])
@pytest.mark.parametrize(
    ("call", "lost"),
    [
        (emit, "descriptor"),
        (Client.stats, "descriptor"),
        (Client.close, "descriptor"),
        (Client.close, "settled"),
        (emit, "settled"),
        (flush, "retired former"),
        (emit, "full"),
    ],
)
def test_a_handler_that_forks_anywhere_makes_a_client_of_its_own(
    cases: Each, call: Callable[[Client], Any], lost: str, hooks: bool
) -> None:
    """The child's call returns, and what it emits is another producer's; the parent's is whole."""
    fork = os.fork if hooks else ctypes.PyDLL(None).fork
    for number, case in cases(lost):
        children: list[int] = []
        result = None
        try:
            result = case.run(call, number, partial(fork_into, children, fork))
        finally:
            if children == [0]:
                ok = result is not None or call is Client.close
                stats = case.client.stats()
                producer = parts.current(case.client)
                own = producer is None or bool(producer.mark[0])
                os._exit(0 if ok and own and stats["accepted"] <= (call is emit) else 1)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, case.point
        added = (call is emit) + (lost == "settled")  # the event, and the note
        assert case.check_sums()["accepted"] == case.events + added, case.point
