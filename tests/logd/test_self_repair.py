"""What a daemon has set up is put back, with real files: directory, lock, sockets, database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logd.batch import Batch, Producer
from logd.errors import AlreadyRunning, CannotCreate, DatabaseGone, StorageFailed
from logd.ingest.ended_producers import drop_missing
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.outbox_place import OutboxPlace
from logd.ingest.receiver import Receiver, bind
from logd.instance_lock import PAGE_BYTES, instance_lock, read_lock_page
from logd.maintenance.outbox_survey import directory_identity
from logd.self_repair.repairs import SelfRepair
from logd.serve.loop import EventLoop
from logd.status.collect import collect_status
from logd.storage import keyfile
from logd.storage.database import connect, shm_path, wal_path
from logd.storage.store import Store
from logd_client import Client
from logd_wire.outbox.names import outbox_name
from logd_wire.rendezvous import open_directory, read_rendezvous, read_token, rendezvous_path
from logd_wire.wire import Event
from tests.faults.steady import Steady
from tests.logd.test_daemon import daemon  # noqa: F401 - a fixture
from tests.logd.test_daemon import look as look_at
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, ROOT, Instance, check_sums, until

# -- the outboxes' directory -----------------------------------------------------------------------


class Place:
    """A daemon's directory, which it follows."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.outboxes = OutboxDirectory(instance.config.outbox_directory)
        self.outboxes.prepare(instance.socket)
        self.open: set[str] = set()
        self.followed = 0
        self.place = OutboxPlace(self.outboxes, instance.socket, lambda: self.open, self._follow)
        self.path = self.outboxes.path

    def _follow(self) -> None:
        self.followed += 1

    def check_is_found(self) -> None:
        """Clients are led to the directory that the daemon reads."""
        found = open_directory(self.instance.socket).fd
        assert os.path.samestat(os.fstat(found), os.fstat(self.outboxes.fd))
        os.close(found)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.outboxes.names()]


@pytest.fixture
def place(instance: Instance) -> Iterator[Place]:
    made = Place(instance)
    yield made
    made.place.finish()
    made.outboxes.close()
    for left in made.path.parent.glob(f"{made.path.name}*"):
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def test_a_directory_that_was_removed_is_made_again_with_another_token(place: Place) -> None:
    token = place.outboxes.token
    shutil.rmtree(place.path)
    place.place.put_back()
    place.check_is_found()
    assert place.followed == 1
    assert place.outboxes.token == read_token(str(place.path)) != token
    assert place.path.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("what", ["token", "rendezvous", "mode", "another token"])
def test_what_is_wrong_within_the_same_directory_is_put_right_and_the_token_stays(
    place: Place, what: str
) -> None:
    token = place.outboxes.token
    file = place.path / "token"
    if what == "token":
        file.unlink()
    elif what == "rendezvous":
        Path(place.place.rendezvous).unlink()
    elif what == "mode":
        place.path.chmod(0o755)
    else:
        file.write_text("0" * 32 + "\n")
    before = os.listdir("/proc/self/fd")
    place.place.put_back()
    place.check_is_found()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert place.followed == 0
    assert token == place.outboxes.token == read_token(str(place.path))
    assert token == read_rendezvous(place.instance.socket).token
    assert place.path.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("left", ["nothing", "a copy"])
def test_outboxes_of_a_directory_that_was_renamed_come_with_it(place: Place, left: str) -> None:
    """Their producers live: each is found under its name, and none has to begin another."""
    with Client(place.instance.socket) as client:
        assert client.emit("page_view")
        outbox, name = (
            parts.outbox(client),
            outbox_name(os.getuid(), parts.producer(client).id),
        )
        aside = place.path.with_name(f"{place.path.name}-aside")
        place.path.rename(aside)
        if left == "a copy":
            shutil.copytree(aside, place.path)
        place.place.put_back()
        place.check_is_found()
        assert place.followed == 1
        assert place.names() == [name]
        assert outbox.intact() and not outbox.removed()
        assert os.path.samestat((place.path / name).stat(), os.fstat(outbox._fd))
        # A client that had opened the former directory just before.
        (aside / outbox_name(os.getuid(), 7)).write_bytes(b"")
        place.place.finish()
        assert sorted(place.names()) == sorted([name, outbox_name(os.getuid(), 7)])


