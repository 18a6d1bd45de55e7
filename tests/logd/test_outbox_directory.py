"""Opening and refusing outboxes, and what the daemon writes into their headers."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logd.ingest.outbox_directory import OutboxDirectory
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    WORD_GIVEN_UP,
    WORD_PRODUCER,
    WORD_RETIRED,
    WORD_VERSION,
    WORD_WATCHED_UNTIL_NS,
    WORD_WRITTEN,
    outbox_bytes,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import WireError

PRODUCER = 5


def written(directory: Path, words: dict[int, int]) -> Path:
    """A sound outbox with these words in its header."""
    data = bytearray(outbox_bytes(RING_BYTES_MIN))
    OutboxWriter(memoryview(data), PRODUCER, pid=1, now_ns=1)
    for index, value in words.items():
        memoryview(data).cast("Q")[index] = value
    path = directory / outbox_name(os.getuid(), PRODUCER)
    path.write_bytes(data)
    return path


@pytest.fixture
def retired(tmp_path: Path) -> Path:
    """An outbox as a daemon leaves it that is killed between word 19 and the removal."""
    return written(tmp_path, {WORD_RETIRED: 1, WORD_GIVEN_UP: 1})


def opened(path: Path, *, read_only: bool = False) -> int:
    """Words 19 and 20 once it is open, which are the same."""
    outboxes = OutboxDirectory(path.parent, read_only=read_only)
    outboxes.attach()
    outbox = outboxes.open(path.name, os.getuid(), PRODUCER)
    assert outbox is not None
    outboxes.release(outbox)
    outboxes.close()
    assert word(path, WORD_RETIRED) == word(path, WORD_GIVEN_UP)
    return word(path, WORD_RETIRED)


def test_an_outbox_that_is_opened_is_retired_no_longer(retired: Path) -> None:
    """Otherwise its producer would write again what is read here, if a cleaner removes the file."""
    assert opened(retired) == 0


def test_opening_outboxes_read_only_changes_nothing_in_them(retired: Path) -> None:
    assert opened(retired, read_only=True) == 1


def test_an_outbox_that_cannot_be_written_to_is_opened_all_the_same(
    retired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert opened(retired) == 1


# -- a file that is refused ----------------------------------------------------------------------


def word(path: Path, index: int) -> int:
    return int.from_bytes(path.read_bytes()[index * 8 :][:8], sys.byteorder)


def store(path: Path, index: int, value: int) -> None:
    with open(path, "r+b") as file:
        file.seek(index * 8)
        file.write(value.to_bytes(8, sys.byteorder))


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A sound outbox that a daemon has promised to look at."""
    return written(tmp_path, {WORD_WATCHED_UNTIL_NS: 2**62})


def refuse(path: Path, producer_id: int = PRODUCER) -> str:
    """Opens the file as the daemon does; returns why it is refused."""
    outboxes = OutboxDirectory(path.parent)
    outboxes.attach()
    try:
        with pytest.raises(WireError) as refused:
            outboxes.open(path.name, os.getuid(), producer_id)
        assert outboxes.open(path.name, os.getuid(), producer_id) is None, "not looked at again"
    finally:
        outboxes.close()
    return refused.value.reason


TOLD: dict[str, Callable[[Path], object]] = {
    "impossible sequence": lambda path: store(path, WORD_WRITTEN, 2**63),
    "impossible position": lambda path: store(path, WORD_CONFIRMED_POSITION, 2**63),
    "another producer's outbox": lambda path: store(path, WORD_PRODUCER, PRODUCER + 1),
    "not its owner's": lambda path: os.chown(path, 65534, -1),
    "sparse file": lambda path: punch(path),
}


def punch(path: Path) -> None:
    """Punch a hole after the header."""
    data = path.read_bytes()
    path.unlink()
    with open(path, "wb") as file:
        file.write(data[:HEADER_BYTES])
        file.truncate(len(data))


@pytest.mark.parametrize("reason", TOLD)
def test_the_header_of_a_refused_outbox_asks_its_producer_for_a_successor(
    watched: Path, reason: str
) -> None:
    if os.getuid() and reason == "not its owner's":
        pytest.skip("only root can give a file away")
    TOLD[reason](watched)
    assert refuse(watched) == reason
    assert (word(watched, WORD_GIVEN_UP), word(watched, WORD_WATCHED_UNTIL_NS)) == (1, 0)


def write_over(path: Path) -> None:
    path.write_bytes(b"not ours" * 10_000)


UNTOUCHED: dict[str, Callable[[Path], object]] = {
    "not an outbox": write_over,
    "truncated outbox": lambda path: os.truncate(path, 4095),
    "impossible ring": lambda path: os.truncate(path, outbox_bytes(RING_BYTES_MIN) + 8),
    "other version": lambda path: store(path, WORD_VERSION, 2),
    "has other links": lambda path: os.link(path, path.with_name("another")),
}


@pytest.mark.parametrize("reason", UNTOUCHED)
def test_nothing_is_written_into_what_may_be_another_programs_file(
    watched: Path, reason: str
) -> None:
    """A user may put a link to another file under an outbox's name."""
    UNTOUCHED[reason](watched)
    before = watched.read_bytes()
    outboxes = OutboxDirectory(watched.parent)
    outboxes.attach()
    with pytest.raises(WireError) as refused:
        outboxes.open(watched.name, os.getuid(), PRODUCER)
    outboxes.close()
    assert refused.value.reason == reason
    assert watched.read_bytes() == before


def test_a_file_that_another_takes_the_name_of_while_it_is_refused_is_looked_at(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark changes the refused file, so it is remembered as it is afterwards: itself alone."""
    good = watched.read_bytes()
    store(watched, WORD_WRITTEN, 2**63)
    pwrite = os.pwrite

    def replaced_then(fd: int, data: bytes, offset: int) -> int:
        if watched.exists():
            watched.unlink()
            watched.write_bytes(good)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", replaced_then)
    outboxes = OutboxDirectory(watched.parent)
    outboxes.attach()
    with pytest.raises(WireError):
        outboxes.open(watched.name, os.getuid(), PRODUCER)
    opened = outboxes.open(watched.name, os.getuid(), PRODUCER)
    assert opened is not None
    outboxes.release(opened)
    outboxes.close()
