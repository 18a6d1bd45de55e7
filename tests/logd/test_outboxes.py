"""What the daemon says in the outboxes that it opens."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from logd.outboxes import Outboxes
from shared.outbox import RING_BYTES_MIN, WORD_RETIRED, OutboxWriter, outbox_bytes
from shared.outbox_file import outbox_name

PRODUCER = 5


@pytest.fixture
def retired(tmp_path: Path) -> Path:
    """An outbox as a daemon leaves it that is killed between word 19 and the removal."""
    data = bytearray(outbox_bytes(RING_BYTES_MIN))
    writer = OutboxWriter(memoryview(data), PRODUCER, pid=1, now_ns=1)
    writer._words[WORD_RETIRED] = 1
    path = tmp_path / outbox_name(os.getuid(), PRODUCER)
    path.write_bytes(data)
    return path


def opened(path: Path, *, read_only: bool = False) -> int:
    """Word 19 once it is open."""
    outboxes = Outboxes(path.parent, read_only=read_only)
    outboxes.attach()
    outbox = outboxes.open(path.name, os.getuid(), PRODUCER)
    assert outbox is not None
    outboxes.release(outbox)
    outboxes.close()
    return int.from_bytes(path.read_bytes()[WORD_RETIRED * 8 :][:8], sys.byteorder)


def test_an_outbox_that_is_opened_is_retired_no_longer(retired: Path) -> None:
    """Or its producer would write again what this daemon reads, if a cleaner removes the file."""
    assert opened(retired) == 0


def test_who_only_looks_at_outboxes_leaves_them_as_they_are(retired: Path) -> None:
    assert opened(retired, read_only=True) == 1


def test_an_outbox_that_cannot_be_written_to_is_opened_all_the_same(
    retired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert opened(retired) == 1
