"""Finds outboxes: lists their directory in parts, and takes the names of closed files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

from logd.batch import Producer
from logd.ingest.interfaces import AnOutbox, Directory
from logd.ingest.open_outboxes import OpenOutboxes
from logd.ingest.ordering import Intake
from logd.ingest.outbox_opener import OutboxOpener
from logd.ingest.step_state import StepState
from logd.ingest.user_tasks import UserTasks
from logd_wire.outbox.names import parse_name

# How many names of a listing a step takes, for how many seconds,
# and how many files of one user may be queued. The next listing finds the others.
DISCOVER_FILES_MAX = 500
DISCOVER_S_MAX = 0.005
DISCOVER_QUEUE_MAX = 1000
# Seconds for which a step handles names of closed files. The listing finds the others.
CLOSED_S_MAX = 0.002


@dataclass(eq=False)
class OutboxFinder(Generic[AnOutbox]):
    """Finds files that are not open yet, and queues each as a task of its owner."""

    directory: Directory[AnOutbox]
    outboxes: OpenOutboxes[AnOutbox]
    opener: OutboxOpener[AnOutbox]
    intake: Intake
    tasks: UserTasks
    state: StepState
    _listing: Iterator[tuple[str, int, int]] | None = field(default=None, init=False)

    @property
    def is_listing(self) -> bool:
        """Whether a listing of the directory is under way."""
        return self._listing is not None

    def restart(self) -> None:
        """Ends the listing under way, since the directory was replaced."""
        self._listing = None

    def find_new(self, *, due: bool) -> None:
        """Continues the listing of the directory, or begins one if it is due."""
        try:
            self.list(due=due)
        except OSError as error:
            self._listing = None
            self.state.warn_throttled("the outboxes cannot be listed now: %s", error.strerror)

    def list(self, *, due: bool) -> None:
        """Does the same as `find_new`, but raises OSError if the directory cannot be listed."""
        if due and self._listing is None:
            self._listing = iter(self.directory.names())
        if self._listing is None:
            return
        end_s = self.state.monotonic_s() + DISCOVER_S_MAX
        for _ in range(DISCOVER_FILES_MAX):
            found = next(self._listing, None)
            if found is None:
                self._listing = None
                return
            self.find(*found)
            if self.state.monotonic_s() >= end_s:
                break
        self.state.work_left = True

    def find(self, name: str, uid: int, producer_id: int) -> None:
        """Queues a file that is not open yet, to be opened as a task of its owner."""
        producer = self.intake.producers.get((uid, producer_id))
        if producer is not None and producer in self.outboxes:
            return
        try:
            owner = self.directory.owner(name)
        except OSError:
            return  # the next listing finds the file again
        if owner is not None and self.tasks.count(owner) < DISCOVER_QUEUE_MAX:
            task = partial(self.opener.open_found, name, uid, producer_id)
            self.tasks.add(owner, name, task)

    def find_closed(self, names: Iterable[str]) -> set[Producer]:
        """Queues new outboxes among closed files; returns the known producers of the others.

        Files for which there is no time are found by the listing and the next due poll.
        """
        found = set()
        end_s = self.state.monotonic_s() + CLOSED_S_MAX
        for name in names:
            parsed = parse_name(name)
            if parsed is None:
                continue
            self.find(name, *parsed)
            producer = self.intake.producers.get(parsed)
            if producer is not None:
                found.add(producer)
            if self.state.monotonic_s() >= end_s:
                break
        return found