def test_an_outbox_that_cannot_be_moved_loses_its_name_if_the_daemon_reads_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer sees that, and continues with another, which a later daemon finds as well."""
    rename = os.rename

    def refuse(name: str, to: str, **directories: Any) -> None:
        if name.endswith(".outbox"):
            raise OSError(18, "Invalid cross-device link")
        rename(name, to, **directories)

    with Client(place.instance.socket) as client:
        assert client.emit("page_view")
        outbox = parts.outbox(client)
        place.open.add(outbox_name(os.getuid(), parts.producer(client).id))
        aside = place.path.with_name(f"{place.path.name}-aside")
        place.path.rename(aside)
        (aside / outbox_name(os.getuid(), 7)).write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuse)
            patch.setattr("logd.ingest.outbox_place.OutboxPlace.finish", lambda _: None)
            place.place.put_back()
        assert not outbox.intact()
        assert (aside / outbox_name(os.getuid(), 7)).exists(), "nobody reads it: it stays"
        producer = parts.producer(client)
        producer.compare_due_s = 0.0
        producer.sends = True
        assert client.emit("page_view")
        assert parts.current(client) is not producer
        assert client.stats()["outbox"]["reason"] is None


@pytest.mark.parametrize("squatter", ["link", "file"])
def test_a_name_that_was_taken_meanwhile_is_left_and_another_found(
    place: Place, squatter: str
) -> None:
    shutil.rmtree(place.path)
    if squatter == "link":
        place.path.symlink_to("/dev/shm")
    else:
        place.path.write_text("mine")
    place.place.put_back()
    place.check_is_found()
    assert place.outboxes.path.name.startswith(f"{place.path.name}-")
    assert place.instance.config.outbox_directory == place.outboxes.path
    assert place.place.directory == str(place.outboxes.path)


def test_where_nothing_can_be_put_back_the_daemon_reads_where_it_did(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, token = place.outboxes.fd, place.outboxes.token
    place.path.rename(place.path.with_name(f"{place.path.name}-aside"))

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system", "logd.sock.outboxes")

    with monkeypatch.context() as patch:
        patch.setattr("logd.ingest.outbox_directory.write_rendezvous", refuse)
        with pytest.raises(CannotCreate):
            place.place.put_back()
    assert (place.outboxes.fd, place.followed, place.outboxes.token) == (fd, 0, token)
    place.place.put_back()
    place.check_is_found()
    assert (place.followed, place.outboxes.token == token) == (1, False)


def test_a_directory_that_another_instance_reads_is_left_to_it(
    place: Place, tmp_path: Path
) -> None:
    """Its daemon would store what belongs to the other, and remove it as stored."""
    other, socket_path = OutboxDirectory(place.path), str(tmp_path / "logd.sock")
    place.outboxes.claim()

    def check_is_refused() -> None:
        with pytest.raises(CannotCreate, match="another instance's daemon reads the outboxes"):
            other.prepare(socket_path, claim=True)
        assert not os.path.exists(rendezvous_path(socket_path)), "its clients go nowhere"
        other.close()

    check_is_refused()
    (place.path / "token").unlink()
    place.place.put_back()  # in the same directory: it stays claimed
    check_is_refused()
    fd, open_before = place.outboxes.fd, os.listdir("/proc/self/fd")
    place.path.rename(place.path.with_name(f"{place.path.name}-aside"))
    other.prepare(socket_path, claim=True)
    with pytest.raises(CannotCreate):
        place.place.put_back()
    assert (place.outboxes.fd, place.followed) == (fd, 0)
    other.close()
    assert len(os.listdir("/proc/self/fd")) == len(open_before)
    place.place.put_back()
    place.check_is_found()
    assert place.followed == 1
    Path(rendezvous_path(socket_path)).unlink()
    check_is_refused()


def test_only_what_is_in_no_directory_any_more_holds_nothing_back() -> None:
    def producer(number: int) -> Producer:
        return Producer(uid=1, id=number, seed=0, has_outbox=True, behind=True)

    opened, waiting, gone = producer(1), producer(2), producer(3)
    drop_missing([opened, waiting, gone], {opened}, lambda name: name == outbox_name(1, 2))
    assert [one.has_outbox for one in (opened, waiting, gone)] == [True, True, False]
    assert [one.behind for one in (opened, waiting, gone)] == [True, True, False]


# -- a daemon follows ------------------------------------------------------------------------------


@pytest.fixture
def kept(instance: Instance, daemon: EventLoop) -> OutboxPlace:  # noqa: F811
    """The directory of a daemon that runs a round only when it is called."""
    return OutboxPlace(
        daemon._directory, instance.socket, daemon.delivery.open_names, daemon.use_new_directory
    )


def confirmed_all(daemon: EventLoop, steady: Steady) -> bool:  # noqa: F811
    look_at(daemon)
    return steady.confirmed == steady.accepted


def lost(daemon: EventLoop, instance: Instance) -> int:  # noqa: F811
    look_at(daemon)
    return int(collect_status(instance.config)["lost"])


MORE_THAN_QUEUED = 3000  # events that are in an outbox, and not all in the socket's queue
ONE_RING = 250 * 1024  # a client's room that holds them all, and is never followed by a larger one


def test_what_removed_outboxes_hold_unread_is_stored_and_their_producers_go_on(
    instance: Instance,
    daemon: EventLoop,  # noqa: F811
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
        daemon._store.reload_erasure_list()
        identity = directory_identity(instance.config.outbox_directory)
        assert daemon._store.erasure_list.boundaries.outboxes == identity
    look_at(daemon)
    assert list(instance.config.outbox_directory.glob("*.outbox")) == []
    state = collect_status(instance.config)
    assert (state["lost"], state["unknown_extent"]) == (0, 0)
    check_sums(state, attempted=steady.accepted, accepted=steady.accepted)


def test_what_went_unread_with_its_directory_is_a_loss_by_number(
    instance: Instance,
    daemon: EventLoop,  # noqa: F811
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
    daemon: EventLoop,  # noqa: F811
    kept: OutboxPlace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = SimpleNamespace(outboxes=None)
    with monkeypatch.context() as patch:
        patch.setattr(daemon, "_worker", worker)
        shutil.rmtree(instance.config.outbox_directory)
        kept.put_back()
    assert worker.outboxes == instance.config.outbox_directory
    name = outbox_name(os.getuid(), 7)
    (instance.config.outbox_directory / name).write_bytes(b"")
    assert daemon.closed_files.names(daemon.wait(0)) == [name]


def test_inotify_is_taken_up_again_once_the_kernel_has_a_watch(
    instance: Instance,
    daemon: EventLoop,  # noqa: F811
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
    daemon: EventLoop,  # noqa: F811
) -> None:
    config = instance.config
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit("page_view")
        config.socket.unlink()
        daemon.replace_socket(bind(config.socket, socket.SOCK_DGRAM, 0o600), 11)
        assert client.emit("page_view") is False, "refused, and counted: it was never accepted"
        parts.producer(client)._connect_after_s = 0.0
        assert client.emit("page_view")
        look_at(daemon)
        stats = client.stats()
    look_at(daemon)
    state = collect_status(config)
    assert (state["stored"], state["refused_by_clients"]) == (2, 1)
    check_sums(state, attempted=3, accepted=stats["accepted"], refused=stats["refused"])


@pytest.mark.parametrize("systemd", [False, True])
def test_what_is_looked_after_and_by_whom(
    instance: Instance,
    daemon: EventLoop,  # noqa: F811
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
        by_hand = {"configuration", "key", "metrics socket", "anchors"}
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


# -- the datagram socket ---------------------------------------------------------------------------


def test_a_socket_that_is_replaced_loses_nothing_that_the_kernel_took(tmp_path: Path) -> None:
    path = tmp_path / "logd.sock"
    receiver = Receiver(bind(path, socket.SOCK_DGRAM, 0o600))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
        old.connect(str(path))
        for number in range(3):
            old.send(b"%d" % number)
        former = receiver.socket
        path.unlink()
        receiver.replace(bind(path, socket.SOCK_DGRAM, 0o600))
        with pytest.raises(OSError):
            old.send(b"is not taken, so nobody counts it")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as new:
            new.connect(str(path))
            new.send(b"3")
            reading = receiver.datagrams()
            assert [next(reading)[:3] for _ in range(2)] == [
                (b"0", os.getuid(), os.getpid()), (b"1", os.getuid(), os.getpid()),
            ]  # fmt: skip
            del reading  # no room in the batch: the rest at the next turn
            assert former.fileno() >= 0
            assert [data for data, *_ in receiver.datagrams()] == [b"2", b"3"]
            assert former.fileno() == -1
    receiver.close()


def test_a_socket_at_which_another_instance_receives_is_not_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "logd.sock"
    with bind(path, socket.SOCK_DGRAM, 0o600) as first:
        with pytest.raises(
            CannotCreate, match="another process, not of this instance, receives there"
        ):
            bind(path, socket.SOCK_DGRAM, 0o600)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(path))
            client.send(b"1")
        assert first.recv(10) == b"1"
    bind(path, socket.SOCK_DGRAM, 0o600).close()  # once its process has ended


def test_a_query_socket_at_which_another_instance_listens_is_not_taken_back(
    instance: Instance,
    daemon: EventLoop,  # noqa: F811
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


# -- the lock file ---------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from logd.instance_lock import instance_lock
with instance_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def held_by_another(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize("left", ["nothing", "a copy"])
def test_a_lock_file_that_was_removed_is_made_again_and_keeps_others_away(
    tmp_path: Path, left: str
) -> None:
    path = tmp_path / "activity.db.lock"
    with instance_lock(path) as lock:
        lock.mark_database_made()
        lock.set_trouble("full")
        kept = path.read_bytes()[:PAGE_BYTES]
        path.unlink()
        if left == "a copy":
            path.write_bytes(b"torn")
        lock.put_back()
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        ) as second:  # fmt: skip
            assert f"another logd (pid {os.getpid()}) serves" in second.communicate()[1]
        # To read it here closes it, which drops this process's lock: not before.
        assert path.read_bytes()[:PAGE_BYTES] == kept
        lock.set_trouble(None)
        assert read_lock_page(path)[1].trouble is None, "what it says is written there from now on"


def test_a_lock_file_that_is_moved_back_before_it_is_made_again_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close either descriptor of it drops this process's lock."""
    path = tmp_path / "activity.db.lock"

    def check_is_locked() -> None:
        with pytest.raises(AssertionError):
            held_by_another(path).communicate()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with instance_lock(path) as lock:
        lock.put_back()
        check_is_locked()
        monkeypatch.setattr(lock, "_lay_out", refuse)
        with pytest.raises(OSError):
            lock.put_back()
        check_is_locked()


