"""A daemon restores the files that it depends on, and continues with them."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from logd.ingest.outbox_place import OutboxPlace
from logd.ingest.receiver import bind
from logd.instance_lock import instance_lock, read_lock_page
from logd.maintenance.outbox_survey import directory_identity
from logd.self_repair.repairs import SelfRepair
from logd.status.collect import collect_status
from logd_client import Client
from logd_wire.outbox.names import outbox_name
from tests.faults.steady import Steady
from tests.logd.stepped_daemon import SteppedDaemon
from tests.logd.stepped_daemon import look as look_at
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, ROOT, Instance, check_sums, until


def place_of(daemon: SteppedDaemon, instance: Instance) -> OutboxPlace:
    return OutboxPlace(
        daemon.directory, instance.socket, daemon.delivery.open_names, daemon.use_new_directory
    )


@pytest.fixture
def kept(instance: Instance, daemon: SteppedDaemon) -> OutboxPlace:
    """The directory of a daemon that runs a round only when it is called."""
    return place_of(daemon, instance)


def confirmed_all(daemon: SteppedDaemon, steady: Steady) -> bool:
    look_at(daemon)
    return steady.confirmed == steady.accepted


def lost(daemon: SteppedDaemon, instance: Instance) -> int:
    look_at(daemon)
    return int(collect_status(instance.config)["lost"])


MORE_THAN_QUEUED = 3000  # events that are in an outbox, and not all in the socket's queue
ONE_RING = 250 * 1024  # a client's room that holds them all, and is never followed by a larger one


def test_what_removed_outboxes_hold_unread_is_stored_and_their_producers_continue(
    instance: Instance,
    daemon: SteppedDaemon,
    kept: OutboxPlace,
) -> None:
    with Steady(instance, outbox_bytes=ONE_RING) as steady:
        steady.emit(1)
        look_at(daemon)
        steady.emit(MORE_THAN_QUEUED)
        former = steady.stats["producer"]
        shutil.rmtree(instance.config.outbox_directory)
        kept.put_back()
        until(lambda: steady.emit(1) and steady.stats["producer"] != former, "another producer")
        assert steady.stats["outbox"]["reason"] is None
        until(lambda: confirmed_all(daemon, steady), "all is stored")
        daemon.store.reload_erasure_list()
        identity = directory_identity(instance.config.outbox_directory)
        assert daemon.store.erasure_list.boundaries.outboxes == identity
    look_at(daemon)
    assert list(instance.config.outbox_directory.glob("*.outbox")) == []
    state = collect_status(instance.config)
    assert (state["lost"], state["unknown_extent"]) == (0, 0)
    check_sums(state, attempted=steady.accepted, accepted=steady.accepted)


def test_what_went_unread_with_its_directory_is_a_loss_by_number(
    instance: Instance,
    daemon: SteppedDaemon,
    kept: OutboxPlace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon's quota did not allow to open it: only the farewell shows how much is lost."""
    with Steady(instance, outbox_bytes=ONE_RING) as steady:
        with monkeypatch.context() as patch:
            patch.setattr(daemon.delivery.outboxes.quota, "has_room", lambda _uid: False)
            steady.emit(MORE_THAN_QUEUED)
            look_at(daemon)
        shutil.rmtree(instance.config.outbox_directory)
        kept.put_back()
        former = steady.stats["producer"]
        until(lambda: steady.emit(1) and steady.stats["producer"] != former, "another producer")
        until(lambda: lost(daemon, instance), "its farewell")
    look_at(daemon)
    state = collect_status(instance.config)
    assert state["lost"] > 0
    assert state["unknown_extent"] == 0
    check_sums(state, attempted=steady.accepted, accepted=steady.accepted)


def test_closed_files_of_the_new_directory_wake_the_daemon_and_a_forget_looks_there(
    instance: Instance,
) -> None:
    worker = SimpleNamespace(outboxes=None, attach_daemon=lambda _mark_queue: None)
    with closing(SteppedDaemon(instance, worker=worker)) as daemon:
        shutil.rmtree(instance.config.outbox_directory)
        place_of(daemon, instance).put_back()
        assert worker.outboxes == instance.config.outbox_directory
        name = outbox_name(os.getuid(), 7)
        (instance.config.outbox_directory / name).write_bytes(b"")
        assert daemon.closed_files.names(daemon.wait(0)) == [name]


