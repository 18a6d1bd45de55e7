"""The client checks its identity instead of inferring it: process, user, descriptors, numbers."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from logd_client import Client, Outcome
from logd_client.durable import DurableEvent
from logd_client.outbox_file import OutboxFile
from logd_client.producer import Producer
from logd_client.succession import REFUSED_OUTBOXES_MAX
from logd_wire import forks, rendezvous
from logd_wire.outbox.layout import RING_BYTES_MIN, WORD_GIVEN_UP, WORD_RETIRED
from logd_wire.outbox.names import outbox_name, parse_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.rendezvous import NoOutbox, Rendezvous, rendezvous_path, uid_for_daemon
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, ROOT, Instance, check_streams, check_sums, until
from tests.support.namespaces import needs_users

INITIAL = "user:[4026531837]"


class Timeout(Exception):
    """What a handler of SIGALRM raises to end a request that takes too long."""


def run_child(code: str, instance: Instance, *args: str, env: dict[str, str] | None = None) -> Any:
    """Runs code with a client `c` in a process of its own; what it prints, from JSON."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ctypes, json, os, socket, sys, threading\nfrom logd_client import Client\n"
            f"c = Client(sys.argv[1])\nlibc = ctypes.PyDLL(None)\n{code}",
            instance.socket,
            *args,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- the process ---------------------------------------------------------------------------------


