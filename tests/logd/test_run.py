"""The daemon as a process: ready, stopped, restarted, supervised."""

from __future__ import annotations

import contextlib
import grp
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from logd.serve import report_server as reporter
from logd.serve.report_process import restart_pause_s
from logd_wire.query import QueryClient, QueryError, Unavailable
from tests.support.instance import (
    ROOT,
    Instance,
    Process,
    check_streams,
    check_sums,
    emitters,
    until,
)
from tests.support.namespaces import needs_users


def test_sigterm_stores_and_confirms_what_has_arrived_then_closes(instance: Instance) -> None:
    instance.start()
    with emitters(instance, count=2, events=5000) as running:
        until(lambda: all(e.accepted >= 1000 for e in running), "events")
        assert instance.stop() == 0
        assert not Path(str(instance.config.database) + "-wal").exists()
        assert not Path(instance.socket).exists()
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    status = instance.status()
    check_sums(status, attempted=10_000 + refused, accepted=10_000, refused=refused)
    assert status["running_pid"] is None
    instance.start()
    status = instance.settle()
    assert (status["stored"], status["lost"]) == (10_000, 0)
    check_streams(instance.events())


def test_ctrl_c_stops_like_sigterm(instance: Instance) -> None:
    daemon = instance.start()
    assert daemon.end(signal.SIGINT) == 0
    assert daemon.lines[-1] == "logd: stopped"


_PARENT = """
import os, signal, socket, subprocess, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
sock.bind(sys.argv[1])
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="events")
while True:
    print("go", flush=True)
    if not sys.stdin.readline():
        break
    pid = os.fork()
    if pid == 0:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.execv(sys.executable, [sys.executable, "-m", "logd", "run", "--config", sys.argv[2]])
    print(pid, flush=True)
    os.waitpid(pid, 0)
"""


def test_with_a_socket_held_by_systemd_datagrams_outlive_the_daemon(instance: Instance) -> None:
    """A sender without an outbox: what the kernel took waits for the next daemon."""
    from tests.logd.test_hostile import datagram, sender

    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, instance.socket, str(instance.config.path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert parent.stdin is not None and parent.stdout is not None
    try:
        assert parent.stdout.readline() == "go\n"
        with sender(instance) as sock:
            sequence = 0
            for _ in range(2):
                for _ in range(5):
                    sequence += 1
                    sock.send(datagram(sequence))
                parent.stdin.write("start\n")
                parent.stdin.flush()
                pid = int(parent.stdout.readline())
                until(lambda n=sequence: instance.status()["stored"] == n, "stored")  # type: ignore[misc] # a lambda's default
                os.kill(pid, signal.SIGKILL)
                assert parent.stdout.readline() == "go\n"
        assert Path(instance.socket).exists()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)  # with whatever daemon it has at the moment
        parent.communicate(timeout=30)
    check_sums(instance.status(), attempted=10, accepted=10)
    check_streams(instance.events())


def test_the_report_process_is_started_again_when_it_dies(instance: Instance) -> None:
    daemon = instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    children = Path(f"/proc/{daemon.popen.pid}/task/{daemon.popen.pid}/children")
    first = children.read_text().split()
    assert client.ask("summary").rows[0]["stored"] == 0
    os.kill(int(first[0]), signal.SIGKILL)
    until(lambda: children.read_text().split() not in ([], first), "another one")
    assert client.ask("summary").rows[0]["stored"] == 0


def test_a_report_process_that_ends_right_after_its_start_is_started_less_and_less_often() -> None:
    pause_s, pauses = 0.0, []
    for lived_s in (0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 11.0, 0.3):
        pause_s = restart_pause_s(pause_s, lived_s)
        pauses.append(pause_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]


