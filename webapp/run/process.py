"""Child processes of `make run`: each in its own session, with its output and exit as events.

Everything that the supervisor waits for (a line, an exit, a signal) arrives in one queue, so that
it waits in one place and polls nothing.
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
# The function is looked up before any fork,
# since a child may do almost nothing between fork and exec.
_prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True)
class Line:
    """The event that a child process wrote the line `text`."""

    child: Child
    text: str


@dataclass(frozen=True)
class Exited:
    """A child ended, after all its lines. A negative `code` is the number of a signal."""

    child: Child
    code: int


@dataclass(frozen=True)
class Signalled:
    """The supervisor itself received a signal to stop."""

    signal: int


Event = Line | Exited | Signalled
Events = queue.SimpleQueue[Event]


class Child:
    """A running child process. Raises OSError if the program does not exist.

    The child has its own session, so that Ctrl-C in a terminal reaches the supervisor only, which
    stops the children in order. With `lines`, its stdout and stderr arrive as events; otherwise it
    inherits them.
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
            # If the supervisor is killed by SIGKILL,
            # it stops nothing, and the kernel ends the children.
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
        # The child's own children must not outlive it; they may also hold the pipe open.
        self._kill_group()
        reader.join(READ_REST_TIMEOUT_S)
        self._events.put(Exited(self, code))

    @property
    def running(self) -> bool:
        """Returns whether the process has not ended yet."""
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> int:
        """Sends SIGTERM, after `timeout_s` SIGKILL to its group; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Sends SIGKILL to its process group; returns the exit code."""
        self._kill_group()
        return self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def describe_exit(code: int) -> str:
    """Returns a text such as `exit code 78` or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
