"""The transition between two producers of a client."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from logd_client import Client, Outcome
from logd_wire.rendezvous import RENDEZVOUS_SUFFIX
from logd_wire.wire import (
    KIND_EVENTS,
    KIND_FAREWELL,
    decode_farewell,
    decode_head,
    producer_seed,
)
from tests.shared.client_scene import check_stats, hold_waits, in_threads, outbox_of
from tests.support.instance import Instance, until


def test_a_client_that_gets_an_outbox_sends_a_farewell_for_the_producer_without_one(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what the kernel lost of the last of them would be in no ledger."""
    monkeypatch.setattr("logd_client.producer.OUTBOX_RETRY_INTERVAL_S", 0.0)
    rendezvous = Path(instance.socket + RENDEZVOUS_SUFFIX)
    kept = rendezvous.read_bytes()
    rendezvous.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(instance.socket)
        with Client(instance.socket) as client:
            assert client.emit("page_view") and client.emit("page_view")
            without = client.stats()["producer"]
            rendezvous.write_bytes(kept)
            assert client.emit("page_view")
            within = client.stats()["producer"]
            check_stats(client, attempted=3, accepted=3)
        daemon.setblocking(False)
        got = []
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(daemon.recv(65536))
    assert without != within
    heads = [decode_head(datagram) for datagram in got]
    former = int(without, 16)
    assert [kind for kind, producer in heads if producer == former][:3] == [
        KIND_EVENTS, KIND_EVENTS, KIND_FAREWELL,
    ]  # fmt: skip
    (farewell,) = [
        datagram
        for datagram, (kind, producer) in zip(got, heads, strict=True)
        if kind == KIND_FAREWELL and producer == former
    ]
    assert decode_farewell(farewell, producer_seed(former)) == (2, {})


def test_room_is_kept_in_the_outbox_that_the_event_is_in_not_in_the_one_before(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outbox is found removed in the very call, so the event goes to the next one."""
    full = hold_waits(monkeypatch)
    monkeypatch.setattr("logd_client.succession.COMPARE_INTERVAL_S", 0.0)
    outcomes: list[Outcome] = []
    with Client(instance.socket, outbox_bytes=65536) as client:
        assert client.emit("page_view")
        before = client.stats()["producer"]
        outbox_of(instance).unlink()

        def hand_in(_: int) -> None:
            outcomes.append(client.emit_durable("quiz_submitted", user=7))

        with in_threads(1, hand_in):
            until(lambda: client.stats()["accepted"] == 2, "it is accepted")
            assert client.stats()["producer"] != before
            while client.emit("page_view"):
                pass
            accepted = client.stats()["accepted"]
            full.set()
        assert outcomes == [Outcome.UNKNOWN]
        stats = client.stats()
        # The one refusal is of what filled it; the note that it is unknown had its space reserved.
        assert stats["refused_by_cause"] == {"outbox_full": 1}
        assert (stats["accepted"], stats["durable_unknown"]) == (accepted + 1, 1)
        assert stats["attempted"] == stats["accepted"] + stats["refused"]
