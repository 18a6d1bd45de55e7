"""A client whose descriptors, user or directory change continues as another producer."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from logd_client import Client
from logd_wire import rendezvous
from logd_wire.outbox.layout import RING_BYTES_MIN
from logd_wire.outbox.names import outbox_name, parse_name
from logd_wire.rendezvous import NoOutbox, Rendezvous, rendezvous_path, uid_for_daemon
from tests.shared.client_scene import run_child
from tests.support import client_parts as parts
from tests.support.instance import ROOT, Instance, check_streams, check_sums
from tests.support.namespaces import needs_users

INITIAL = "user:[4026531837]"
CLOSING = """
assert c.emit('page_view', user='before') and c.flush(30)
os.closerange(3, 256)
own = []
if sys.argv[2] == 'reused':
    # They get the very numbers that the client has: stream and datagram sockets, pipes, files.
    for _ in range(4):
        own += [s.detach() for s in socket.socketpair()]
        own += [s.detach() for s in socket.socketpair(type=socket.SOCK_DGRAM)]
        own += os.pipe()
        own.append(os.open(os.devnull, os.O_RDWR))
before = [os.fstat(fd)[:3] for fd in own]
accepted = sum(c.emit('page_view', props={'n': n, 'text': 's3cret'}) for n in range(1000))
flushed = c.flush(30)
c.close()
assert [os.fstat(fd)[:3] for fd in own] == before, 'a descriptor of the application is gone'
found = b''
for fd in own:
    os.set_blocking(fd, False)
    try: found += os.read(fd, 65536)
    except OSError: pass
print(json.dumps([accepted, c.stats()['accepted'], c.stats()['refused'], flushed, len(found)]))
"""


@pytest.mark.parametrize("then", ["closed", "reused"])
def test_descriptors_that_the_application_closes_cost_no_event_and_none_of_its_own(
    instance: Instance, then: str
) -> None:
    """python-daemon and others close all descriptors, the client's among them."""
    instance.start()
    assert run_child(CLOSING, instance, then) == [1000, 1001, 0, True, 0]
    status = instance.settle()
    assert (status["stored"], status["lost"]) == (1001, 0)
    check_sums(status, attempted=1001, accepted=1001)
    assert sum(check_streams(instance.events()).values()) == 1001


def test_an_outbox_that_another_name_is_given_is_not_gone_on_with(instance: Instance) -> None:
    """The daemon would not read it: it reads files of one link only."""
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        (path,) = instance.config.outbox_directory.glob("*.outbox")
        os.link(path, path.with_name("another"))
        parts.producer(client).compare_due_s = 0.0
        assert client.emit("page_view")
        assert len(list(instance.config.outbox_directory.glob("*.outbox"))) == 2
        path.with_name("another").unlink()
    instance.start()
    assert instance.settle()["stored"] == 2