def test_a_daemon_whose_lock_file_another_has_by_now_ends(tmp_path: Path) -> None:
    path = tmp_path / "activity.db.lock"
    with instance_lock(path) as lock:
        path.unlink()
        with held_by_another(path) as other:
            with pytest.raises(AlreadyRunning, match=f"pid {other.pid}"):
                lock.put_back()
            other.communicate()


# -- the database ----------------------------------------------------------------------------------

OWN = Producer(uid=1, id=2, seed=3)


def batch(*sequences: int) -> Batch:
    made = Batch(100, 10_000)
    for sequence in sequences:
        made.add(OWN, sequence, Event("page_view", 5, None, b"\x80"), 1)
        OWN.taken = sequence
    return made


@pytest.fixture
def store(instance: Instance) -> Iterator[Store]:
    OWN.row, OWN.stored, OWN.taken = None, 0, 0
    config = instance.config
    made = Store(config.database, keyfile.read(config.key_file), 1, 10)
    made.commit(batch(1), 2)
    yield made
    made._connection.close()


def stored(instance: Instance, path: Path) -> int:
    config = instance.config
    opened = Store(path, keyfile.read(config.key_file), 1, 10)
    (count,) = opened.connection.execute("SELECT count(*) FROM event").fetchone()
    opened._connection.close()
    return int(count)


