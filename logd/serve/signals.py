"""Signal handling of the daemon and its report process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

_STOP = (signal.SIGTERM, signal.SIGINT)
# Signals that would end the process without a handler:
# from logrotate, a closed terminal, a mistake.
_OTHERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM)


def ignore_other_signals() -> None:
    """Ignores signals that have no meaning here.

    It installs a handler, since child processes would inherit SIG_IGN.
    """
    for number in _OTHERS:
        signal.signal(number, lambda _number, _frame: None)


class Signals:
    """Records received signals. A pipe, read at `fd`, wakes the loop, which acts on them."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.received: str | None = None  # the name of the signal that asks to stop
        self._reload = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Records a received signal. Installed as the handler."""
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.received = signal.Signals(number).name

    def take_reload(self) -> bool:
        """Returns whether SIGHUP was received since the last call."""
        asked, self._reload = self._reload, False
        return asked


@contextlib.contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catches SIGTERM, SIGINT and SIGHUP in a `with` block."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = Signals(read_fd)
    before = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGHUP)}
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)
