"""An outbox as a file: whole and locked before it has its name, and left to the daemon."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd_client import outbox_file
from logd_client.outbox_file import OutboxFile
from logd_wire import liveness
from logd_wire.forks import current
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MAX,
    RING_BYTES_MIN,
    WORD_MAGIC,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.names import TEMPORARY_PREFIX, outbox_name
from logd_wire.rendezvous import (
    MODE_PRIVATE,
    NoOutbox,
    Rendezvous,
    current_boot_id,
    make_directory,
    new_token,
    write_rendezvous,
)

PRODUCER = 0xABCDEF


class Place:
    """A directory of outboxes as a daemon has prepared it."""

    def __init__(self, root: Path) -> None:
        self.socket_path = str(root / "logd.sock")
        self.directory = root / "outboxes"
        token = new_token()
        make_directory(str(self.directory), token, MODE_PRIVATE)
        write_rendezvous(
            self.socket_path, Rendezvous(str(self.directory), token, current_boot_id())
        )

    def new(self, ring_bytes: int = RING_BYTES_MIN) -> OutboxFile:
        return OutboxFile(self.socket_path, None, PRODUCER, ring_bytes, 5, current().mark)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.name != "token")

    @property
    def file(self) -> Path:
        return self.directory / outbox_name(os.geteuid(), PRODUCER)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    before = os.listdir("/proc/self/fd")
    yield Place(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == len(before), "a descriptor was left open"


def test_a_new_outbox_is_a_whole_file_under_the_name_of_its_producer(place: Place) -> None:
    made = place.new()
    status = place.file.stat()
    header = parse_header(place.file.read_bytes()[:HEADER_BYTES], status.st_size)
    made.close()
    assert place.names == [f"{os.geteuid()}-0000000000abcdef.outbox"]
    assert (header.producer_id, header.pid, header.created_ns) == (PRODUCER, os.getpid(), 5)
    assert status.st_size == outbox_bytes(RING_BYTES_MIN)
    assert status.st_blocks * 512 >= status.st_size, "allocated, not sparse"


def test_its_mode_lets_the_daemons_group_in_whatever_the_umask(place: Place) -> None:
    before = os.umask(0o777)
    try:
        place.new().close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o660


def test_it_is_created_under_a_temporary_name_locked_allocated_and_only_then_renamed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def watch(module: object, name: str) -> None:
        real = getattr(module, name)

        def watched(*args: object, **kwargs: object) -> object:
            order.append(name)
            assert place.names == ([TEMPORARY_PREFIX + place.file.name] if order[1:] else [])
            if name == "rename":
                (temporary,) = place.directory.glob(TEMPORARY_PREFIX + "*")
                assert any(temporary.read_bytes()[WORD_MAGIC * 8 : 8]), "the header is written"
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    watch(outbox_file, "open_directory")
    watch(liveness, "acquire")
    watch(os, "posix_fallocate")
    watch(os, "rename")
    place.new().close()
    assert order == ["open_directory", "acquire", "posix_fallocate", "rename"]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (0, RING_BYTES_MIN),
        (RING_BYTES_MIN + 4097, RING_BYTES_MIN + 4096),
        (RING_BYTES_MAX + 8, RING_BYTES_MAX),
    ],
)
def test_a_rings_size_is_brought_within_its_limits(
    place: Place, monkeypatch: pytest.MonkeyPatch, asked: int, got: int
) -> None:
    allocated: list[int] = []

    def no_space(_fd: int, _offset: int, length: int) -> None:
        allocated.append(length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(NoOutbox, match=f"an outbox of {got} bytes: No space left"):
        place.new(asked)
    assert allocated == [outbox_bytes(got)]


def test_without_room_there_is_no_outbox_and_no_part_of_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step in ("posix_fallocate", "fchmod", "rename"):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, no_space)
            with pytest.raises(NoOutbox, match="No space left on device"):
                place.new()
        assert place.names == []


def test_two_producers_of_one_id_do_not_share_a_file(place: Place) -> None:
    (place.directory / (TEMPORARY_PREFIX + place.file.name)).touch()
    with pytest.raises(FileExistsError):
        place.new()


def test_what_is_written_stays_when_the_producer_lets_go(place: Place) -> None:
    made = place.new()
    record = made.writer.append(b"hello")
    made.close()
    assert record is not None
    assert place.file.read_bytes()[HEADER_BYTES:].startswith(record)


def test_after_it_is_closed_nothing_can_be_written(place: Place) -> None:
    made = place.new()
    made.close()
    with pytest.raises(ValueError, match="released"):
        made.writer.append(b"late")


def test_a_process_with_the_rights_of_another_user_gets_no_outbox_and_leaves_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel names its datagrams by one user and its files by the other: two producers."""
    real = os.geteuid()
    monkeypatch.setattr(os, "getuid", lambda: real + 1)
    with pytest.raises(NoOutbox, match="different real and effective user ids"):
        place.new()
    assert place.names == []
