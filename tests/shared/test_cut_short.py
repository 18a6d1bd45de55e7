"""A call that a signal handler cuts short: what it wrote counts, and nothing else does."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest

from logd_client import Client, Outcome
from logd_client.durable import DurableEvent
from logd_wire.outbox.writer import OutboxWriter
from tests.shared.client_scene import (
    Timeout,
    check_stats,
    counts,
    raise_timeout,
    retire_present,
    without_outbox,
)
from tests.support import client_parts as parts
from tests.support.instance import Instance, check_sums


def interrupt(*_: object) -> Any:
    """As a handler of SIGINT does: no `except Exception` stops it."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("durable", [False, True])
def test_an_event_is_not_accepted_because_a_note_about_another_was(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """A handler raises while `durable_settled` is written, before the caller's own event is."""
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=0) is Outcome.UNKNOWN
        instance.start()
        assert client.flush(30)
        shots = [1]

        def interrupted() -> int:
            if shots:
                shots.pop()
                raise Timeout
            return 0

        parts.set_monotonic_ns(monkeypatch, client, interrupted)  # called after the store
        if durable:
            assert client.emit_durable("exam_handed_in", timeout_s=5) is Outcome.REFUSED
        else:
            assert client.emit("exam_handed_in") is False
        assert not shots
        assert client.emit("page_view")
    stats = client.stats()
    status = instance.settle()
    types = [event["type"] for event in instance.events()]
    assert types == ["quiz_submitted", "durable_unknown", "durable_settled", "page_view"]
    check_sums(status, **counts(stats))


def test_a_call_cut_short_after_its_own_record_returns_accepted(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(instance.socket) as client:
        with monkeypatch.context() as context:
            parts.set_monotonic_ns(context, client, raise_timeout)
            assert client.emit("page_view") is True
        assert client.stats()["accepted"] == 1


@pytest.mark.parametrize("cut", ["reserving", "giving back"])
def test_a_reservation_that_is_interrupted_keeps_no_room(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    reserve = OutboxWriter.reserve

    def interrupted(*args: Any) -> None:
        if cut == "reserving":
            reserve(*args)
        raise Timeout

    with Client(instance.socket) as client:
        assert client.emit("page_view")
        with monkeypatch.context() as context:
            if cut == "reserving":
                context.setattr(OutboxWriter, "reserve", interrupted)
                assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.REFUSED
            else:
                context.setattr(DurableEvent, "release_note_space", interrupted)
                with pytest.raises(Timeout):
                    client.emit_durable("quiz_submitted", timeout_s=0)
        gc.collect()
        assert parts.outbox(client).writer.reserved_bytes == 0
        assert len(parts.producers(client).awaited) == 0


def test_a_call_cut_short_after_its_record_leaves_one_event_unread_at_most(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(instance.socket) as client:
        outbox = retire_present(client)
        with monkeypatch.context() as context:
            parts.set_monotonic_ns(context, client, raise_timeout)
            assert client.emit("page_view")
        for _ in range(3):
            assert client.emit("page_view")
        assert outbox.writer.written == 2
        assert parts.outbox(client).writer.written == 4, "the one that was unread as well"
        assert client.stats()["pending"] == 4


def test_a_handler_that_raises_while_a_refusal_is_counted_leaves_the_way_in_open(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(instance.socket) as client:
        with monkeypatch.context() as context:
            context.setattr(parts.refusals(client), "count", interrupt)
            with pytest.raises(KeyboardInterrupt):
                client.emit("Bad Type")
        assert client.emit("page_view") is True


def test_an_event_cut_short_after_it_was_accepted_does_not_vouch_for_the_next(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug of ours")

    with Client(instance.socket) as client:
        assert client.emit("page_view")
        with monkeypatch.context() as context:
            context.setattr(parts.producer(client), "send", interrupt)
            with pytest.raises(KeyboardInterrupt):
                client.emit("page_view")
        with monkeypatch.context() as context:
            context.setattr("logd_client.emitter.event_payload", broken)
            assert client.emit("page_view") is False
        check_stats(client, accepted=2, refused_by_cause={"internal_error": 1})


def test_a_signal_handler_that_raises_after_a_send_uses_no_sequence_twice(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an outbox: the kernel has it, the call is cut short, and the next has its own."""
    without_outbox(instance)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(instance.socket)
        with Client(instance.socket) as client:
            assert client.emit("page_view")
            producer = parts.producer(client)
            send = producer.send

            def interrupted(datagram: bytes) -> bool:
                send(datagram)
                raise KeyboardInterrupt

            monkeypatch.setattr(producer, "send", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.emit("page_view")
            monkeypatch.undo()
            assert client.emit("page_view")
        numbers = [int.from_bytes(receiver.recv(1000)[24:32], "little") for _ in range(3)]
        assert numbers == [1, 2, 3]