def test_inotify_is_taken_up_again_once_the_kernel_has_a_watch(
    instance: Instance,
    daemon: SteppedDaemon,
    kept: OutboxPlace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("logd.serve.closed_files.Inotify", refuse)
        shutil.rmtree(instance.config.outbox_directory)
        kept.put_back()
        daemon.closed_files.retry()
        assert [line for line in caplog.messages if "no inotify" in line] == [
            "no inotify (No space left on device): closed outboxes are found by polling"
        ]
    daemon.closed_files.retry()
    name = outbox_name(os.getuid(), 7)
    (instance.config.outbox_directory / name).write_bytes(b"")
    assert daemon.closed_files.names(daemon.wait(0)) == [name]


def test_a_daemon_reads_from_the_socket_that_it_has_bound_again(
    instance: Instance,
    daemon: SteppedDaemon,
) -> None:
    config = instance.config
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit("page_view")
        config.socket.unlink()
        daemon.replace_socket(bind(config.socket, socket.SOCK_DGRAM, 0o600), 11)
        assert client.emit("page_view") is False, "refused, and counted: it was never accepted"
        parts.reconnect_at_once(client)
        assert client.emit("page_view")
        look_at(daemon)
        stats = client.stats()
    look_at(daemon)
    state = collect_status(config)
    assert (state["stored"], state["refused_by_clients"]) == (2, 1)
    check_sums(state, attempted=3, accepted=stats["accepted"], refused=stats["refused"])


@pytest.mark.parametrize("systemd", [False, True])
def test_files_are_restored_by_the_daemon_or_by_systemd(
    instance: Instance,
    daemon: SteppedDaemon,
    kept: OutboxPlace,
    systemd: bool,
) -> None:
    instance.configure(metrics="metrics.sock", anchor_file="anchors")
    config = instance.config
    with instance_lock(config.lock_file) as lock:
        repair = SelfRepair(
            config,
            lock,
            kept,
            replace_socket=None if systemd else daemon.replace_socket,
            replace_listener=None if systemd else lambda made: made.close(),
            also=(),
        )
        items = {item.name: item for item in repair.files.items}
        by_hand = {"configuration", "key", "signing key", "metrics socket", "anchors"}
        if systemd:
            by_hand |= {"socket", "query socket"}
        assert {name for name, item in items.items() if item.put_back is None} == by_hand
        assert all(item.remedy for name, item in items.items() if name in by_hand)
        documented = (ROOT / "systemd" / "README.md").read_text()
        assert all(f"| {name} |" in documented for name in items)
        before = read_lock_page(config.lock_file)
        config.socket.unlink()
        repair.run(1.0)
        assert config.socket.exists() is not systemd
        assert (read_lock_page(config.lock_file), before) == (before, before)
    (line,) = [f for f in repair.files.published() if f["name"] == "socket"]
    if systemd:
        assert line["problem"] == "not there"
        assert "systemctl restart logd.socket" in line["remedy"]
    else:
        assert line["restored"] == 1


def test_a_query_socket_at_which_another_instance_listens_is_not_taken_back(
    instance: Instance,
    daemon: SteppedDaemon,
    kept: OutboxPlace,
) -> None:
    """Both would bind it again each second, and restart their report processes for it."""
    path = instance.config.query_socket
    listeners: list[socket.socket] = []
    with (
        instance_lock(instance.config.lock_file) as lock,
        bind(path, socket.SOCK_STREAM, 0o600),  # as the daemon did at its start
    ):
        repair = SelfRepair(
            instance.config, lock, kept, replace_socket=daemon.replace_socket,
            replace_listener=listeners.append, also=(),
        )  # fmt: skip
        with bind(path, socket.SOCK_STREAM, 0o600) as other:
            other.listen(0)
            for now_s in (1.0, 2.0, 3.0):  # its backlog is full by the last one
                repair.run(now_s)
            assert listeners == []
            (line,) = [f for f in repair.files.published() if f["name"] == "query socket"]
            assert "another process, not of this instance, receives there" in line["problem"]
        repair.run(4.0)
    (made,) = listeners
    made.close()