@pytest.mark.parametrize("left", ["nothing", "another database"])
def test_what_is_committed_to_a_file_without_a_name_is_not_confirmed_and_saved(
    instance: Instance, store: Store, left: str
) -> None:
    path = instance.config.database
    for file in (path, wal_path(path), shm_path(path)):
        file.unlink()
    if left == "another database":
        path.write_bytes(b"")
    with pytest.raises(DatabaseGone, match="Everything it held is saved in") as raised:
        store.commit(batch(2), 3)
    assert raised.value.exit_code == 65
    assert ("was removed" if left == "nothing" else "was replaced") in str(raised.value)
    (saved,) = path.parent.glob("activity.db.saved-*")
    assert saved.stat().st_mode & 0o077 == 0
    assert OWN.stored == 0, "the caller never settles it"
    assert stored(instance, saved) == 2


def test_a_database_whose_folder_was_renamed_is_not_copied(
    instance: Instance, store: Store
) -> None:
    path = instance.config.database
    aside = path.with_name("elsewhere.db")
    path.rename(aside)
    with pytest.raises(DatabaseGone, match="has another name now"):
        store.check_files()
    assert not list(path.parent.glob("activity.db.saved-*"))


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("left", ["nothing", "another file"])
def test_without_its_wal_nothing_is_confirmed_and_what_was_is_in_the_database(
    instance: Instance, store: Store, suffix: str, left: str
) -> None:
    path = instance.config.database
    file = path.with_name(path.name + suffix)
    # SQLite moves the WAL into the database when the last one that has it open closes it.
    reader = connect(path, keyfile.read(instance.config.key_file), read_only=True)
    file.unlink()
    if left == "another file":
        file.write_bytes(b"not the WAL of this database")
    with pytest.raises(StorageFailed, match=r"What was confirmed is in the database") as raised:
        store.commit(batch(2), 3)
    assert raised.value.exit_code == 74
    assert str(file) in str(raised.value)
    assert not file.exists()
    aside = list(path.parent.glob("*.foreign-*"))
    assert [one.read_bytes() for one in aside] == (
        [b"not the WAL of this database"] if left == "another file" else []
    )
    assert stored(instance, path) == 2
    reader.close()


def test_nothing_is_wrong_with_a_database_that_is_there(store: Store) -> None:
    store.check_files()
    assert store.vacuum(lambda: True)
    assert store.truncate_wal()
    store.commit(batch(2), 3)
    store.check_files()
