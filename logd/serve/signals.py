"""Signals of the daemon and its report process: what they note, and what does not end them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

_STOP = (signal.SIGTERM, signal.SIGINT)
# Without a handler each of these ends a process: logrotate, a terminal that closes, a wrong kill.
_OTHERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM)


def outlive_others() -> None:
    """Has signals that ask for nothing do nothing. By a handler: what is ignored is inherited."""
    for number in _OTHERS:
        signal.signal(number, lambda _number, _frame: None)


class Signals:
    """What has come. A pipe at `fd` wakes the loop, which acts."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.received: str | None = None  # the one to stop for
        self._reload = False

    def note(self, number: int, _frame: FrameType | None) -> None:
        """A signal's handler."""
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.received = signal.Signals(number).name

    def take_reload(self) -> bool:
        """Whether SIGHUP has come since it was last asked."""
        asked, self._reload = self._reload, False
        return asked


@contextlib.contextmanager
def noted() -> Iterator[Signals]:
    """Notes SIGTERM, SIGINT and SIGHUP while inside."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = Signals(read_fd)
    before = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGHUP)}
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)
