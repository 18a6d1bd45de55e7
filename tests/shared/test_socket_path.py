"""A path to the socket: through links, relative, or a mount of the socket alone."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd_client import Client
from logd_client.producer import Producer
from logd_client.socket_path import absolute, locate, to_connect
from logd_wire.outbox.names import SUFFIX
from logd_wire.paths import SOCKET_PATH_BYTES_MAX
from logd_wire.rendezvous import read_rendezvous
from tests.support import client_parts as parts
from tests.support.instance import Instance


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A datagram socket with a rendezvous file beside it."""
    path = tmp_path / "place" / "logd.sock"
    path.parent.mkdir()
    path.with_name("logd.sock.outboxes").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        yield path


def test_links_to_the_socket_and_to_its_directory_lead_to_it(bound: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(bound)
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "directory").symlink_to("place")
    for path in ("one", "two", "directory/logd.sock", "place/../place/logd.sock"):
        assert locate(str(tmp_path / path)) == str(bound)


def test_a_link_leads_to_the_socket_also_while_no_daemon_has_made_it(
    bound: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(bound)
    bound.unlink()
    assert locate(str(tmp_path / "link")) == str(bound)


def test_where_nothing_is_found_the_path_stays_as_given(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone" / "logd.sock")
    for path in ("circle", "nowhere", "absent"):
        assert locate(str(tmp_path / path)) == str(tmp_path / path)


def test_a_rendezvous_file_beside_the_link_counts_where_the_socket_has_none(
    bound: Path, tmp_path: Path
) -> None:
    """A daemon that systemd hands its socket may have the link's path in its configuration."""
    link = tmp_path / "link"
    link.symlink_to(bound)
    link.with_name("link.outboxes").touch()
    assert locate(str(link)) == str(bound)
    bound.with_name("logd.sock.outboxes").unlink()
    assert locate(str(link)) == str(link)


def test_another_name_of_the_same_socket_leads_to_the_one_that_it_was_bound_to(
    bound: Path, tmp_path: Path
) -> None:
    """As a mount of the socket alone does; only a name of this very socket counts."""
    other = tmp_path / "other"
    other.hardlink_to(bound)
    assert locate(str(other)) == str(bound)
    bound.unlink()
    bound.touch()  # something else has the name
    assert locate(str(other)) == str(other)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts")
def test_a_mount_of_the_socket_alone_leads_to_the_socket(bound: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.touch()
    made = subprocess.run(
        ["/usr/bin/mount", "--bind", str(bound), str(mounted)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"mount failed: {made.stderr!r}")
    try:
        assert locate(str(mounted)) == str(bound)
    finally:
        subprocess.run(["/usr/bin/umount", str(mounted)], check=True)


def test_a_relative_path_holds_when_the_process_changes_its_directory(
    bound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bound.parent)
    assert absolute("logd.sock") == str(bound)
    assert absolute("../place/logd.sock") == f"{bound.parent}/../place/logd.sock"
    assert absolute("/a/../b") == "/a/../b"
    long = "x" * (SOCKET_PATH_BYTES_MAX - 2)
    assert absolute(long) == long


def test_a_socket_whose_real_path_is_too_long_is_connected_to_as_given() -> None:
    given, long = "/run/link", "/" + "x" * SOCKET_PATH_BYTES_MAX
    assert to_connect(long, given) == given
    assert to_connect("/short", given) == "/short"


def test_an_event_goes_through_a_link_to_a_socket_whose_path_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * SOCKET_PATH_BYTES_MAX)
    deep.mkdir()
    (deep / "logd.sock.outboxes").touch()
    link = tmp_path / "link"
    link.symlink_to(deep / "logd.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        monkeypatch.chdir(deep)
        sock.bind("logd.sock")
        producer = Producer(str(link), None, 65536)
        assert producer.send(b"event"), producer.send_error
        assert sock.recv(10) == b"event"
        producer.close()


def test_a_client_made_with_a_relative_path_finds_its_outbox_from_anywhere(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(instance.directory)
    with Client("logd.sock") as client:
        monkeypatch.chdir("/")
        assert client.emit("page_view")
        assert client.stats()["outbox"]["reason"] is None


def outboxes(instance: Instance) -> list[Path]:
    directory = Path(read_rendezvous(instance.socket).directory)
    return [path for path in directory.iterdir() if path.name.endswith(SUFFIX)]


def test_a_client_follows_a_link_that_leads_to_another_daemon(
    instance: Instance, tmp_path: Path
) -> None:
    """What it wrote stays where the former daemon reads it; a link to nothing changes nothing."""
    other = Instance(tmp_path / "other")
    link = tmp_path / "link.sock"
    link.symlink_to(instance.socket)
    try:
        with Client(str(link)) as client:
            assert client.emit("page_view")
            link.unlink()
            due(client)
            assert client.emit("page_view")
            assert (len(outboxes(instance)), len(outboxes(other))) == (1, 0)
            link.symlink_to(other.socket)
            due(client)
            assert client.emit("page_view")
            assert (len(outboxes(instance)), len(outboxes(other))) == (1, 1)
            stats = client.stats()
            assert (stats["accepted"], stats["pending"], stats["unconfirmable"]) == (3, 3, 0)
    finally:
        other.close()


def due(client: Client) -> None:
    """The producer is compared with what it began with at the next event."""
    parts.producer(client).compare_due_s = 0.0
