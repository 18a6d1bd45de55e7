"""Bounds of the client that no other test reaches, set low."""

from __future__ import annotations

from pathlib import Path

import pytest

from logd_client import Client
from logd_wire import rendezvous
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WATCHED_NS_MAX,
    WORD_WATCHED_UNTIL_NS,
    outbox_bytes,
)
from logd_wire.outbox.names import SUFFIX
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.rendezvous import NoOutbox, read_rendezvous, rendezvous_path
from tests.support.instance import Instance


def mapped(instance: Instance) -> int:
    """Outboxes of this instance that this process has in memory."""
    directory = str(instance.config.outbox_directory)
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(directory in line and SUFFIX in line for line in lines)


def test_of_outboxes_that_were_removed_a_few_are_kept_and_the_counts_are_of_all(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleaner that comes again and again takes no memory of the application's."""
    monkeypatch.setattr("logd_client.former_producers.FORMER_PRODUCERS_MAX", 2)
    monkeypatch.setattr("logd_client.former_producers.CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr("logd_client.succession.COMPARE_INTERVAL_S", 0.0)
    most = 0
    with Client(instance.socket, outbox_bytes=RING_BYTES_MIN) as client:
        for count in range(1, 13):
            assert client.emit("page_view")
            most = max(most, mapped(instance))
            for path in instance.config.outbox_directory.glob(f"*{SUFFIX}"):
                path.unlink()
            stats = client.stats()
            assert (stats["attempted"], stats["accepted"], stats["pending"]) == (count,) * 3
    assert 2 <= most <= 4, "two, the one at hand, and the one that it has just left"
    assert mapped(instance) == 0


def test_of_the_file_that_names_the_outboxes_a_page_is_read(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may be a stranger's: what lies there is not read into memory whole."""
    path = Path(rendezvous_path(instance.socket))
    text = path.read_text()
    path.write_text(text + "x" * 10_000_000)
    assert read_rendezvous(instance.socket).directory == str(instance.config.outbox_directory)
    path.write_text("x" * rendezvous.RENDEZVOUS_BYTES_MAX + "\n" + text)
    with pytest.raises(NoOutbox, match="does not name a directory and a token"):
        read_rendezvous(instance.socket)


def test_a_promise_to_look_further_ahead_than_any_daemon_makes_is_not_believed() -> None:
    """The header is shared: a forged one would keep a producer from ever sending again."""
    buffer = bytearray(outbox_bytes(RING_BYTES_MIN))
    words = memoryview(buffer)[:HEADER_BYTES].cast("Q")
    writer = OutboxWriter(memoryview(buffer), 7, pid=1, now_ns=1)
    for until_ns, watched in ((10, False), (11, True), (10 + WATCHED_NS_MAX, True),
                              (11 + WATCHED_NS_MAX, False), (2**63, False)):  # fmt: skip
        words[WORD_WATCHED_UNTIL_NS] = until_ns
        assert writer.suppresses_wakeups(10) is watched
