"""What a restored database lacks: read from outboxes again, or recorded as a loss."""

from __future__ import annotations

import time
from pathlib import Path

from logd.batch import LOST_CLAIMED, LOST_NOT_RECEIVED, LOST_RESTORED, Batch
from logd.maintenance import restore as restoring
from logd.storage.store import Store
from logd_client import Client
from logd_wire.outbox.layout import RING_BYTES_MIN
from tests.logd.trails import back_up, restore
from tests.support.instance import Instance, check_sums, emitters, until


def test_what_outboxes_hold_is_stored_again_and_the_rest_is_in_the_ledger(
    instance: Instance,
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        for n in range(100):
            assert client.emit("page_view", user="long-lived", props={"n": n})
        assert client.flush(20)
        backup = back_up(instance)
        for n in range(50):
            assert client.emit("page_view", user="long-lived", props={"n": n})
        assert client.flush(20)
        instance.stop()
        restore(instance, backup)
        instance.start()
        assert client.emit("page_view", user="long-lived", durable=True)
    status = instance.settle()
    check_sums(status, attempted=151, accepted=151)
    assert status["stored"] - status["own"] + status["lost"] == 151
    assert status["lost_claimed"] == 0
    instance.cli("verify")


def test_what_no_ring_holds_any_more_is_restored_by_the_word_of_the_replaced_database(
    instance: Instance,
) -> None:
    """Without that word it is only claimed: see rule 9 in test_rules.py."""
    instance.start()
    with Client(instance.socket, outbox_bytes=RING_BYTES_MIN) as client:
        assert client.emit("page_view", durable=True)
        backup = back_up(instance)
        for n in range(3000):
            while not client.emit("page_view", props={"n": n}):
                time.sleep(0.001)
        assert client.flush(20)
        attempted = client.stats()["attempted"]
        instance.stop()
        restore(instance, backup)
        instance.start()
        assert client.emit("page_view", durable=True)
    status = instance.settle()
    check_sums(status, attempted=attempted + 1, accepted=3002, refused=attempted - 3001)
    assert status["lost"] == status["losses_by_cause"]["restored"]["events"] > 500
    assert (status["lost_claimed"], status["unknown_extent"]) == (0, 0)
    instance.cli("verify")


def test_what_was_only_claimed_before_a_restore_is_only_claimed_after_it(tmp_path: Path) -> None:
    key = bytes(32)
    stores = [Store(tmp_path / name, key, 1, 10) for name in ("replaced", "backup")]
    batch = Batch(100, 10**6)
    for producer_id in (1, 2):
        producer = stores[0].producer(1000, producer_id)
        producer.has_outbox = producer_id == 1
        batch.add_loss(producer, 1, 5, LOST_NOT_RECEIVED)
        batch.add_loss(producer, 6, 1_000_000, LOST_CLAIMED)
        producer.taken = 1_000_000
    stores[0].commit(batch, 1)
    replaced, backup = (store.connection for store in stores)
    streams = list(restoring._advanced_producers(replaced, backup))
    assert [(one.id, one.watermark, one.known) for one in streams] == [
        (1, 1_000_000, 5),
        (2, 1_000_000, 5),
    ]
    losses = Batch(0, 0)
    for one in streams:
        restoring._record_losses(stores[1], losses, one)
    assert [(one.first, one.last, one.cause) for one in losses.losses] == [
        (1, 5, LOST_RESTORED),
        (6, 1_000_000, LOST_CLAIMED),
    ]
    backup.execute("INSERT INTO replaced VALUES (1000, ?, 7)", (f"{3:016x}",))
    backup.execute("INSERT INTO replaced VALUES (1000, ?, 9)", (f"{1:016x}",))
    assert stores[1].producer(1000, 1).replaced == 0, "it was never heard of here"
    stores[1].commit(losses, 1)
    assert stores[1].producer(1000, 1).replaced == 9
    for store in stores:
        store.close()


def test_restored_under_load_every_number_adds_up(instance: Instance) -> None:
    """Emitters go on through backup, stop, restore and start: their outboxes keep what comes."""
    instance.start()
    with emitters(instance, count=2, events=6000) as running:
        until(lambda: all(e.accepted >= 500 for e in running), "events")
        backup = back_up(instance)
        until(lambda: all(e.accepted >= 2000 for e in running), "more events")
        instance.stop()
        restore(instance, backup)
        instance.start()
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    status = instance.settle()
    check_sums(status, attempted=12_000 + refused, accepted=12_000, refused=refused)
    assert status["stored"] - status["own"] + status["lost"] + status["lost_claimed"] == 12_000
    instance.cli("verify")
