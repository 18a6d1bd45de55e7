"""What the service manager is told (sd_notify(3)): ready, stopping, alive, how it goes.

The watchdog is fed by whoever turns the loop, and by nobody else: a flush that hangs hangs the
turn, and the watchdog finds it. A loop with nothing to do still turns.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping

# A message is for one moment; a service manager that does not read must not hold up a commit.
SEND_TIMEOUT_S = 5.0
FEEDS_PER_TIMEOUT = 4
STATUS_INTERVAL_S = 1.0
EXTENSION_S = 120


def send(state: str, *, wait: bool = False) -> bool:
    """Says that, where there is a service manager; whether it has been said.

    With `wait` a manager that is slow to read is given SEND_TIMEOUT_S.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SEND_TIMEOUT_S if wait else 0)
        sock.sendto(state.encode(), address)
        return True
    return False


def extend_timeout(seconds: float = EXTENSION_S) -> None:
    """Asks for so much time from now on, while it starts or stops; never makes it shorter."""
    send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often this process has to say that it is alive; None: nobody asks."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        timeout_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return timeout_s / FEEDS_PER_TIMEOUT if timeout_s > 0 else None


@contextlib.contextmanager
def may_take(seconds: float) -> Iterator[None]:
    """Has the watchdog wait for so long within a `with`: for what is long and is no hang.

    Where it already waits longer nothing changes.
    """
    interval_s = watchdog_interval_s()
    if interval_s is None or interval_s * FEEDS_PER_TIMEOUT >= seconds:
        yield
        return
    send(f"WATCHDOG_USEC={int(seconds * 1e6)}\nWATCHDOG=1", wait=True)
    try:
        yield
    finally:
        send(f"WATCHDOG_USEC={os.environ['WATCHDOG_USEC']}\nWATCHDOG=1", wait=True)


class Notifier:
    """What is said again and again, at bounded rates. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self.interval_s = watchdog_interval_s()
        self._fed_s: float | None = None
        self._said = ""
        self._said_s: float | None = None

    def feed_watchdog(self, now_s: float) -> None:
        """The loop has made a turn: feeds the watchdog, where that is due."""
        if self.interval_s is None:
            return
        due = self._fed_s is None or now_s - self._fed_s >= self.interval_s
        if due and send("WATCHDOG=1"):
            self._fed_s = now_s

    def set_status(self, text: str, now_s: float) -> None:
        """One line for `systemctl status`: when it has changed, and at most once a second."""
        if text == self._said:
            return
        if self._said_s is None or now_s - self._said_s >= STATUS_INTERVAL_S:
            if send(f"STATUS={text}"):
                self._said = text
            self._said_s = now_s
