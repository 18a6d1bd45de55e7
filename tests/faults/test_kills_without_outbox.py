"""Clients without an outbox: what a killed daemon costs them, and that the numbers tell.

Fire and forget: what the kernel took is accepted. Held by somebody (systemd), the socket keeps it
while the daemon is dead; otherwise the queue dies with the daemon, and what was in it is a row in
the loss ledger, as soon as a later number shows it.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from logd.reports.ledger_queries import losses
from logd.reports.parameters import Parameters
from logd.storage import keyfile, opening
from logd.storage.database import connect
from logd_client import Client
from tests.faults.crowd import Emitter
from tests.faults.scene import HeldInstance, MakeScene
from tests.support.instance import Instance, until
from tests.support.tally import Tally, disorder

NO_OUTBOX = "/nonexistent"
QUEUE_MAX = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1


def fill_queue(client: Client) -> int:
    """Emits until the kernel takes no more; how many it took."""
    taken = 0
    while client.emit("page_view", user="7", props={"number": taken}):
        taken += 1
    return taken


def emit_again(client: Client) -> None:
    """One more event that is accepted; attempts that are not are in the client's own counts."""
    until(lambda: client.emit("page_view", user="7"), "the new daemon's socket takes an event")


def ledger(instance: Instance) -> list[dict[str, Any]]:
    """The loss ledger, oldest row first."""
    connection = opening.open_for_reading(instance.config)
    try:
        return list(reversed(losses(connection, Parameters({})).rows))
    finally:
        connection.close()


def forget_this_boot(instance: Instance) -> None:
    """Plays a new boot: what is stored was stored in an earlier one."""
    connection = connect(instance.config.database, keyfile.read(instance.config.key_file))
    connection.execute("UPDATE producer SET boot_id = 'an earlier boot'")
    connection.close()


def kill_with_a_full_queue(instance: Instance, client: Client) -> int:
    """The daemon is stopped, so that the queue fills, and killed; how many were in the queue."""
    emit_again(client)
    until(lambda: instance.status()["stored"] == 1, "the first is stored")
    assert instance.daemon is not None
    instance.daemon.popen.send_signal(signal.SIGSTOP)
    queued = fill_queue(client)
    instance.kill()
    return queued


def account(tally: Tally, instance: Instance, client: Client, **counts: int) -> dict[str, Any]:
    """The sums by the client's own counts; the status."""
    stats, status = client.stats(), instance.status()
    tally.account(
        status,
        instance.events(),
        attempted=stats["attempted"],
        accepted=stats["accepted"],
        refused=stats["refused"],
        **counts,
    )
    return status


@pytest.mark.parametrize("outbox", [False, True], ids=["without outbox", "with outbox"])
def test_in_a_held_socket_what_is_queued_while_the_daemon_is_dead_arrives(
    held: HeldInstance, tally: Tally, outbox: bool
) -> None:
    held.start()
    with Client(held.socket, outbox_directory=None if outbox else NO_OUTBOX) as client:
        emit_again(client)
        until(lambda: held.status()["stored"] == 1, "the first is stored")
        held.kill()
        queued = 11 if outbox else fill_queue(client)
        if outbox:
            assert all(client.emit("page_view", user="7") for _ in range(queued))
        held.start()
        until(lambda: held.status()["stored"] == 1 + queued, "what was queued is stored")
        status = account(tally, held, client, kills=1)
    assert (status["lost"], queued > 0) == (0, True)


def test_with_nobody_to_hold_it_the_queue_dies_and_the_next_number_tells(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with Client(instance.socket, outbox_directory=NO_OUTBOX) as client:
        queued = kill_with_a_full_queue(instance, client)
        instance.start()
        emit_again(client)
        until(lambda: instance.status()["stored"] == 2, "the next is stored")
        status = account(tally, instance, client, kills=1)
    assert status["lost"] == queued > 0
    (row,) = ledger(instance)
    assert (row["first"], row["last"], row["cause"]) == (2, 1 + queued, "not received")


def test_a_tail_lost_with_the_queue_is_known_by_the_farewell(
    instance: Instance, tally: Tally
) -> None:
    """Until then no number shows it: the sum falls short by what was queued, and no further."""
    instance.start()
    client = Client(instance.socket, outbox_directory=NO_OUTBOX)
    queued = kill_with_a_full_queue(instance, client)
    instance.start()
    status = instance.status()
    assert (status["stored"], status["lost"]) == (client.stats()["accepted"] - queued, 0)
    client.close()
    until(lambda: instance.status()["lost"] == queued, "the farewell tells")
    account(tally, instance, client, kills=1)
    (row,) = ledger(instance)
    assert (row["first"], row["last"], row["cause"]) == (2, 1 + queued, "not received")


def test_a_client_killed_with_a_full_queue_leaves_a_tail_that_a_new_boot_calls_unknown(
    instance: Instance, tally: Tally
) -> None:
    """Both killed in the same instant: no farewell, so nothing but a new boot ends the waiting."""
    instance.start()
    emitter = Emitter(instance, "7", "bare", seed=0)
    try:
        until(lambda: instance.status()["stored"] > 0, "some are stored")
        emitter.send(signal.SIGSTOP)
        until(lambda: instance.status()["stored"] >= emitter.accepted, "all so far is stored")
        assert instance.daemon is not None
        instance.daemon.popen.send_signal(signal.SIGSTOP)
        emitter.send(signal.SIGCONT)
        refused = emitter.refused
        until(lambda: emitter.refused > refused, "the queue is full")
        emitter.kill()
        instance.kill()
    finally:
        emitter.close()
    instance.start()
    status = instance.status()
    accounted = status["stored"] + status["lost"]
    assert 0 < emitter.accepted - accounted <= QUEUE_MAX
    instance.stop()
    forget_this_boot(instance)
    instance.start()
    status, events = instance.status(), instance.events()
    assert (status["unknown_extent"], status["stored"] + status["lost"]) == (1, accounted)
    row = ledger(instance)[-1]
    assert (row["first"], row["last"], row["cause"]) == (accounted + 1, None, "tail unknown")
    # What the ledger calls unknown is the difference: to this extent the sum stays open.
    tally.add(
        kills=2,
        attempted=emitter.attempted,
        accepted=emitter.accepted,
        refused=emitter.refused,
        stored=len(events),
        lost=status["lost"],
    )
    assert disorder(events) == (0, 0)


@pytest.mark.parametrize(
    "held",
    [False, pytest.param(True, marks=pytest.mark.long(minutes=0.1))],
    ids=["socket bound by logd", "socket held"],
)
def test_clients_with_and_without_an_outbox_under_the_same_kills_add_up(
    make_scene: MakeScene, tally: Tally, held: bool
) -> None:
    """Lost is only what clients without an outbox had sent, and the ledger has all of it."""
    scene = make_scene(10 + held, ("outbox", "bare", "bare"), held=held)
    while scene.kills.total() < 3:
        scene.fault()
    scene.finish(tally)
