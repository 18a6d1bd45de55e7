"""The outboxes' directory of a running daemon is restored, and its outboxes with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.batch import Producer
from logd.errors import CannotCreate
from logd.ingest.ended_producers import drop_missing
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.outbox_place import OutboxPlace
from logd_client import Client
from logd_wire.outbox.names import outbox_name
from logd_wire.rendezvous import open_directory, read_rendezvous, read_token, rendezvous_path
from tests.support import client_parts as parts
from tests.support.instance import Instance


class Place:
    """A daemon's outbox directory and what restores it."""

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
    """Their producers live: each is found under its name, and none has to open another."""
    with Client(place.instance.socket) as client:
        assert client.emit("page_view")
        outbox = parts.outbox(client)
        name = outbox_name(os.getuid(), parts.producer(client).id)
        made = (place.path / name).stat()
        aside = place.path.with_name(f"{place.path.name}-aside")
        place.path.rename(aside)
        if left == "a copy":
            shutil.copytree(aside, place.path)
        place.place.put_back()
        place.check_is_found()
        assert place.followed == 1
        assert place.names() == [name]
        assert outbox.intact() and not outbox.removed()
        assert os.path.samestat((place.path / name).stat(), made)
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
