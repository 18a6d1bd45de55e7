"""Client and daemon find the same directory of outboxes, or the client knows that it has none."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from logd_wire.rendezvous import (
    MODE_PRIVATE,
    MODE_SHARED,
    TOKEN_NAME,
    NoOutbox,
    Rendezvous,
    current_boot_id,
    make_directory,
    new_token,
    open_directory,
    read_rendezvous,
    read_token,
    rendezvous_path,
    write_rendezvous,
)
from tests.support.namespaces import needs_machine_root, needs_users


class Place:
    """An instance as a daemon has prepared it: a socket's path and a directory of outboxes."""

    def __init__(self, root: Path) -> None:
        self.socket_path = str(root / "logd.sock")
        self.directory = root / "outboxes"
        self.token = new_token()
        make_directory(str(self.directory), self.token, MODE_PRIVATE)
        self.tell()

    def tell(self, boot_id: str | None = None) -> None:
        boot_id = current_boot_id() if boot_id is None else boot_id
        write_rendezvous(self.socket_path, Rendezvous(str(self.directory), self.token, boot_id))

    @property
    def file(self) -> Path:
        return Path(rendezvous_path(self.socket_path))

    def opened(self, directory: str | None = None) -> tuple[int, int]:
        """Which directory a client opens: its device and inode."""
        fd, _, _ = open_directory(self.socket_path, directory)
        try:
            status = os.fstat(fd)
            return status.st_dev, status.st_ino
        finally:
            os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_a_client_finds_the_directory_from_the_sockets_path_alone(place: Place) -> None:
    assert place.opened() == identity(place.directory)


def test_a_client_given_another_path_uses_it_if_it_is_the_daemons(place: Place) -> None:
    other = place.directory.with_name("elsewhere")
    place.directory.rename(other)
    assert place.opened(str(other)) == identity(other)


def test_what_is_written_is_read_back(place: Place) -> None:
    expected = Rendezvous(str(place.directory), place.token, current_boot_id())
    assert read_rendezvous(place.socket_path) == expected
    assert [path.name for path in place.file.parent.glob("logd.sock*")] == ["logd.sock.outboxes"]


def test_before_the_daemon_was_ever_there_the_error_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(NoOutbox, match="logd init"):
        open_directory(str(tmp_path / "logd.sock"))


def test_a_directory_with_another_token_is_another_daemons(place: Place) -> None:
    make_directory(str(place.directory), new_token(), MODE_PRIVATE)
    with pytest.raises(NoOutbox, match="another daemon's: its token differs"):
        place.opened()


def test_a_directory_without_a_token_is_not_taken(place: Place) -> None:
    (place.directory / TOKEN_NAME).unlink()
    with pytest.raises(NoOutbox, match="token"):
        place.opened()


def test_a_directory_missing_in_this_very_boot_is_in_another_namespace(place: Place) -> None:
    (place.directory / TOKEN_NAME).unlink()
    place.directory.rmdir()
    with pytest.raises(NoOutbox, match="its own /dev/shm"):
        place.opened()
    assert not place.directory.exists()


def test_after_a_reboot_its_owner_makes_the_directory_again_before_the_daemon(
    place: Place,
) -> None:
    (place.directory / TOKEN_NAME).unlink()
    place.directory.rmdir()
    place.tell(boot_id="an-earlier-one")
    assert place.opened() == identity(place.directory)
    assert stat.S_IMODE(place.directory.stat().st_mode) == MODE_PRIVATE
    assert read_token(str(place.directory)) == place.token
    assert read_rendezvous(place.socket_path).boot_id == current_boot_id()


def test_after_a_reboot_a_directory_that_cannot_be_made_means_no_outbox(place: Place) -> None:
    place.directory = place.directory / "in" / "nothing"
    place.tell(boot_id="an-earlier-one")
    with pytest.raises(NoOutbox, match="cannot be made"):
        place.opened()


@needs_machine_root
def test_a_directory_of_another_user_than_the_daemon_is_not_taken(place: Place) -> None:
    os.chown(place.directory, 65534, -1)
    with pytest.raises(NoOutbox, match="belongs to uid 65534, logd runs as 0"):
        place.opened()


