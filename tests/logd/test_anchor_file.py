"""The anchor file: anchors are appended, nothing is overwritten, and a failure is only logged."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.audit import anchor_file
from logd.audit.anchor_sources import from_lines
from logd.config.settings import parse
from logd.errors import ConfigError
from logd.storage.tree_head import Head
from logd_client import Client
from tests.logd.stepped_daemon import SteppedDaemon, look, no_space
from tests.support.instance import Instance, check_sums

HEADS = [Head(n, 10 * n, bytes([n]) * 32) for n in range(4)]
NOW_NS = 1_700_000_000 * 10**9


def anchors_in(path: Path) -> list[Head]:
    with path.open() as file:
        return [anchor.head for anchor in from_lines(file, "logd.service")]


def test_a_line_for_each_anchor_that_verify_reads(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    before = os.umask(0o077)
    try:
        for head in HEADS:
            anchor_file.append(path, head, NOW_NS)
    finally:
        os.umask(before)
    lines = path.read_text().splitlines()
    assert lines[1] == (f"2023-11-14T22:13:20Z anchor batch=1 events=10 root={HEADS[1].hash.hex()}")
    assert (len(lines), anchors_in(path)) == (4, HEADS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_is_there_stays_and_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    path.write_text("kept\nanchor batch=7 ev")
    path.chmod(0o600)
    anchor_file.append(path, HEADS[1], NOW_NS)
    assert path.read_text().startswith("kept\nanchor batch=7 ev\n")
    assert anchors_in(path) == [HEADS[1]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_is_an_error_and_the_next_anchor_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "anchors", os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        with pytest.raises(OSError, match="No space"):
            anchor_file.append(path, HEADS[1], NOW_NS)
    anchor_file.append(path, HEADS[2], NOW_NS)
    assert anchors_in(path) == [HEADS[2]]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "socket", "terminal", "nowhere"])
def test_an_anchor_file_that_is_not_a_regular_file_is_refused_without_blocking(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "anchors"
    (tmp_path / "precious").write_text("precious")
    terminal = os.openpty() if kind == "terminal" else ()
    if kind == "link":
        path.symlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path = Path(os.ttyname(terminal[1])) if terminal else tmp_path / "none" / "anchors"
    with pytest.raises(OSError, match=r"."):
        anchor_file.append(path, HEADS[1], NOW_NS)
    assert not terminal or not select.select(terminal[:1], [], [], 0)[0]
    for fd in terminal:
        os.close(fd)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.fixture
def daemon(instance: Instance) -> Iterator[SteppedDaemon]:
    """A stepped daemon with an anchor file."""
    made = SteppedDaemon(
        instance, clock_ns=lambda: NOW_NS, anchor_file=instance.directory / "anchors"
    )
    yield made
    made.close()


def test_the_daemon_adds_what_it_logs(
    instance: Instance, daemon: SteppedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "logd")
    daemon.start()
    daemon.store.record("trail_backed_up", {}, NOW_NS)
    daemon.write_anchor(now=True)
    logged = [head.head for head in from_lines(caplog.messages, "logd.service")]
    assert [head.batch for head in logged] == [0, 1]
    assert anchors_in(instance.directory / "anchors") == logged
    instance.cli("verify", "--anchors", str(instance.directory / "anchors"))


def test_an_anchor_is_repeated_also_while_nothing_can_be_stored(
    instance: Instance, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    daemon = SteppedDaemon(instance, monotonic_s=lambda: now_s, clock_ns=lambda: NOW_NS)
    caplog.set_level("INFO", "logd")
    try:
        daemon.start()
        with monkeypatch.context() as full, Client(instance.socket) as client:
            full.setattr(daemon.store, "commit", no_space)
            assert client.emit("page_view")
            for _ in range(3):
                now_s += 86_400
                daemon.delivery.state.poll_due_s = 0.0
                daemon.run_once(timeout_s=0)
            assert daemon.stalled is not None
        logged = [anchor.head.batch for anchor in from_lines(caplog.messages, "logd.service")]
        assert logged == [0, 0, 0, 0]
        look(daemon)
    finally:
        daemon.close()
    check_sums(instance.status(), attempted=1, accepted=1)


def test_an_anchor_that_cannot_be_added_is_logged_and_ends_nothing(
    instance: Instance,
    daemon: SteppedDaemon,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    daemon.store.record("trail_backed_up", {}, NOW_NS)
    daemon.write_anchor(now=True)  # makes the file
    daemon.store.record("trail_backed_up", {}, NOW_NS)
    with monkeypatch.context() as broken:
        broken.setattr(anchor_file.os, "fsync", fail)  # type: ignore[attr-defined] # os, as it has it
        daemon.write_anchor(now=True)
    (line,) = (m for m in caplog.messages if "no anchor could be added" in m)
    assert line == f"{instance.directory / 'anchors'}: no anchor could be added: Input/output error"
    daemon.store.record("trail_backed_up", {}, NOW_NS)
    daemon.write_anchor(now=True)
    assert anchors_in(instance.directory / "anchors")[-1].batch == 3


def test_the_setting_is_a_path_beside_the_configuration() -> None:
    assert parse('anchor_file = "x/anchors"', Path("/etc/l/logd.toml")).anchor_file == Path(
        "/etc/l/x/anchors"
    )
    assert parse("", Path("/etc/l/logd.toml")).anchor_file is None
    for taken in ("activity.db", "activity.db-wal", "./logd.key", "logd.toml", "logd.sock"):
        with pytest.raises(
            ConfigError, match=r"line 1: anchor_file = .* this file has another use"
        ):
            parse(f'anchor_file = "{taken}"', Path("/etc/l/logd.toml"))
    with pytest.raises(ConfigError, match="anchor_file = 5: expected a path"):
        parse("anchor_file = 5", Path("/etc/l/logd.toml"))
