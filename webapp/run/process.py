"""Child processes of `make run`: each in a session of its own, its output kept, its end reported.

Everything a supervisor waits for (a line, an exit, a signal) arrives as an event in one queue, so
that it waits in one place and nothing is polled or slept for.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

LINES_KEPT = 20
READ_REST_TIMEOUT_S = 1.0

_PR_SET_PDEATHSIG = 1
# Looked up before any fork: a child between fork and exec may do next to nothing.
_prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True)
class Line:
    """A child wrote a line."""

    child: Child
    text: str


@dataclass(frozen=True)
class Exited:
    """A child ended, all its lines delivered. `code` is negative for a signal's number."""

    child: Child
    code: int


@dataclass(frozen=True)
class Signalled:
    """The supervisor itself was told to stop."""

    signal: int


Event = Line | Exited | Signalled
Events = queue.SimpleQueue[Event]


class Child:
    """A running child. Starting it raises OSError when the program is not there.

    It leads a session of its own, so a terminal's Ctrl-C reaches the supervisor alone, which stops
    the children in order. With `lines`, stdout and stderr arrive as events; else they are ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        events: Events,
        env: Mapping[str, str],
        *,
        lines: bool = True,
    ) -> None:
        self.name = name
        self.last_lines: collections.deque[str] = collections.deque(maxlen=LINES_KEPT)
        self._events = events
        self._process = subprocess.Popen(  # noqa: S603 - the commands are this project's own
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if lines else None,
            stderr=subprocess.STDOUT if lines else None,
            start_new_session=True,
            # A supervisor killed with -9 cannot stop anything; the kernel does it in its place.
            preexec_fn=_die_with_parent,
        )
        self.pid = self._process.pid
        reader = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        reader.start()
        threading.Thread(
            target=self._await_end, args=(reader,), name=f"await {name}", daemon=True
        ).start()

    def _read(self) -> None:
        stream: IO[bytes] | None = self._process.stdout
        for raw in stream or ():
            text = raw.decode("utf-8", "replace").rstrip("\n")
            self.last_lines.append(text)
            self._events.put(Line(self, text))

    def _await_end(self, reader: threading.Thread) -> None:
        code = self._process.wait()
        # What it started itself must not go on without it, and may hold the pipe open besides.
        self._kill_group()
        reader.join(READ_REST_TIMEOUT_S)
        self._events.put(Exited(self, code))

    @property
    def running(self) -> bool:
        """Whether it still runs, or its end is not yet noticed."""
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, and SIGKILL to its whole group after `timeout_s` seconds. Its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to its whole group. Its exit code."""
        self._kill_group()
        return self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def describe_exit(code: int) -> str:
    """`exit code 78`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