def test_a_report_that_names_persons_is_itself_an_event(instance: Instance) -> None:
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    client.ask("summary")
    client.ask("timeline", user="7", asked_by="42")
    until(lambda: instance.status()["stored"] == 1, "stored")
    (event,) = instance.events()
    assert (event["type"], event["user"]) == ("report_read", "42")
    assert event["props"]["report"] == "timeline"
    assert event["props"]["params"] == {"user": "7"}
    assert event["props"]["peer_uid"] == os.getuid()


def asked_by(instance: Instance, become: str) -> str:
    """What the report process answers to a user of no rights: "answered", or the error."""
    instance.configure(query_socket_mode="0666")
    for path in (instance.directory, instance.directory.parent):
        path.chmod(0o711)
    instance.start()
    code = (
        f"import os, sys\nfrom logd_wire.query import QueryClient, QueryError\n{become}\n"
        "try: QueryClient(sys.argv[1], timeout_s=20).ask('summary'); print('answered')\n"
        "except QueryError as error: print(error.code, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(instance.config.query_socket)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@needs_users
def test_a_peer_that_may_not_read_is_refused_by_its_uid(instance: Instance) -> None:
    answer = asked_by(instance, "os.setuid(65534)")
    assert "forbidden" in answer and "65534" in answer


@needs_users
@pytest.mark.parametrize(
    ("become", "heard"),
    [
        ("os.setgid(65534); os.setgroups([13, 12]); os.setuid(65534)", "answered"),
        ("os.setgroups([]); os.setgid(12); os.setuid(65534)", "answered"),
        ("os.setgid(65534); os.setgroups([13]); os.setuid(65534)", "forbidden"),
    ],
)
def test_a_peer_may_read_whose_groups_include_the_configured_one(
    instance: Instance, become: str, heard: str
) -> None:
    instance.configure(query_group=grp.getgrgid(12).gr_name)
    assert asked_by(instance, become).split()[0] == heard


def test_a_group_that_is_not_there_stops_the_start(instance: Instance) -> None:
    instance.configure(query_group="no-such-group")
    assert (
        "this group does not exist. Create it (`groupadd --system no-such-group`)"
        in instance.cli("run", code=78)
    )


def test_reports_are_refused_with_a_reason(instance: Instance) -> None:
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    for report, params, message in (
        ("drop table event", {}, "reports are: "),
        ("events", {"limit": 10_000}, "limit: expected a whole number from 1 to 200"),
        ("events", {"user": 7}, "user: expected text"),
        ("events", {"sql": "1=1"}, "unknown parameter: sql"),
        ("daily_activity", {}, "since_day"),
        ("completions", {"type": "page_view"}, "expected one of task_completed"),
    ):
        with pytest.raises(QueryError, match=message) as caught:
            client.ask(report, **params)
        assert not isinstance(caught.value, Unavailable)


def report_process(daemon: Process) -> int:
    pid = daemon.popen.pid
    (reporter,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(reporter)


def test_silent_connections_prevent_no_report(instance: Instance) -> None:
    """More than there are seats, of the very user who asks, and half of them say a byte now and
    then; each is let go after a second.
    """
    daemon = instance.start(loads_reports=True)
    path = str(instance.config.query_socket)
    idle = []
    trickling: set[socket.socket] = set()
    bytes_said: Counter[socket.socket] = Counter()

    def trickle() -> bool:
        for sock in list(trickling):
            try:
                sock.send(b"x", socket.MSG_DONTWAIT)
                bytes_said[sock] += 1
            except OSError:
                trickling.remove(sock)  # it was let go
        return not trickling

    try:
        for number in range(2 * reporter.SEATS_MAX):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            idle.append(sock)
            sock.connect(path)
            if number % 2:
                sock.send((60_000).to_bytes(4, "big"))  # as many would be a question
                trickling.add(sock)
        trickle()
        assert QueryClient(path, timeout_s=20).ask("summary").rows
        until(trickle, "each is let go, though it goes on saying something")
        assert 5 < max(bytes_said.values()) < 60_000
        for sock in idle:
            sock.settimeout(20)
            with contextlib.suppress(ConnectionResetError):  # its last bytes were not read
                while sock.recv(4096):
                    pass  # let go, with or without a word
        for sock in idle:
            sock.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        idle.append(sock)
        sock.connect(path)
        reporting = report_process(daemon)
        instance.kill()
        until(lambda: not Path(f"/proc/{reporting}/cmdline").exists(), "it ends with its daemon")
    finally:
        for sock in idle:
            sock.close()


def test_reports_are_less_urgent_than_the_daemon(instance: Instance) -> None:
    """In its session too, or the niceness would not count where the kernel groups by session."""
    daemon = instance.start(loads_reports=True)
    assert QueryClient(str(instance.config.query_socket), timeout_s=20).ask("summary").rows
    pid, reporting = daemon.popen.pid, report_process(daemon)
    own = os.getpriority(os.PRIO_PROCESS, pid)
    assert os.getpriority(os.PRIO_PROCESS, reporting) == min(19, own + reporter.NICENESS)
    assert os.getsid(reporting) == os.getsid(pid)
    assert os.getpgid(reporting) != os.getpgid(pid), "a terminal's Ctrl-C is the daemon's"


def test_a_report_that_takes_too_long_is_stopped_and_reported(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgpack

    from logd.storage import keyfile

    instance.start()
    key = keyfile.read(instance.config.key_file)
    monkeypatch.setattr(reporter, "REPORT_TIMEOUT_S", 0.0)
    monkeypatch.setattr(reporter, "PROGRESS_STEPS", 1)
    frame = reporter.Reporter(instance.config, key, lambda *_: True).answer(
        {"v": 1, "report": "summary", "params": {}}, os.getuid(), os.getpid()
    )
    answer = msgpack.unpackb(frame[4:])
    assert (answer["ok"], answer["error"]) == (False, "too_slow")
    assert "narrow the query" in answer["message"]


def test_garbage_on_the_query_socket_ends_that_connection_only(instance: Instance) -> None:
    instance.start()
    path = str(instance.config.query_socket)
    for garbage in (b"\xff" * 100, b"\x00\x00\x00\x03abc", b"GET / HTTP/1.0\r\n\r\n", b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(20)
            sock.connect(path)
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in sock.recv(10_000)
    assert QueryClient(path, timeout_s=20).ask("summary").rows


def test_a_socket_path_occupied_by_a_file_is_left_alone(instance: Instance) -> None:
    Path(instance.socket).write_text("precious")
    assert "is not a socket" in instance.cli("run", code=73)
    assert Path(instance.socket).read_text() == "precious"


def test_an_outbox_of_a_newer_version_waits_for_a_daemon_that_can_read_it(
    instance: Instance,
) -> None:
    code = (
        "import sys\nfrom logd_wire.outbox import layout\nlayout.OUTBOX_VERSION = 2\n"
        "from logd_client import Client\nassert Client(sys.argv[1]).emit('page_view')\n"
    )
    subprocess.run([sys.executable, "-c", code, instance.socket], cwd=ROOT, check=True)
    daemon = instance.start()
    assert any("left for a daemon that can read it" in line for line in daemon.lines)
    (file,) = (p for p in instance.config.outbox_directory.iterdir() if p.name != "token")
    instance.stop()
    assert file.exists()
    status = instance.status()
    assert (status["stored"], status["outboxes_unreadable"]) == (0, 1)
    data = bytearray(file.read_bytes())
    data[8] = 1  # a daemon that can read it, played by an outbox of this version
    file.write_bytes(data)
    instance.start()
    check_sums(instance.settle(), attempted=1, accepted=1)
    assert instance.status()["stored"] == 1


def test_starting_in_a_directory_without_an_instance_names_the_remedy(directory: Path) -> None:
    daemon = Process("-m", "logd", "run", "--config", str(directory / "logd.toml"))
    try:
        assert daemon.popen.wait(20) == 78
        daemon.end()
        assert any("`logd init DIR` creates an instance" in line for line in daemon.lines)
    finally:
        daemon.close()
