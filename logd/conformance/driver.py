"""Runs a client's driver as a process: sends commands, reads answers, and can kill it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from logd.conformance import driver_protocol as protocol
from logd.conformance.verdicts import Failed, NotTried
from logd.errors import NotInstalled

# Seconds: no call waits for the daemon, so a driver without an answer by then has hung.
ANSWER_S = 10.0
END_S = 10.0
_READ_BYTES = 65536
_UMASK = 0o077  # the driver's umask, which must not change its outbox's mode


class Driver:
    """A running driver process. Raises NotInstalled if the driver cannot be started.

    `errors` takes what the driver writes to its standard error.
    """

    def __init__(self, command: Sequence[str], errors: IO[bytes]) -> None:
        self._errors = errors
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - what we are asked to run
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                umask=_UMASK,
                # The driver gets a new session: a terminal's Ctrl-C
                # then reaches this process alone, which ends the driver.
                start_new_session=True,
            )
        except OSError as error:
            raise NotInstalled(
                f"{command[0]}: the driver cannot be started: {error.strerror}. "
                "Name a program, with its path or from PATH, and then its arguments."
            ) from error
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        self._buffer = b""

    @property
    def pid(self) -> int:
        """The process id of the driver."""
        return self._popen.pid

    def ask(self, command: str, deadline_s: float = ANSWER_S) -> str:
        """Sends a command; returns the answer. Raises NotTried if the driver does not know it."""
        self.send(command)
        return self.answer(command, deadline_s)

    def send(self, command: str) -> None:
        """Sends a command to the driver, without waiting for the answer."""
        data = command.encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._in, data) :]
        except BrokenPipeError:
            raise self._ended(command) from None

    def answer(self, command: str, deadline_s: float = ANSWER_S) -> str:
        """Waits for the driver's next answer, which is that to `command`, and returns it."""
        end_s = time.monotonic() + deadline_s
        while b"\n" not in self._buffer:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise Failed(
                    f"no answer to `{protocol.shown(command)}` within {deadline_s:.0f} s: "
                    "no call may wait for the daemon"
                )
            if select.select([self._out], [], [], left_s)[0]:
                data = os.read(self._out, _READ_BYTES)
                if not data:
                    raise self._ended(command)
                self._buffer += data
            if len(self._buffer) > protocol.ANSWER_CHARS_MAX:
                raise Failed("the driver's answer has no line end", protocol.PAGE)
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = protocol.parse(command, line.decode("utf-8", "replace"))
        if answer == protocol.UNSUPPORTED:
            raise NotTried(f"the driver does not support `{command.split(' ', 1)[0]}`")
        return answer

    def heard(self, command: str) -> list[str]:
        """Returns the complete answers to `command` that the driver wrote before it was killed."""
        while data := os.read(self._out, _READ_BYTES):
            self._buffer += data
        whole = self._buffer.split(b"\n")[:-1]
        self._buffer = b""
        return [protocol.parse(command, line.decode("utf-8", "replace")) for line in whole]

    def finish(self) -> int:
        """Closes the driver's standard input, waits for its end, and returns its exit code."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        try:
            return self._popen.wait(END_S)
        except subprocess.TimeoutExpired:
            raise Failed(
                f"the driver has not ended within {END_S:.0f} s of its input's end", protocol.PAGE
            ) from None

    def owns(self, pid: int | None) -> bool:
        """Returns whether the process is the driver or one that the driver has started."""
        try:
            return pid is not None and os.getpgid(pid) == self.pid
        except (ProcessLookupError, OverflowError):
            return False

    def expect_holder(self, holder: int | None, whose: str) -> None:
        """Raises Failed unless the driver, or a process it started, holds the outbox's lock."""
        if self.owns(holder):
            return
        if holder is None:
            found = "no POSIX record lock (F_SETLK) is held: there is none, or a flock lock"
        elif holder < 0:
            found = "an F_OFD_SETLK lock is held, which no process owns, in place of F_SETLK's"
        else:
            found = f"process {holder} holds the lock, the driver is {self.pid}"
        raise Failed(f"{whose}: {found}", "The lock")

    def kill(self) -> None:
        """Kills the driver and the processes that it has started, and waits for their end."""
        self.signal_kill()
        self._popen.wait()

    def signal_kill(self) -> None:
        """Kills the driver and the processes that it has started, without waiting for their end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the driver, whatever its state, and closes its pipes."""
        self.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _ended(self, command: str) -> Failed:
        code = self._popen.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._errors.seek(0)
        output = self._errors.read()[-2000:].decode("utf-8", "replace").strip().splitlines()[-3:]
        return Failed(
            f"the driver ended {how} at `{protocol.shown(command)}`"
            + (f"; its last lines: {' | '.join(output)}" if output else ""),
            protocol.PAGE,
        )
