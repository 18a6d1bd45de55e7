"""The client in a request: it never blocks, never raises, and reports what it accepted."""

from __future__ import annotations

import gc
import logging
import math
import socket
import threading
from types import MappingProxyType
from typing import Any

import pytest

from logd_client import Client, Outcome
from logd_wire.outbox.layout import parse_header
from logd_wire.paths import PathTooLong
from logd_wire.schema import Malformed
from tests.shared.client_scene import check_stats, counts
from tests.support import client_parts as parts
from tests.support.instance import Instance, check_streams, check_sums

# -- refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        {"event_type": "Not Snake"},
        {"event_type": ""},
        {"event_type": None},
        {"event_type": ["list"]},
        {"event_type": "x", "user": ""},
        {"event_type": "x", "user": "u" * 256},
        {"event_type": "x", "user": "\ud800"},
        {"event_type": "x", "user": 1.5},
        {"event_type": "x", "user": 10**5000},
        {"event_type": "x", "props": [1]},
        {"event_type": "x", "user": "u" * 10**6},
        {"event_type": "x", "props": ()},
        {"event_type": "x", "props": {"a": "x" * 40_000}},
        {"event_type": "x", "props": {"a": ["é" * 20_000]}},
        {"event_type": "x", "props": {"a": [1] * 40_000}},
        {"event_type": "x", "ts_ns": -1},
        {"event_type": "x", "ts_ns": 1.5},
        {"event_type": "x", "ts_ns": 2**63},
    ],
)
def test_what_breaks_the_schema_is_refused_counted_and_never_raised(
    instance: Instance, event: dict[str, Any]
) -> None:
    with Client(instance.socket) as client:
        assert client.emit(**event) is False
        assert client.emit("page_view") is True
        check_stats(client, accepted=1, refused_by_cause={"malformed": 1})
    with Client(instance.socket, strict=True) as client:
        with pytest.raises(Malformed):
            client.emit(**event)
        check_stats(client, accepted=0, refused_by_cause={"malformed": 1})


@pytest.mark.parametrize("timeout_s", ["x", [1], 10**400, -1, math.nan, None])
def test_a_timeout_that_is_not_a_number_loses_no_event(instance: Instance, timeout_s: Any) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("x", timeout_s=timeout_s) is Outcome.UNKNOWN
        assert client.emit("x", durable=True, timeout_s=timeout_s) is False
        assert client.flush(timeout_s) is False
        check_stats(client, accepted=4, durable_unknown=2)  # each with a note


