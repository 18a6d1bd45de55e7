"""Runs gunicorn with the small app, and requests whose answers are counted."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.instance import DEADLINE_S, Instance, Process, until

ANSWER_TIMEOUT_S = 30.0
EVENTS_PER_REQUEST = 2  # the task, and the page view


@dataclass(frozen=True)
class Serving:
    """How gunicorn is to run the app."""

    preload: bool = False
    worker_class: str = "sync"
    threads: int = 1
    workers: int = 2
    max_requests: int = 15


SERVINGS = {
    "sync": Serving(),
    "gthread": Serving(worker_class="gthread", threads=4),
    "sync, preload": Serving(preload=True),
    "gthread, preload": Serving(preload=True, worker_class="gthread", threads=4),
}


class Site:
    """One gunicorn at a time, at one path."""

    def __init__(self, instance: Instance, serving: Serving) -> None:
        self.path = str(instance.directory / "http.sock")
        self._boot_counts = instance.directory / "boot-counts"
        self._boot_counts.touch()
        self._env = {"LOGD_SOCKET": instance.socket, "BOOT_COUNTS": str(self._boot_counts)}
        self._command = [
            *("-m", "gunicorn", "--bind", f"unix:{self.path}", "--no-control-socket"),
            *("--workers", str(serving.workers), "--worker-class", serving.worker_class),
            *("--threads", str(serving.threads), "--max-requests", str(serving.max_requests)),
            *("--max-requests-jitter", str(serving.max_requests // 2), "--timeout", "20"),
            *("--graceful-timeout", "10", *(["--preload"] if serving.preload else [])),
            "tests.faults.site_app:create_app()",
        ]
        self._said: list[list[str]] = []  # each master's lines
        self._gone: list[Process] = []
        self.master: Process
        self.start()

    def start(self) -> None:
        """Starts the next master; the former one must be dead."""
        self.master = Process(*self._command, env=self._env, start_new_session=True)
        self._said.append(self.master.lines)
        try:
            until(lambda: self.master.says("Booting worker"), "gunicorn has a worker")
        except BaseException:
            self.close()
            raise

    def workers(self) -> list[int]:
        """The pids of the master's present children."""
        pid = self.master.popen.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def recycled(self) -> int:
        """The number of workers that ended by themselves after their maximum of requests."""
        return sum("Autorestarting worker" in line for lines in self._said for line in list(lines))

    def send_worker(self, rng: random.Random, number: signal.Signals) -> int:
        """Sends the signal to one of the workers, once there is one; returns its pid."""
        until(self.workers, "a worker")
        pid = rng.choice(self.workers() or [0])
        if pid:
            self.send(pid, number)
        return pid

    def send(self, pid: int, number: signal.Signals) -> None:
        """Sends the signal to that worker, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def wait_for_orphans(self) -> None:
        """Waits until workers have noticed that their master was killed."""
        for master in self._gone:
            until(lambda pid=master.popen.pid: not _group_lives(pid), "orphans have ended")  # type: ignore[misc] # a lambda's default
            master.close()
        self._gone.clear()

    def send_all(self, number: signal.Signals) -> None:
        """Sends the signal to the master and its workers, but not to orphans of a former master."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.master.popen.pid, number)

    def again(self) -> None:
        """Replaces a master that is dead or dying."""
        self.master.popen.wait(DEADLINE_S)
        self._gone.append(self.master)
        self.start()

    def stop(self) -> None:
        """Sends SIGTERM: the workers finish their requests."""
        assert self.master.end(signal.SIGTERM) == 0, self.master.lines

    def boots(self) -> tuple[int, int, int]:
        """Events logged while the app was loaded: begun, accepted, refused."""
        counts = self._boot_counts.read_bytes()
        return counts.count(b"+"), counts.count(b"="), counts.count(b"-")

    def close(self) -> None:
        """Kills all processes, also workers whose master was killed."""
        for master in (*self._gone, self.master):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(master.popen.pid, signal.SIGKILL)
            master.close()
        self._gone.clear()


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("site", timeout=ANSWER_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_TIMEOUT_S)
        self.sock.connect(self._path)


class Load:
    """Threads that send requests in turn, and record each answer or its absence."""

    def __init__(self, path: str, threads: int) -> None:
        self._path = path
        self._stop = threading.Event()
        self.answered: dict[str, tuple[int, int]] = {}
        self.unanswered: set[str] = set()
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(f"t{n}",), daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            self._request(f"{name}-{number}")

    def _request(self, request_id: str) -> None:
        connection = _Connection(self._path)
        try:
            try:
                connection.connect()
            except OSError:
                time.sleep(0.002)  # no gunicorn: nothing was asked
                return
            try:
                connection.request(
                    "GET", f"/task?number={request_id}", headers={"X-Request-ID": request_id}
                )
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                self.unanswered.add(request_id)
                return
            if "X-accepted" not in response.headers:
                # gunicorn's own answer for a worker that was aborted: it knows of no events.
                self.unanswered.add(request_id)
            elif response.status == 200:
                told = [int(response.headers[name]) for name in ("X-accepted", "X-refused")]
                self.answered[request_id] = (told[0], told[1])
            else:
                self.failures.append(f"{request_id}: {response.status}")
        finally:
            connection.close()

    @property
    def asked(self) -> int:
        """Requests that ended, with or without an answer."""
        return len(self.answered) + len(self.unanswered)

    def stop(self) -> None:
        """Stops each thread after its present request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    @property
    def accepted(self) -> int:
        """Events that an answer reported as accepted."""
        return sum(accepted for accepted, _ in self.answered.values())

    @property
    def refused(self) -> int:
        """Events that an answer reported as refused."""
        return sum(refused for _, refused in self.answered.values())

    @property
    def unheard_at_most(self) -> int:
        """Events that requests without an answer may have emitted at most."""
        return EVENTS_PER_REQUEST * len(self.unanswered)

    def check(self, events: list[dict[str, Any]]) -> None:
        """Each request's own events: as its answer said; no more than it has, if none came."""
        stored: Counter[tuple[str, str]] = Counter(
            (event["props"]["request_id"], event["type"]) for event in events
        )
        assert not stored or max(stored.values()) == 1, stored.most_common(3)
        of_request = Counter(request_id for request_id, _ in stored.elements())
        for request_id, (accepted, refused) in self.answered.items():
            assert accepted + refused == EVENTS_PER_REQUEST, request_id
            assert of_request[request_id] == accepted, (request_id, accepted)
        strangers = of_request.keys() - self.answered.keys() - self.unanswered
        assert strangers == set()
