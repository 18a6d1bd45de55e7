"""Notifies the service manager (sd_notify(3)): ready, stopping, alive, status line.

Only the event loop notifies the watchdog: if a flush hangs, the step hangs, and the watchdog ends
the process. An idle loop still runs steps.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping

# Seconds to wait for a service manager that does not read, which must not delay a commit for long.
SEND_TIMEOUT_S = 5.0
FEEDS_PER_TIMEOUT = 4
STATUS_INTERVAL_S = 1.0
EXTENSION_S = 120


def send(state: str, *, wait: bool = False) -> bool:
    """Sends a state to the service manager, if there is one; returns whether it was sent.

    With `wait`, it waits up to SEND_TIMEOUT_S for a manager that is slow to read.
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
    """Asks the service manager for more time to start or stop; never shortens that time."""
    send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Returns how often this process must notify the watchdog; None if there is no watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        timeout_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return timeout_s / FEEDS_PER_TIMEOUT if timeout_s > 0 else None


@contextlib.contextmanager
def extend_watchdog(seconds: float) -> Iterator[None]:
    """Makes the watchdog wait for `seconds` in a `with` block, for work that is long but not hung.

    If its timeout is longer already, nothing changes.
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
    """Sends repeated notifications at bounded rates. Times are monotonic."""

    def __init__(self) -> None:
        self.interval_s = watchdog_interval_s()
        self._fed_s: float | None = None
        self._status = ""
        self._sent_s: float | None = None

    def feed_watchdog(self, now_s: float) -> None:
        """Notifies the watchdog if that is due. Called at each step of the loop."""
        if self.interval_s is None:
            return
        due = self._fed_s is None or now_s - self._fed_s >= self.interval_s
        if due and send("WATCHDOG=1"):
            self._fed_s = now_s

    def set_status(self, text: str, now_s: float) -> None:
        """Sets the status line of `systemctl status` if it has changed, at most once a second."""
        if text == self._status:
            return
        if self._sent_s is None or now_s - self._sent_s >= STATUS_INTERVAL_S:
            if send(f"STATUS={text}"):
                self._status = text
            self._sent_s = now_s
