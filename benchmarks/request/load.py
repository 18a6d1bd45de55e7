"""The load: a process that requests pages from a site over several connections, and can kill it.

The kill is done here so that it happens under load: every connection is waiting for a page.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.harness.processes import Failed
from benchmarks.request.ledger import name_of
from benchmarks.request.site import CALL_HEADER, EVENT_HEADER, PAGE

ANSWER_TIMEOUT_S = 60.0
_CALL = CALL_HEADER.lower().encode() + b":"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Task:
    """Requests over `connections`, numbered from `first_lane`, for at least `least_s` seconds.

    Continues until there are `requests_min` answers, but not longer than `most_s`. With `kill` that
    process group is killed at the end, under load.
    """

    port: int
    connections: int
    least_s: float
    requests_min: int = 1
    most_s: float = 30.0
    requests_max: int = 1 << 60
    first_lane: int = 0
    first_number: int = 0
    page: str = PAGE
    headers: dict[str, str] = field(default_factory=dict)
    kill: int = 0


@dataclass(frozen=True)
class Answers:
    """The result of a task. `answered` are the names of the events with an answer, in order."""

    answered: list[str]
    calls_ns: list[int]
    took_s: float
    in_time: int  # answers before the end (or kill)
    numbers: int  # the next unused event number
    problems: list[str]
    ended_early: int = 0  # connections closed without an answer, not by the kill

    @property
    def refused_all(self) -> bool:
        """Whether the site closed every connection without an answer, not even an error."""
        return not self.answered and 0 < self.ended_early == len(self.problems)

    @property
    def per_s(self) -> float:
        """Requests answered per second."""
        return self.in_time / self.took_s


class _Lane:
    """One connection: one request at a time."""

    def __init__(self, task: Task, lane: int) -> None:
        self.lane = lane
        self.number = task.first_number - 1
        self.asked_ns = 0
        headers = "".join(f"{name}: {value}\r\n" for name, value in task.headers.items())
        self._head = f"GET {task.page} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}{EVENT_HEADER}: "
        self._buffer = b""
        self.socket = socket.create_connection(("127.0.0.1", task.port), ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def name(self) -> str:
        return name_of(self.lane, self.number)

    def ask(self) -> None:
        self.number += 1
        self.socket.sendall(f"{self._head}{self.name}\r\n\r\n".encode())

    def read(self) -> bytes | None:
        """Return the head of an answer once it is complete, else None. Raises EOFError."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or len(body) < int(_value(head, _LENGTH) or 0):
            return None
        self._buffer = b""
        return head


def _value(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        if line.lower().startswith(name):
            return line[len(name) :].strip()
    return None


class TaskRun:
    """The execution of one task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._answered: list[str] = []
        self._calls_ns: list[int] = []
        self._problems: list[str] = []
        self._ended = 0
        self._selector = selectors.DefaultSelector()
        self._lanes = [_Lane(task, task.first_lane + n) for n in range(task.connections)]
        self._killed = False

    def run(self) -> Answers:
        """Run the task until every connection has its last answer or is closed."""
        task = self._task
        start_s = time.monotonic()
        for lane in self._lanes:
            self._selector.register(lane.socket, selectors.EVENT_READ, lane)
            lane.ask()
        while not self._is_over(time.monotonic() - start_s) and self._selector.get_map():
            self._step(start_s + task.most_s - time.monotonic(), go_on=True)
        took_s = time.monotonic() - start_s
        in_time = len(self._answered)
        if task.kill:
            self._killed = True
            os.killpg(task.kill, signal.SIGKILL)
        self._drain()
        numbers = max(lane.number for lane in self._lanes) + 1
        for lane in self._lanes:
            lane.socket.close()
        return Answers(
            self._answered, self._calls_ns, took_s, in_time, numbers, self._problems, self._ended
        )

    def _is_over(self, ran_s: float) -> bool:
        task, done = self._task, len(self._answered)
        if done >= task.requests_max:
            return True
        return ran_s >= task.most_s or (ran_s >= task.least_s and done >= task.requests_min)

    def _drain(self) -> None:
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        while self._selector.get_map():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                self._problems.append("a page was not answered in time")
                break
            self._step(left_s, go_on=False)
        self._selector.close()

    def _step(self, timeout_s: float, *, go_on: bool) -> None:
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            lane: _Lane = key.data
            try:
                head = lane.read()
                if head is None:
                    continue
                self._take(lane, head)
                if go_on:
                    lane.ask()
                else:
                    self._selector.unregister(lane.socket)
            except (OSError, EOFError) as error:
                self._selector.unregister(lane.socket)
                if not self._killed:
                    self._ended += 1
                    self._problems.append(f"a page was not answered: {error!r}")

    def _take(self, lane: _Lane, head: bytes) -> None:
        if head.split(b" ", 2)[1] == b"200":
            self._answered.append(lane.name)
            if (call_ns := _value(head, _CALL)) is not None:
                self._calls_ns.append(int(call_ns))
        elif not self._killed:
            self._problems.append(f"the site answers {head.splitlines()[0].decode()}")


def _work(tasks: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark itself handles Ctrl-C
    with contextlib.suppress(EOFError):
        while True:
            task = tasks.recv()
            try:
                tasks.send(TaskRun(task).run())
            except OSError as error:
                tasks.send(error)


class Loader:
    """The load process, as the benchmark uses it."""

    def __init__(self, tasks: Connection) -> None:
        self._tasks = tasks

    def run(self, task: Task) -> Answers:
        """Run one task. Raises Failed."""
        try:
            self._tasks.send(task)
            answers = self._tasks.recv()
        except (OSError, EOFError) as error:
            raise Failed(f"the load process is gone: {error!r}") from error
        if isinstance(answers, OSError):
            raise Failed(f"the site does not accept connections: {answers}")
        assert isinstance(answers, Answers)
        if answers.refused_all:
            # The site's workers may die before or after the
            # first connection; both are the same failure.
            raise Failed(f"the site answers no page: {answers.problems[0]}")
        return answers


@contextlib.contextmanager
def loading() -> Iterator[Loader]:
    """Run the load process for the length of a `with`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Loader(ours)
    finally:
        ours.close()
        process.kill()
        process.join()