@needs_users
def test_the_daemon_does_not_take_another_users_directory_for_its_own(place: Place) -> None:
    os.chown(place.directory, 65534, -1)
    with pytest.raises(NoOutbox, match="belongs to uid 65534"):
        make_directory(str(place.directory), place.token, MODE_PRIVATE)


def test_a_link_is_followed_neither_to_the_directory_nor_to_the_token(place: Place) -> None:
    real = place.directory.with_name("real")
    place.directory.rename(real)
    place.directory.symlink_to(real)
    with pytest.raises(NoOutbox):
        place.opened()
    with pytest.raises(NoOutbox):
        make_directory(str(place.directory), place.token, MODE_PRIVATE)
    place.directory.unlink()
    real.rename(place.directory)
    token = place.directory / TOKEN_NAME
    token.rename(place.directory / "other")
    token.symlink_to("other")
    with pytest.raises(NoOutbox):
        place.opened()
    assert read_token(str(place.directory)) is None


def test_a_pipe_in_place_of_a_file_is_not_waited_for(place: Place) -> None:
    token = place.directory / TOKEN_NAME
    token.unlink()
    os.mkfifo(token)
    with pytest.raises(NoOutbox, match="token differs"):
        place.opened()
    place.file.unlink()
    os.mkfifo(place.file)
    with pytest.raises(NoOutbox, match="does not name a directory"):
        place.opened()


def test_a_refused_directory_leaves_no_descriptor_open(place: Place) -> None:
    (place.directory / TOKEN_NAME).write_text("x")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(NoOutbox):
            place.opened()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("mode", [MODE_PRIVATE, MODE_SHARED])
def test_the_directory_gets_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o777)
    try:
        make_directory(str(tmp_path / "d"), new_token(), mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "d" / TOKEN_NAME).stat().st_mode) == 0o644


def test_after_a_reboot_only_the_owner_makes_the_directory(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made by another it would be that one's, and the daemon could not use it."""
    (place.directory / TOKEN_NAME).unlink()
    place.directory.rmdir()
    place.tell(boot_id="an-earlier-one")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(NoOutbox, match="is not there"):
        place.opened()
    assert not place.directory.exists()


def test_a_directory_that_is_there_keeps_its_files_and_gets_the_token(place: Place) -> None:
    (place.directory / "an.outbox").write_bytes(b"x")
    make_directory(str(place.directory), "0" * 32, MODE_SHARED)
    assert read_token(str(place.directory)) == "0" * 32
    assert (place.directory / "an.outbox").read_bytes() == b"x"
    assert sorted(path.name for path in place.directory.iterdir()) == ["an.outbox", TOKEN_NAME]


@pytest.mark.parametrize("text", ["", "short", "g" * 32, "0" * 33, "0" * 31 + "A"])
def test_an_invalid_token_is_not_read_as_one(place: Place, text: str) -> None:
    (place.directory / TOKEN_NAME).write_text(text)
    assert read_token(str(place.directory)) is None


def test_tokens_are_random() -> None:
    assert len({new_token() for _ in range(100)}) == 100


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_half_of_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Rendezvous] = []
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        seen.append(read_rendezvous(place.socket_path))
        done = write(fd, data)
        seen.append(read_rendezvous(place.socket_path))
        return done

    monkeypatch.setattr(os, "write", watched)
    before = read_rendezvous(place.socket_path)
    place.tell(boot_id="the-next-one")
    assert seen == [before, before]
    assert read_rendezvous(place.socket_path).boot_id == "the-next-one"


def test_a_boot_has_an_id() -> None:
    with contextlib.suppress(FileNotFoundError):
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert current_boot_id() == text


def test_a_child_forked_while_it_is_read_takes_nothing_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It continues in the same call with the same open file, whose offset both share."""
    expected = read_rendezvous(place.socket_path)
    real_open = os.open

    def open_and_fork(*arguments: Any, **options: Any) -> int:
        fd = real_open(*arguments, **options)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            child = os.fork()
            if child == 0:
                os.read(fd, 4096)
                os._exit(0)
            os.waitpid(child, 0)
        return fd

    monkeypatch.setattr(os, "open", open_and_fork)
    assert read_rendezvous(place.socket_path) == expected
    assert place.opened() == identity(place.directory)
