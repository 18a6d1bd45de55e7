"""Whatever stands where the outboxes' directory should be, a self-contained instance starts."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.config import settings as configuration
from logd.errors import CannotCreate
from logd.ingest.outbox_directory import OutboxDirectory
from logd_client import Client
from logd_wire import rendezvous
from logd_wire.rendezvous import (
    MODE_PRIVATE,
    MODE_SHARED,
    NoOutbox,
    NotOurs,
    default_directory,
    make_directory,
    open_directory,
    read_rendezvous,
    read_token,
)
from tests.support.instance import Instance, check_sums
from tests.support.namespaces import needs_users

HOSTILE_UID = 65534


@pytest.fixture
def place(instance: Instance) -> Iterator[Path]:
    """Where the instance's outboxes are to be; nothing is there, as after a reboot."""
    path = instance.config.outbox_directory
    assert str(path) == default_directory(instance.socket)
    shutil.rmtree(path)
    yield path
    for left in path.parent.glob(f"{path.name}*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def prepared(instance: Instance) -> Path:
    """Where a daemon that starts now puts the outboxes."""
    outboxes = OutboxDirectory(instance.config.outbox_directory)
    outboxes.prepare(instance.socket)
    outboxes.close()
    return outboxes.path


def squat(path: Path, kind: str) -> None:
    if kind == "link":
        path.symlink_to("/dev/shm")
    elif kind == "dangling":
        path.symlink_to("/nowhere/at/all")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "file":
        path.write_text("0" * 32)
    else:
        path.mkdir()
        (path / "token").write_text("0" * 32 + "\n")
        os.chown(path, HOSTILE_UID, HOSTILE_UID)
        path.chmod(int(kind, 8))


@pytest.mark.parametrize(
    "kind",
    ["link", "dangling", "pipe", "socket", "file"]
    + [pytest.param(mode, marks=needs_users) for mode in ("0755", "0700", "0000", "3733")],
)
def test_another_name_is_taken_reported_and_followed(
    instance: Instance, place: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    squat(place, kind)
    before = os.lstat(place)
    taken = prepared(instance)
    assert taken.name.startswith(f"{place.name}-")
    assert taken != place
    assert stat.S_IMODE(taken.stat().st_mode) == MODE_PRIVATE
    assert os.lstat(place) == before
    (said,) = caplog.messages
    assert said.startswith(f"outboxes: {place}")
    assert said.endswith(f"They are in {taken} instead, as clients know")
    found = open_directory(instance.socket).fd
    assert os.path.samestat(os.fstat(found), taken.stat())
    os.close(found)
    assert instance.config.outbox_directory == taken  # status, check and all who ask
    assert read_token(str(taken)) != "0" * 32


def test_the_name_once_taken_is_kept_while_events_may_be_there(
    instance: Instance, place: Path
) -> None:
    squat(place, "file")
    taken = prepared(instance)
    place.unlink()
    assert prepared(instance) == taken
    shutil.rmtree(taken)  # a reboot
    assert prepared(instance) == taken
    shutil.rmtree(taken)
    squat(taken, "file")  # it has been read where it is
    assert prepared(instance) == place
    shutil.rmtree(place)
    squat(place, "file")
    squat_again = prepared(instance)
    assert squat_again not in (place, taken)


def test_a_squatted_instance_stores_what_a_client_logs_before_and_after_a_kill(
    instance: Instance, place: Path
) -> None:
    squat(place, "file")
    daemon = instance.start()
    assert daemon.says("instead, as clients know")
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="7")
        assert client.flush(10)
        assert client.stats()["outbox"]["reason"] is None
        instance.kill()
        assert client.emit("page_view", user="7")
    assert instance.status()["pending"] == 1
    instance.start()
    check_sums(instance.settle(), attempted=2, accepted=2)
    assert instance.status()["stored"] == 2


def test_a_directory_that_was_configured_is_not_put_elsewhere(
    instance: Instance, place: Path
) -> None:
    other = place.with_name(f"{place.name}-configured")
    squat(other, "file")
    instance.configure(outbox_directory=str(other))
    with pytest.raises(CannotCreate, match="Not a directory"):
        prepared(instance)


def test_a_failure_that_passes_does_not_leave_events_behind(
    instance: Instance, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own directory, with events in it, is not given up for want of a descriptor."""
    assert prepared(instance) == place
    real = os.open

    def scarce(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_PATH and path == str(place):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(rendezvous.os, "open", scarce)  # type: ignore[attr-defined] # os, as it has it
        with pytest.raises(CannotCreate, match="Too many open files"):
            prepared(instance)
    assert prepared(instance) == place


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOTCONN, errno.EIO, errno.ESTALE])
def test_a_file_system_that_another_user_mounted_there_is_not_ours(
    place: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    place.mkdir()

    def fail(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(rendezvous.os, "fstat", fail)  # type: ignore[attr-defined] # os, as it has it
        with pytest.raises(NotOurs):
            make_directory(str(place), None, MODE_PRIVATE)


@needs_users
@pytest.mark.parametrize("mode", [0o000, 0o077, 0o100, 0o500])
def test_a_directory_of_ours_with_the_wrong_mode_gets_the_right_one(place: Path, mode: int) -> None:
    os.seteuid(HOSTILE_UID)  # a user without rights over everything
    try:
        token = make_directory(str(place), None, MODE_PRIVATE)
        place.chmod(mode)
        assert make_directory(str(place), None, MODE_SHARED) in (token, read_token(str(place)))
    finally:
        os.seteuid(0)
    assert stat.S_IMODE(place.stat().st_mode) == MODE_SHARED


def test_names_taken_in_the_directory_do_not_keep_the_token_out(place: Path) -> None:
    """In a shared directory any user makes files, also with names that the daemon uses."""
    make_directory(str(place), None, MODE_SHARED)
    for pid in range(os.getpid() - 50, os.getpid() + 50):
        (place / f".token.{pid}").symlink_to("/nowhere")
    make_directory(str(place), "1" * 32, MODE_SHARED)
    assert read_token(str(place)) == "1" * 32


def test_no_other_user_can_make_a_file_before_the_token_is_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = os.rename

    def seen(*names: Any, **options: Any) -> None:
        modes.append(stat.S_IMODE(place.stat().st_mode))
        real(*names, **options)

    monkeypatch.setattr(rendezvous.os, "rename", seen)  # type: ignore[attr-defined] # os, as it has it
    make_directory(str(place), None, MODE_SHARED)
    assert modes == [0o700]


def test_beside_a_copied_instance_the_originals_directory_is_not_taken(
    instance: Instance, place: Path, directory: Path
) -> None:
    squat(place, "file")
    taken = prepared(instance)
    copy = directory / "copy"
    shutil.copytree(instance.directory, copy)
    assert read_rendezvous(str(copy / "logd.sock")).directory == str(taken)
    assert str(configuration.load(copy / "logd.toml").outbox_directory) == default_directory(
        str(copy / "logd.sock")
    )


def test_a_directory_that_cannot_be_made_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoOutbox, match="cannot be made"):
        make_directory(str(tmp_path / "none" / "d"), None, MODE_PRIVATE)