@needs_users
def test_a_process_that_gives_up_its_rights_is_another_producer(instance: Instance) -> None:
    """Its outbox is named after the one user, and its datagrams come from the other."""
    instance.configure(socket_mode="0666", many_users=True)
    instance.directory.parent.chmod(0o711)
    instance.directory.chmod(0o711)
    instance.start()
    names = run_child(
        "assert c.emit('app_started') and c.flush(30)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "c._producers.current.compare_due_s = 0.0\n"
        "assert all(c.emit('page_view') for _ in range(50)) and c.flush(30)\n"
        "print(json.dumps([c.stats()['accepted'], c.stats()['outbox']['reason']]))\n",
        instance,
    )
    assert names == [51, None]
    status = instance.settle()
    check_sums(status, attempted=51, accepted=51)
    assert (status["stored"], status["quarantined"]) == (51, 0)
    assert {event["producer"].split("-")[0] for event in instance.events()} == {"0", "65534"}


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A user namespace as this process is to find it."""
    made: dict[str, Any] = {"name": "user:[17]", "identity": False, "overflow": 65534}
    monkeypatch.setattr(rendezvous, "current_user_namespace", lambda: made["name"])
    monkeypatch.setattr(rendezvous, "maps_ids_to_themselves", lambda: made["identity"])
    monkeypatch.setattr(rendezvous, "_overflow_uid", lambda: made["overflow"])
    return made


def written_by(uid: str = "", user_namespace: str = "") -> Rendezvous:
    return Rendezvous("/dev/shm/x", "0" * 32, "boot", uid, user_namespace)


def test_the_daemon_s_number_of_a_user_is_the_own_one_in_the_daemon_s_namespace(
    namespace: dict[str, Any],
) -> None:
    euid = os.geteuid()
    assert uid_for_daemon(written_by("7", "user:[17]"), owner=7) == euid
    namespace["identity"] = True
    assert uid_for_daemon(written_by(), owner=7) == euid, "a daemon that names none"


def test_the_daemon_s_own_user_is_known_from_outside_by_what_it_owns(
    namespace: dict[str, Any],
) -> None:
    assert uid_for_daemon(written_by("1000", INITIAL), owner=os.geteuid()) == 1000


@pytest.mark.parametrize(
    ("what", "owner", "overflow"),
    [
        (written_by("1000", INITIAL), os.geteuid() + 1, 65534),  # another user's daemon
        (written_by("1000", INITIAL), os.geteuid(), os.geteuid()),  # not mapped here
        (written_by("", ""), os.geteuid(), 65534),  # a daemon that names none
        (written_by("\u0661", INITIAL), os.geteuid(), 65534),
    ],
)
def test_a_number_that_is_not_certain_makes_no_outbox(
    namespace: dict[str, Any], what: Rendezvous, owner: int, overflow: int
) -> None:
    namespace["overflow"] = overflow
    with pytest.raises(NoOutbox, match="user namespace"):
        uid_for_daemon(what, owner)


def test_an_outbox_made_in_a_namespace_has_the_outer_number_in_its_name(
    instance: Instance, namespace: dict[str, Any]
) -> None:
    path = Path(rendezvous_path(instance.socket))
    lines = [line for line in path.read_text().splitlines() if "=" in line]
    kept = [line for line in lines if line.split("=")[0] not in ("uid", "user_namespace")]
    path.write_text("\n".join([*kept, "uid=4321", f"user_namespace={INITIAL}"]) + "\n")
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        producer = parts.producer(client)
        assert producer.label == f"4321-{producer.id:016x}"
        (found,) = instance.config.outbox_directory.glob("*.outbox")
        assert parse_name(found.name) == (4321, producer.id)
        assert found.name == outbox_name(4321, producer.id)
    found.unlink()


def test_a_process_that_has_given_up_its_rights_sends_no_farewell_for_its_former_user(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        producer = parts.producer(client)
        with monkeypatch.context() as context:
            context.setattr(os, "getuid", lambda: 12345)
            assert producer.send_farewell({}) is False
        assert producer.send_farewell({}) is True


def test_a_file_is_removed_only_where_the_directory_still_is_what_it_was(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process may change its directory or its root, or lose the right to look."""
    directory = instance.config.outbox_directory
    monkeypatch.chdir(directory.parent)
    with Client(instance.socket, outbox_directory=directory.name) as client:
        assert client.emit("page_view")
        outbox = parts.outbox(client)
        monkeypatch.chdir(tmp_path)
        assert not outbox.removed()
        away = directory.with_name(directory.name + ".away")
        directory.rename(away)
        assert not outbox.removed(), "nothing is there"
        directory.mkdir()
        assert not outbox.removed(), "another directory is there"
        directory.rmdir()
        away.rename(directory)
        with monkeypatch.context() as context:
            context.setattr(Path, "lstat", refuse)
            assert not outbox.removed()
        parts.path(outbox).unlink()
        assert outbox.removed()


def refuse(_: Path) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_file_that_went_with_its_directory_is_removed(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        outbox, directory = parts.outbox(client), instance.config.outbox_directory
        shutil.rmtree(directory)
        outbox.release_descriptor()
        assert outbox.removed()


def test_a_full_outbox_under_another_name_is_not_gone_on_with(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=RING_BYTES_MIN) as client:
        while client.emit("page_view", props={"text": "x" * 1000}):
            pass
        outbox = parts.outbox(client)
        parts.path(outbox).rename(parts.path(outbox).with_name("kept"))
        assert client.emit("page_view", props={"text": "x" * 1000})
        assert parts.outbox(client) is not outbox


def test_a_client_is_imported_by_a_python_without_ctypes(instance: Instance) -> None:
    code = (
        "import sys\nsys.modules['_ctypes'] = None\nfrom logd_client import Client\n"
        "assert Client(sys.argv[1]).emit('page_view')\n"
    )
    subprocess.run([sys.executable, "-c", code, instance.socket], cwd=ROOT, check=True, timeout=60)
