"""A supervisor of `make run` in a thread, with stand-ins for logd, the seed command and the site.

The stand-ins record their actions in a file, in order.
"""

from __future__ import annotations

import queue
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.instance import until
from webapp.run.plan import Plan
from webapp.run.process import Events, Signalled
from webapp.run.supervisor import Supervisor

DEADLINE_S = 20.0
ACCOUNTS = [("teacher", "frida", "chalk"), ("student", "kim", "pencil")]

# The first argument of each stand-in is the record's path.
RECORD = """
import os, signal, sys, time
def record(text):
    with open(sys.argv[1], "a") as record:
        record.write(f"{text} {os.getpid()}\\n")
"""
LOGD_INIT = RECORD + "record('init'); os.mkdir(sys.argv[2]); open(sys.argv[2] + '/logd.toml', 'w')"
LOGD_RUN = (
    RECORD
    + """
def stop(*_):
    record("logd stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
record("logd started")
print("logd: ready, listening", file=sys.stderr, flush=True)
while True:
    signal.pause()
"""
)
LOGD_STATUS = """print('{"stored": 12, "pending": 0, "lost": 0, "commits": 3}')"""
SEED = (
    RECORD
    + """
record("seeding")
os.mkdir(sys.argv[2])
open(sys.argv[2] + "/seeding", "w")
record("seeded")
open(sys.argv[2] + "/seeded", "w")
"""
)
SEED_WITHOUT_END = (
    RECORD
    + """
os.mkdir(sys.argv[2])
open(sys.argv[2] + "/seeding", "w")
record("seeding")
signal.pause()
"""
)
SITE = (
    RECORD
    + """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
def stop(*_):
    record("site stopped")
    print("[ERROR] Worker was sent SIGTERM!", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Page)
record("site started")
print("a warning of the site", flush=True)
server.serve_forever()
"""
)
SITE_WITH_SLOW_ANSWERS = (
    RECORD
    + """
import socket
def stop(*_):
    record("site stopped")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as server:
    while True:
        peer, _ = server.accept()
        record("asked")
        try:
            while True:
                peer.send(b"x")
                time.sleep(0.01)
        except OSError:
            peer.close()
"""
)
FAILS = "import sys; print('the reason, in one line', file=sys.stderr); sys.exit(int(sys.argv[2]))"


@dataclass
class Run:
    """A supervisor in a thread, and the lines it printed."""

    plan: Plan
    record_path: Path
    events: Events = field(default_factory=queue.SimpleQueue)
    printed: list[str] = field(default_factory=list)
    exit_code: int | None = None

    def start(self) -> None:
        self.record_path.touch()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        supervisor = Supervisor(self.plan, self.events, self.printed.append, lambda: ACCOUNTS)
        self.exit_code = supervisor.run()

    def ctrl_c(self) -> None:
        self.events.put(Signalled(signal.SIGINT))

    def end(self) -> int:
        """Waits for the end of the run; returns its exit code."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"still running, after printing {self.printed}"
        assert self.exit_code is not None
        return self.exit_code

    def run_to_the_end(self) -> int:
        self.start()
        return self.end()

    def until_open(self) -> None:
        until(lambda: "is open" in self.text, "the site is open")

    @property
    def text(self) -> str:
        return "\n".join(self.printed)

    @property
    def record(self) -> list[str]:
        """Returns what the stand-ins recorded, without their process ids."""
        return [line.rsplit(" ", 1)[0] for line in self.record_path.read_text().splitlines()]

    def pid(self, entry: str) -> int:
        """Returns the process that made the latest such entry."""
        lines = self.record_path.read_text().splitlines()
        return max(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(entry))


def other(command: tuple[str, ...], code: str, *arguments: object) -> tuple[str, ...]:
    """Returns the stand-in's command with another program."""
    return (*command[:3], code, command[4], *map(str, arguments or command[5:]))
