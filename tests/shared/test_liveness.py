"""A producer's lock shows whether it is alive, with real processes that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd_wire import liveness
from tests.support.instance import ROOT

PRODUCER = """
import os, sys
from logd_wire import liveness

fd = os.open(sys.argv[1], os.O_RDWR)

def child(closes):
    if closes:
        os.close(fd)
    os._exit(0)

for line in sys.stdin:
    what = line.strip()
    if what == "hold":
        print(liveness.acquire(fd), flush=True)
    elif what == "own":
        print(liveness.lock_holder(fd), flush=True)
    elif what in ("fork and close", "fork and exit"):
        pid = os.fork() or child("close" in what)
        os.waitpid(pid, 0)
        print("done", flush=True)
    elif what == "fork and stay":
        pid = os.fork()
        if pid == 0:
            sys.stdin.readline()  # held open by the test, as this end of the pipe is
            os._exit(0)
        print(pid, flush=True)
    elif what == "let a child lock":
        pid = os.fork()
        if pid == 0:
            os._exit(7 if liveness.acquire(fd) else 8)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    elif what == "close another descriptor":
        os.close(os.open(sys.argv[1], os.O_RDONLY))
        print("done", flush=True)
    elif what == "close":
        os.close(fd)
        print("done", flush=True)
"""


class Producer:
    """A process that runs the commands it is sent, line by line."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRODUCER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.pid = self.process.pid

    def does(self, what: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "outbox"
    path.touch()
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    """The daemon's descriptor."""
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def producer(path: Path) -> Iterator[Producer]:
    started = Producer(path)
    assert started.does("hold") == "True"
    yield started
    started.end()


def test_a_lock_is_seen_with_the_pid_that_holds_it(fd: int, producer: Producer) -> None:
    assert liveness.lock_holder(fd) == producer.pid


def test_a_lock_is_gone_with_its_process_killed(fd: int, producer: Producer) -> None:
    producer.kill()
    assert liveness.lock_holder(fd) is None


def test_a_lock_is_gone_when_its_file_is_closed(fd: int, producer: Producer) -> None:
    producer.does("close")
    assert liveness.lock_holder(fd) is None


def test_a_forked_child_that_closes_does_not_drop_it(fd: int, producer: Producer) -> None:
    producer.does("fork and close")
    assert liveness.lock_holder(fd) == producer.pid


def test_a_forked_child_that_exits_does_not_drop_it(fd: int, producer: Producer) -> None:
    producer.does("fork and exit")
    assert liveness.lock_holder(fd) == producer.pid


def test_a_forked_child_that_lives_on_does_not_keep_it(fd: int, producer: Producer) -> None:
    child = int(producer.does("fork and stay"))
    assert liveness.lock_holder(fd) == producer.pid
    producer.kill()
    assert Path(f"/proc/{child}").exists()
    assert liveness.lock_holder(fd) is None
    os.kill(child, signal.SIGKILL)


def test_a_forked_child_cannot_take_it(producer: Producer) -> None:
    assert producer.does("let a child lock") == "8"


def test_asking_takes_nothing(fd: int, path: Path) -> None:
    assert liveness.lock_holder(fd) is None
    other = Producer(path)
    assert other.does("hold") == "True"
    other.end()


def test_a_lock_that_another_has_is_not_taken_and_not_waited_for(
    fd: int, producer: Producer
) -> None:
    assert liveness.acquire(fd) is False
    assert liveness.lock_holder(fd) == producer.pid


def test_a_process_does_not_see_its_own_lock(producer: Producer) -> None:
    assert producer.does("own") == "None"


def test_closing_any_descriptor_of_the_file_drops_it_so_a_producer_has_only_one(
    fd: int, producer: Producer
) -> None:
    producer.does("close another descriptor")
    assert liveness.lock_holder(fd) is None


def test_a_reader_that_opens_and_closes_does_not_drop_it(
    fd: int, path: Path, producer: Producer
) -> None:
    os.close(os.open(path, os.O_RDWR))
    assert liveness.lock_holder(fd) == producer.pid
