"""A client without a daemon or an outbox: what it accepts, and when it looks for them again."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from logd_client import Client, Outcome
from logd_client.producer import Producer
from logd_wire.rendezvous import RENDEZVOUS_SUFFIX
from tests.shared.client_scene import check_stats, without_outbox
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, Instance, check_streams, check_sums, until


def test_a_client_that_found_no_outbox_asks_again_and_keeps_its_counts(instance: Instance) -> None:
    """The daemon may come up after its clients; from then on nothing is lost any more."""
    hidden = Path(instance.socket + RENDEZVOUS_SUFFIX).rename(instance.directory / "hidden")
    with Client(instance.socket) as client:
        assert client.emit("page_view") is False
        parts.producer(client).retry_outbox_after_s = math.inf
        hidden.rename(instance.socket + RENDEZVOUS_SUFFIX)
        instance.start()
        until(lambda: client.emit("page_view"), "the daemon is there")
        until(lambda: instance.status()["stored"] == 1, "stored")  # nothing else keeps it
        assert client.stats()["outbox"]["reason"] is not None
        parts.producer(client).retry_outbox_after_s = 0.0
        assert client.emit("page_view")
        assert client.stats()["outbox"]["reason"] is None
        instance.kill()
        assert client.emit("page_view"), "kept, without a daemon"
        stats = check_stats(client, accepted=3, pending=2)
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=stats["attempted"], accepted=3, refused=stats["refused"])
    assert (status["stored"], status["lost"]) == (3, 0)


def test_a_client_without_an_outbox_asks_soon_at_first_and_then_less_often(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon puts back within a second what was removed under it; asking costs system calls."""
    now_s = start_s = time.monotonic()
    clock = parts.by_clock(lambda: now_s)
    with Client(instance.socket, outbox_directory=NO_DIRECTORY, environment=clock) as client:
        client.emit("page_view")
        producer = parts.producer(client)
        asked = []
        make = parts.producers(client).make

        def made() -> Producer:
            asked.append(round(now_s - start_s, 3))
            return make()

        monkeypatch.setattr(parts.producers(client), "make", made)
        for tenths in range(200):
            now_s = start_s + tenths / 10 + 0.001
            client.emit("page_view")
        assert asked == [0.501, 1.501, 3.501, 7.501, 12.501, 17.501]
        parts.use_default_directory(client)
        now_s = producer.retry_outbox_after_s
        client.emit("page_view")
        assert client.stats()["outbox"]["reason"] is None
        monkeypatch.undo()


def test_a_client_outlives_its_daemon_and_finds_the_next_one(instance: Instance) -> None:
    """A refused socket stays refused for ever; the client takes another."""
    with Client(instance.socket) as client:
        for _ in range(3):
            instance.start()
            assert client.emit("page_view")
            assert client.flush(20)
            instance.kill()
            assert client.emit("page_view")
        instance.start()
        assert client.flush(20)
        check_stats(client, accepted=6, refused=0, pending=0)
    check_sums(instance.settle(), attempted=6, accepted=6)
    check_streams(instance.events())


def test_without_an_outbox_only_what_the_kernel_took_is_accepted(instance: Instance) -> None:
    without_outbox(instance)
    with Client(instance.socket) as client:
        assert client.emit("page_view") is False  # no daemon
        check_stats(client, accepted=0, refused_by_cause={"undelivered": 1})
        assert "logd.sock.outboxes" in client.stats()["outbox"]["reason"]
        assert client.flush(0.01) is True  # nothing is accepted, so nothing is missing
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        for _ in range(5):
            until(lambda: client.emit("page_view"), "a place in the queue")
        stats = check_stats(client, accepted=5)
        assert client.flush(0.01) is False  # no confirmation can come
    until(lambda: instance.status()["stored"] == 5, "stored")
    check_sums(
        instance.status(), attempted=stats["attempted"], accepted=5, refused=stats["refused"]
    )


def test_without_an_outbox_durability_stays_unknown(instance: Instance) -> None:
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit_durable("page_view", timeout_s=0.01) is Outcome.UNKNOWN


def test_a_client_without_an_outbox_never_reports_all_as_stored_once_it_has_one(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went by datagram alone is confirmed by nothing."""
    monkeypatch.setattr("logd_client.producer.OUTBOX_RETRY_INTERVAL_S", 0.0)
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        until(lambda: client.emit("page_view"), "the kernel takes it")
        parts.use_default_directory(client)
        assert client.emit("page_view")
        until(lambda: client.stats()["confirmed"] == 1, "the second is stored")
        assert client.flush(0.1) is False
        stats = client.stats()
        assert stats["unconfirmable"] == stats["accepted"] - 1
        assert stats["pending"] == 0
