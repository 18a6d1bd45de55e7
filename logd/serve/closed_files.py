"""Finds which outboxes were closed, by inotify, at a bounded rate."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable

from logd.ingest.ignored import Tally
from logd.ingest.inotify import Inotify
from logd.ingest.outbox_directory import OutboxDirectory

# Seconds between two wake-ups of the loop by closed files, whatever files they are.
CLOSED_INTERVAL_S = 0.05


class ClosedFiles:
    """Watches the outboxes' directory for closed files, for the loop that waits on `selector`.

    `closings` counts the owners of other files whose closing has woken the loop. Without an inotify
    watch (their number per user is limited) closed outboxes are found by polling.
    """

    def __init__(
        self,
        directory: OutboxDirectory,
        selector: selectors.BaseSelector,
        closings: Tally,
        warn: Callable[[str, object], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._selector = selector
        self._closings = closings
        self._warn = warn
        self._monotonic_s = monotonic_s
        self._inotify: Inotify | None = None
        self._due_s = 0.0  # before this time, closed files do not wake the loop
        self._registered = False  # whether closed files wake the loop now
        self.watch()

    def watch(self) -> None:
        """Watches the directory that is at the path now, in place of a former one."""
        self.close()
        try:
            self._inotify = Inotify(self._directory.path)
        except OSError as error:
            self._warn("no inotify (%s): closed outboxes are found by polling", error.strerror)

    def retry(self) -> None:
        """Watches the directory if the kernel had no watch left before."""
        if self._inotify is None:
            self.watch()

    def enable(self, now_s: float) -> float:
        """Lets closed files wake the loop if that is due; otherwise returns when it is due."""
        if self._inotify is None or self._registered:
            return float("inf")
        if now_s < self._due_s:
            return self._due_s
        self._selector.register(self._inotify.fd, selectors.EVENT_READ)
        self._registered = True
        return float("inf")

    def names(self, ready: set[int]) -> list[str]:
        """Returns the outboxes that were closed; `ready` has the loop's readable descriptors."""
        if self._inotify is None or self._inotify.fd not in ready:
            return []
        self._unregister()
        self._due_s = self._monotonic_s() + CLOSED_INTERVAL_S
        names = self._inotify.names()
        for other in self._inotify.others:
            with contextlib.suppress(OSError):
                owner = self._directory.owner(other)
                if owner is not None and owner != os.geteuid():
                    self._closings.add(owner, None)
        return names

    def _unregister(self) -> None:
        if self._registered and self._inotify is not None:
            self._selector.unregister(self._inotify.fd)
            self._registered = False

    def close(self) -> None:
        """Stops watching."""
        self._unregister()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