def test_any_mapping_will_do_for_props(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("x", props=MappingProxyType({"a": 1})) is True


def test_values_without_a_form_are_marked_and_raise_with_strict(instance: Instance) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for props in (loop, {"a": object()}):
        with Client(instance.socket) as client:
            assert client.emit("x", props=props) is True
            check_stats(client, accepted=1)
        with Client(instance.socket, strict=True) as client:
            with pytest.raises(Malformed, match=r"^props\."):
                client.emit("x", props=props)
            check_stats(client, refused_by_cause={"malformed": 1})


def test_a_full_outbox_refuses_and_takes_again_when_there_is_room(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=65536) as client:
        accepted = 0
        while client.emit("page_view", props={"text": "x" * 1000}):
            accepted += 1
        stats = check_stats(client, accepted=accepted, refused_by_cause={"outbox_full": 1})
        assert accepted == pytest.approx(62, abs=4)
        assert stats["outbox"]["room_bytes"] < 1100
        assert client.flush(0.01) is False
        # The daemon is another process, so that this one's lock shows.
        instance.start()
        assert client.flush(20) is True
        assert client.emit("page_view") is True
        assert client.flush(20) is True
        stats = check_stats(client, accepted=accepted + 1, pending=0)
    status = instance.settle()
    check_sums(status, **counts(stats))


def test_refusals_are_logged_at_a_bounded_rate_by_cause(
    instance: Instance, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each cause, with the count so far; later ones when the interval is over."""

    def lines(cause: str) -> list[str]:
        found = [r.getMessage() for r in caplog.records if f"({cause}," in r.getMessage()]
        caplog.clear()
        return found

    with Client(instance.socket, outbox_bytes=65536) as client, caplog.at_level(logging.WARNING):
        for _ in range(100):
            client.emit("Bad Type")
        (first,) = lines("malformed")
        assert "malformed, 1 so far" in first
        for _ in range(2000):
            client.emit("page_view", props={"text": "x" * 1000})
        client.emit("Bad Type")
        refused = check_stats(client)["refused_by_cause"]
        assert refused["malformed"] == 101 and refused["outbox_full"] > 1900
        assert [r.getMessage().partition(" so far")[0] for r in caplog.records] == [
            "event refused (outbox_full, 1"
        ]
        caplog.clear()
        monkeypatch.setattr("logd_client.refusals.LOG_INTERVAL_S", 0.0)
        client.emit("Bad Type")
        (later,) = lines("malformed")
        assert "malformed, 102 so far" in later
        stats = check_stats(client)
        assert stats["accepted"] + stats["refused"] == 2102


def test_a_closed_client_does_not_claim_that_all_is_on_the_disk(instance: Instance) -> None:
    client = Client(instance.socket)
    client.emit("page_view")
    client.close()
    assert client.flush(0.01) is False


def test_a_closed_client_refuses_and_keeps_its_counts(instance: Instance) -> None:
    client = Client(instance.socket)
    assert client.emit("page_view")
    client.close()
    client.close()
    assert client.emit("page_view") is False
    check_stats(client, accepted=1, refused_by_cause={"closed": 1}, pending=1)


def test_a_socket_path_too_long_is_reported_with_its_length() -> None:
    with pytest.raises(PathTooLong, match="has 200 bytes"):
        Client("/" + "x" * 199)


def test_one_system_call_sends_and_nothing_is_sent_again(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full: every event is accepted all the same, each sent exactly once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(instance.socket)
        with Client(instance.socket) as client:
            client.emit("page_view")
            producer = parts.producer(client)
            assert producer.socket is not None
            sends: list[bytes] = []

            real = producer.socket

            class Counting:
                fileno = real.fileno
                close = real.close

                def send(self, data: bytes, flags: int) -> int:
                    assert flags & socket.MSG_DONTWAIT
                    sends.append(data)
                    raise BlockingIOError

            monkeypatch.setattr(producer, "socket", Counting())
            assert all(client.emit("page_view") for _ in range(50))
            assert len(sends) == len(set(sends)) == 50
            check_stats(client, accepted=51, refused=0)


# -- durable -------------------------------------------------------------------------------------


def test_durable_is_true_when_it_is_on_the_disk(instance: Instance) -> None:
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("quiz_submitted", durable=True, timeout_s=20) is True
        instance.kill()
        assert instance.status()["stored"] == 1
        assert client.emit_durable("Bad Type") is Outcome.REFUSED
        assert client.emit("quiz_submitted", durable=True, timeout_s=0.01) is False


def test_an_unknown_outcome_is_settled_by_a_later_event(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=0) is Outcome.UNKNOWN
        assert client.stats()["unsettled"] == 1
        instance.start()
        assert client.flush(20)
        assert client.emit("page_view")
        assert client.flush(20)
        stats = check_stats(client, accepted=4, unsettled=0)
    check_sums(instance.settle(), attempted=stats["attempted"], accepted=4)
    events = instance.events()
    assert [event["type"] for event in events] == [
        "quiz_submitted", "durable_unknown", "durable_settled", "page_view",
    ]  # fmt: skip
    assert events[2]["user"] == "7"
    assert events[2]["props"] == {
        "producer": events[0]["producer"], "sequence": 1, "type": "quiz_submitted",
        "outcome": "stored",
    }  # fmt: skip


# -- threads and memory --------------------------------------------------------------------------


def test_threads_share_a_client_and_every_event_has_its_own_number(instance: Instance) -> None:
    instance.start()
    with Client(instance.socket) as client:
        results: list[int] = []

        def work(name: str) -> None:
            results.append(sum(client.emit("page_view", user=name) for _ in range(2000)))

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(30)
        stats = check_stats(client, accepted=sum(results), pending=0)
    status = instance.settle()
    check_sums(status, attempted=16_000, accepted=stats["accepted"], refused=stats["refused"])
    assert sum(check_streams(instance.events()).values()) == 16_000


def test_a_client_that_is_dropped_is_closed_at_once(instance: Instance) -> None:
    """Not when garbage is collected: none of its parts refers to it."""
    client = Client(instance.socket)
    assert client.emit("page_view")
    outbox = parts.outbox(client)
    gc.disable()
    try:
        del client
        assert not outbox.intact(), "its descriptor is closed, and the lock released"
    finally:
        gc.enable()
    page = parts.path(outbox).read_bytes()
    assert parse_header(page, len(page)).farewell


def test_room_is_reported_in_seconds_at_the_present_rate(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.stats()["outbox"] == {"reason": None}
        for _ in range(100):
            client.emit("page_view")
        outbox = client.stats()["outbox"]
        assert outbox["used_bytes"] + outbox["room_bytes"] == 8 * 1024 * 1024
        assert outbox["room_s"] > 0
        assert client.stats()["outbox"]["room_s"] is None  # none since the last call