def test_a_mark_is_true_in_its_own_process_and_false_in_each_child() -> None:
    mark, seen = forks.current().mark, os.pipe()
    if os.fork() == 0:
        grandchild = forks.current().mark
        first = (mark[0], grandchild[0])
        if (pid := os.fork()) == 0:
            os.write(seen[1], json.dumps([first, mark[0], grandchild[0]]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os._exit(0)
    os.wait()
    text = os.read(seen[0], 100)
    for fd in seen:
        os.close(fd)
    assert json.loads(text) == [[0, 1], 0, 0]
    assert mark[0] == 1
    assert forks.current() is forks.current()


def test_threads_of_a_child_agree_on_its_generation_also_one_fork_further() -> None:
    """A child forked in the middle of finding out is not taken for its parent."""
    parent = forks.Generation()
    parent.mark = [0]  # as it reads in a child
    child = parent.child()
    assert parent.child() is child
    child.mark = [0]  # and in a grandchild
    before, forks._current = forks._current, parent
    try:
        found = forks.current()
    finally:
        forks._current = before
    assert found not in (parent, child)
    assert found.mark[0] == 1


def test_where_the_kernel_wipes_no_page_the_process_id_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "_MADV_WIPEONFORK", 99_999)
    mark, (read, write) = forks._new_mark(), os.pipe()
    if os.fork() == 0:
        os.write(write, bytes([mark[0]]))
        os._exit(0)
    os.wait()
    assert (mark[0], os.read(read, 1)) == (1, b"\0")
    os.close(read)
    os.close(write)


def test_processes_that_c_code_forks_are_producers_of_their_own(instance: Instance) -> None:
    """uWSGI forks its workers without Python's hooks, after the application has logged an event."""
    instance.start()
    results = run_child(
        "assert c.emit('app_started') and c.flush(30)\n"
        "read, write = os.pipe()\n"
        "kids = []\n"
        "for number in range(3):\n"
        "    pid = libc.fork()\n"
        "    if pid == 0:\n"
        "        assert c.stats()['accepted'] == 0 and c.flush(0)\n"
        "        n = sum(c.emit('page_view', user=str(number)) for _ in range(500))\n"
        "        line = [n, c.stats()['accepted'], c.flush(30)]\n"
        "        os.write(write, (json.dumps(line) + '\\n').encode())\n"
        "        os._exit(0)\n"
        "    kids.append(pid)\n"
        "mine = sum(c.emit('page_view', user='master') for _ in range(500))\n"
        "for pid in kids: assert os.waitpid(pid, 0)[1] == 0\n"
        "os.close(write)\n"
        "lines = [json.loads(line) for line in os.fdopen(read)]\n"
        "print(json.dumps([mine, c.stats()['accepted'], c.flush(30), lines]))\n",
        instance,
    )
    assert results == [500, 501, True, [[500, 500, True]] * 3]
    status = instance.settle()
    assert sorted(check_streams(instance.events()).values()) == [500, 500, 500, 501]
    check_sums(status, attempted=2001, accepted=2001)
    assert status["lost"] == 0


def test_a_guard_that_a_parent_s_thread_holds_does_not_stop_a_child(instance: Instance) -> None:
    """The thread that would let go of it is not in the child."""
    results = run_child(
        "assert c.emit('app_started')\n"
        "held, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    c._guard.run(lambda nested: (held.set(), done.wait()))\n"
        "threading.Thread(target=hold, daemon=True).start(); held.wait()\n"
        "pid = libc.fork()\n"
        "if pid == 0:\n"
        "    os._exit(0 if c.emit('page_view') and c.stats()['accepted'] == 1 else 1)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]); done.set()\n"
        "print(json.dumps(code))\n",
        instance,
    )
    assert results == 0
    assert instance.status()["pending"] == 2


def test_a_wait_that_c_code_forks_in_claims_nothing_in_the_child(instance: Instance) -> None:
    results = run_child(
        "import signal\n"
        "child = code = None\n"
        "def fork(*_):\n"
        "    global child, code\n"
        "    child = libc.fork()\n"
        "    if child: code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "signal.signal(signal.SIGALRM, fork)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "outcome = c.emit_durable('quiz_submitted', timeout_s=0.5)\n"
        "if child == 0:\n"
        "    ok = outcome.value == 'unknown' and c.stats()['unsettled'] == 0\n"
        "    c.close(); os._exit(0 if ok else 1)\n"
        "print(json.dumps([outcome.value, code, c.stats()['accepted']]))\n",
        instance,
    )
    assert results == ["unknown", 0, 2]
    instance.start()
    assert instance.settle()["stored"] == 3  # the event, and that it is unknown, by each of the two
    producers = [e["props"].get("producer") for e in instance.events() if e["props"]]
    assert len(set(producers)) == 1


def test_an_outbox_s_name_that_is_taken_has_another_id_drawn(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child forked by a signal handler right after the id was drawn may have made it first."""
    ids = iter([5, 5, 6, 7])
    with Client(instance.socket) as first, Client(instance.socket) as second:
        monkeypatch.setattr(secrets, "randbits", lambda _: next(ids))
        assert first.emit("page_view") and second.emit("page_view")
        reasons = [client.stats()["outbox"]["reason"] for client in (first, second)]
        assert (reasons, next(ids)) == ([None, None], 7)


# -- the descriptors -----------------------------------------------------------------------------

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


def test_an_event_that_a_retired_outbox_holds_unread_is_written_to_the_next_one(
    instance: Instance,
) -> None:
    """It was written after the daemon had looked for the last time: it is accepted all the same."""
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="1")
        producer = parts.producer(client)
        assert producer.outbox is not None
        producer.sends = False  # it is watched, so descriptors are not compared before
        (path,) = instance.config.outbox_directory.glob("*.outbox")
        words = producer.outbox.writer._words
        words[16], words[17], words[19] = 1, producer.outbox.writer.bytes_written, 1
        path.unlink()
        assert client.emit("page_view", user="2")
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"], stats["pending"]) == (2, 1, 1)
    instance.start()
    assert instance.settle()["stored"] == 1  # the first was confirmed in the header
    assert [event["user"] for event in instance.events()] == ["2"]


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


# -- the user ------------------------------------------------------------------------------------


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


# -- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
def test_an_event_is_not_accepted_because_a_note_about_another_was(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """A handler raises while `durable_settled` is written, before the caller's own event is."""
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=0) is Outcome.UNKNOWN
        instance.start()
        assert client.flush(30)
        shots = [1]

        def interrupted() -> int:
            if shots:
                shots.pop()
                raise Timeout
            return 0

        parts.set_monotonic_ns(monkeypatch, client, interrupted)  # called after the store
        if durable:
            assert client.emit_durable("exam_handed_in", timeout_s=5) is Outcome.REFUSED
        else:
            assert client.emit("exam_handed_in") is False
        assert not shots
        assert client.emit("page_view")
    stats = client.stats()
    status = instance.settle()
    types = [event["type"] for event in instance.events()]
    assert types == ["quiz_submitted", "durable_unknown", "durable_settled", "page_view"]
    check_sums(
        status, attempted=stats["attempted"], accepted=stats["accepted"], refused=stats["refused"]
    )


def test_a_call_cut_short_after_its_own_record_returns_accepted(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> int:
        raise Timeout

    with Client(instance.socket) as client:
        with monkeypatch.context() as context:
            parts.set_monotonic_ns(context, client, interrupted)
            assert client.emit("page_view") is True
        assert client.stats()["accepted"] == 1


@pytest.mark.parametrize("cut", ["reserving", "giving back"])
def test_a_reservation_that_is_interrupted_keeps_no_room(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    reserve = OutboxWriter.reserve

    def interrupted(*args: Any) -> None:
        if cut == "reserving":
            reserve(*args)
        raise Timeout

    with Client(instance.socket) as client:
        assert client.emit("page_view")
        with monkeypatch.context() as context:
            if cut == "reserving":
                context.setattr(OutboxWriter, "reserve", interrupted)
                assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.REFUSED
            else:
                context.setattr(DurableEvent, "release_note_space", interrupted)
                with pytest.raises(Timeout):
                    client.emit_durable("quiz_submitted", timeout_s=0)
        gc.collect()
        producer = parts.producer(client)
        assert producer.outbox is not None
        assert producer.outbox.writer.reserved_bytes == 0
        assert len(parts.producers(client).awaited) == 0


def test_a_client_without_an_outbox_never_reports_all_as_stored_once_it_has_one(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went by datagram alone is confirmed by nothing."""
    monkeypatch.setattr("logd_client.producer.OUTBOX_RETRY_INTERVAL_S", 0.0)
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        until(lambda: client.emit("page_view"), "the kernel takes it")
        parts.use_default_directory(client)
        assert client.emit("page_view")
        until(lambda: client.stats()["confirmed"] == 1, "the second is stored")
        assert client.flush(0.1) is False
        stats = client.stats()
        assert stats["unconfirmable"] == stats["accepted"] - 1
        assert stats["pending"] == 0


# -- handlers, threads and lost outboxes ---------------------------------------------------------


def retire(outbox: OutboxFile, confirmed: int, position: int, *, removed: bool = True) -> None:
    """What the daemon does at the end of a producer."""
    words = outbox.writer._words
    words[16], words[17], words[18], words[19] = confirmed, position, 0, 1
    if removed:
        outbox._path.unlink()


def test_a_durable_event_confirmed_while_its_successor_is_made_keeps_its_number(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        outbox, make = parts.outbox(client), parts.producers(client).make
        parts.producer(client).sends, parts.producer(client).compare_due_s = False, 0.0
        os.close(outbox._fd)

        def slow(*arguments: Any) -> Producer:
            outbox.writer._words[16] = outbox.writer._words[8]
            return make(*arguments)

        monkeypatch.setattr(parts.producers(client), "make", slow)
        assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.STORED
        assert client.stats()["durable_unknown"] == 0


def test_only_the_event_of_the_producer_just_left_is_moved_with_a_call(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one is retired at the same time; its event is moved too, and not in this one's
    stead.
    """
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        first = parts.outbox(client)
        parts.producer(client).sends = False
        retire(first, 1, first.writer.bytes_written, removed=False)
        assert client.emit("page_view", user="in the first")
        second = parts.outbox(client)
        parts.producer(client).sends = False
        os.close(second._fd)
        parts.producer(client).compare_due_s = 0.0
        make = parts.producers(client).make

        def slow(*arguments: Any) -> Producer:
            first._path.unlink()
            words = second.writer._words
            words[16], words[17] = words[8], second.writer.bytes_written
            return make(*arguments)

        with monkeypatch.context() as context:
            context.setattr(parts.producers(client), "make", slow)
            assert client.emit("page_view", user="in the second")
        assert client.emit("page_view", user="later")
        ring = bytes(parts.outbox(client).writer._ring)
        found = [text in ring for text in (b"in the first", b"in the second", b"later")]
        assert found == [True, False, True]
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"]) == (4, 2)


@pytest.mark.parametrize("call", ["c.emit('page_view')", "c.flush(0.01)", "c.stats()", "c.close()"])
@pytest.mark.parametrize("fork", ["os.fork", "libc.fork"])
def test_a_child_forked_while_its_parent_waits_for_another_thread_does_not_wait(
    instance: Instance, call: str, fork: str
) -> None:
    """A signal handler forks in the thread that waits; the other one is not in the child."""
    results = run_child(
        "import signal\n"
        "inside, leave, children = threading.Event(), threading.Event(), []\n"
        "write = c._session.write\n"
        "def slow(*args):\n"
        "    c._session.write = write; inside.set(); leave.wait(); return write(*args)\n"
        "c._session.write = slow\n"
        "def handler(*_):\n"
        f"    children.append({fork}())\n"
        "    leave.set()\n"
        "    if not children[0]: signal.signal(signal.SIGALRM, signal.SIG_DFL); signal.alarm(20)\n"
        "signal.signal(signal.SIGALRM, handler)\n"
        "thread = threading.Thread(target=lambda: c.emit('page_view'))\n"
        "thread.start(); inside.wait()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        f"{call}\n"
        "if children == [0]: os._exit(0)\n"
        "thread.join()\n"
        "print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])))\n",
        instance,
    )
    assert results == 0


def test_a_child_forked_while_its_parent_is_begun_again_begins_its_own(instance: Instance) -> None:
    results = run_child(
        "assert c.emit('page_view')\n"
        "if (pid := libc.fork()) == 0:\n"
        "    closing, go_on = threading.Event(), threading.Event()\n"
        "    close = c._producers.current.close\n"
        "    c._producers.current.close = lambda: (closing.set(), go_on.wait(), close())\n"
        "    thread = threading.Thread(target=lambda: c.emit('page_view'))\n"
        "    thread.start(); closing.wait()\n"
        "    if (other := libc.fork()) == 0:\n"
        "        go_on.set(); os._exit(0 if c.emit('page_view') else 1)\n"
        "    go_on.set(); thread.join()\n"
        "    os._exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))\n"
        "print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))\n",
        instance,
    )
    assert results == 0


def test_a_log_handler_that_emits_in_another_thread_does_not_stop_this_one(tmp_path: Path) -> None:
    """It holds the handler's lock and waits for the client; the client logs when it is left."""
    client = Client(tmp_path / "missing.sock")  # no outbox: which is logged
    inside, leave = threading.Event(), threading.Event()

    class Emitting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "application":
                inside.set()
                leave.wait(30)
                client.emit("logged")

    def make(*arguments: Any) -> Producer:
        leave.set()
        return made(*arguments)

    made = parts.producers(client).make
    parts.producers(client).make = make  # type: ignore[method-assign,assignment]
    handler = Emitting()
    logging.getLogger().addHandler(handler)
    try:
        log = logging.getLogger("application").warning
        threads = [
            threading.Thread(target=target, args=("page_view",), daemon=True)
            for target in (log, client.emit)
        ]
        threads[0].start()
        assert inside.wait(30)
        threads[1].start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    finally:
        logging.getLogger().removeHandler(handler)
        client.close()


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
        outbox._path.unlink()
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


def test_a_call_cut_short_after_its_record_leaves_one_event_unread_at_most(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> int:
        raise Timeout

    with Client(instance.socket) as client:
        assert client.emit("page_view")
        outbox = parts.outbox(client)
        parts.producer(client).sends = False
        retire(outbox, 1, outbox.writer.bytes_written)
        with monkeypatch.context() as context:
            parts.set_monotonic_ns(context, client, interrupted)
            assert client.emit("page_view")
        for _ in range(3):
            assert client.emit("page_view")
        assert outbox.writer.written == 2
        assert parts.outbox(client).writer.written == 4, "the one that was unread as well"
        assert client.stats()["pending"] == 4


def test_what_a_former_outbox_holds_unread_is_written_again_by_flush(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        outbox = parts.outbox(client)
        parts.producer(client).sends = False
        retire(outbox, 1, outbox.writer.bytes_written, removed=False)
        assert client.emit("page_view")
        outbox._path.unlink()
        instance.start()
        assert client.flush(30)
        assert client.stats()["confirmed"] == 2


def test_a_durable_event_that_is_written_again_is_waited_for_where_it_is(
    instance: Instance,
) -> None:
    outcomes: list[Outcome] = []
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        outbox = parts.outbox(client)
        parts.producer(client).sends = False
        retire(outbox, 1, outbox.writer.bytes_written, removed=False)
        thread = threading.Thread(
            target=lambda: outcomes.append(client.emit_durable("quiz_submitted", timeout_s=30))
        )
        thread.start()
        until(lambda: len(parts.producers(client).awaited) == 1, "it waits")
        outbox._path.unlink()
        instance.start()
        assert client.emit("page_view")
        thread.join()
        assert outcomes == [Outcome.STORED]
        assert client.flush(30)
        assert client.stats()["durable_unknown"] == 0


def test_confirmations_of_what_was_never_written_are_not_counted(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        parts.outbox(client).writer._words[16] = 1000
        stats = client.stats()
        assert (stats["confirmed"], stats["pending"]) == (1, 0)


def test_a_full_outbox_under_another_name_is_not_gone_on_with(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=RING_BYTES_MIN) as client:
        while client.emit("page_view", props={"text": "x" * 1000}):
            pass
        outbox = parts.outbox(client)
        outbox._path.rename(outbox._path.with_name("kept"))
        assert client.emit("page_view", props={"text": "x" * 1000})
        assert parts.outbox(client) is not outbox


def test_a_durable_event_without_a_time_to_wait_is_not_waited_for(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view", durable=True, timeout_s=cast(Any, None)) is False
        assert client.stats()["durable_unknown"] == 1


def test_a_client_is_imported_by_a_python_without_ctypes(instance: Instance) -> None:
    code = (
        "import sys\nsys.modules['_ctypes'] = None\nfrom logd_client import Client\n"
        "assert Client(sys.argv[1]).emit('page_view')\n"
    )
    subprocess.run([sys.executable, "-c", code, instance.socket], cwd=ROOT, check=True, timeout=60)


# -- an outbox that the daemon gives up ----------------------------------------------------------


@pytest.mark.parametrize("removed", [True, False])
def test_an_outbox_that_is_given_up_is_followed_and_nothing_of_it_written_again(
    instance: Instance, removed: bool
) -> None:
    """The daemon has booked the rest as lost: written again, an event would be counted twice."""
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="first")
        assert client.emit("page_view", user="unread")
        outbox = parts.outbox(client)
        words = outbox.writer._words
        words[16], words[17] = 1, outbox.writer.bytes_written // 2
        words[WORD_GIVEN_UP] = 1
        if removed:
            words[WORD_RETIRED] = 1
            outbox._path.unlink()
        assert client.emit("page_view", user="next")
        successor = parts.outbox(client)
        assert successor is not outbox
        assert client.emit("page_view", user="last")
        ring = bytes(successor.writer._ring)
        assert [text in ring for text in (b"unread", b"next", b"last")] == [False, True, True]
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"], stats["pending"]) == (4, 1, 3)


def test_each_refusal_is_reported_by_one_producer_of_a_client(instance: Instance) -> None:
    """The daemon adds up what all of them report."""
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        for _ in range(3):
            assert not client.emit("Not A Type")
        assert client.flush()
        os.close(parts.outbox(client)._fd)
        parts.producer(client).sends, parts.producer(client).compare_due_s = True, 0.0
        assert client.emit("page_view")
        assert not client.emit("Not A Type")
        assert client.stats()["refused"] == 4
    until(lambda: instance.status()["outboxes"] == 0, "both ends are stored")
    assert instance.status()["refused_by_clients"] == 4


def test_the_farewell_for_an_outbox_that_is_lost_has_its_refusals(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert not client.emit("Not A Type")
        parts.outbox(client)._path.unlink()
        parts.producer(client).sends, parts.producer(client).compare_due_s = True, 0.0
        assert client.emit("page_view")
        instance.start()
        assert not client.emit("Not A Type")
        parts.formers(client)._check_due_s = 0.0
        until(
            lambda: client.emit("page_view") and instance_lost(instance) == 1, "its loss is booked"
        )
    until(lambda: instance.status()["outboxes"] == 0, "its end is stored")
    assert instance.status()["refused_by_clients"] == 2


def instance_lost(instance: Instance) -> int:
    """Not by a look of this process: closing the outbox would let go of the client's lock."""
    return int(json.loads(instance.cli("status", "--json"))["lost"])


def test_a_client_whose_outboxes_are_refused_does_not_fill_memory_with_them(
    instance: Instance,
) -> None:
    with Client(instance.socket) as client:
        for number in range(1, 10):
            if client.emit("page_view", user=number) and client.stats()["outbox"]["reason"] is None:
                parts.outbox(client).writer._words[WORD_GIVEN_UP] = 1
            parts.producer(client).retry_outbox_after_s = 0.0
        files = list(instance.config.outbox_directory.glob("*.outbox"))
        assert len(files) == REFUSED_OUTBOXES_MAX
        assert "logd quarantine" in client.stats()["outbox"]["reason"]
        assert client.stats()["refused_by_cause"] == {"undelivered": 6}
