"""The daemon's one thread: waits, then takes the delivery core a step further. `turn` is one round.

While a commit waits for the disk nothing is received; nothing has to be: the kernel's queue takes
the first datagrams, the outboxes keep all of them, and the next turn reads in bulk what did not
fit. That is the whole of group commit here: the batch is what arrived during the last commit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from logd.audit import anchor_file, anchors
from logd.config.settings import Config
from logd.errors import StorageBusy
from logd.ingest.delivery import QUEUE_DATAGRAMS_MAX, Delivery
from logd.ingest.inotify import Inotify
from logd.ingest.outbox_directory import OpenOutbox, Outboxes
from logd.ingest.outbox_place import drop_missing
from logd.ingest.outbox_reader import capacity
from logd.ingest.receiver import Receiver
from logd.maintenance.outbox_survey import directory_identity
from logd.maintenance.worker import STEP_S, Worker
from logd.runtime_stats import IGNORED_SENDERS_MAX, Figures, Pace, Survey
from logd.storage.database import file_bytes, wal_path
from logd.storage.store import Store

RETRY_INTERVAL_S = 1.0
# For sockets, the database, reports: outboxes past this wait until others are done with.
DESCRIPTORS_RESERVED = 32
# Closing files wakes the daemon so often at most, whoever closes them, and whatever they are.
CLOSED_INTERVAL_S = 0.05
# However busy it is, a step of a job is taken so often.
WORK_INTERVAL_MAX_S = 0.5

_log = logging.getLogger("logd")


class Daemon(Delivery[OpenOutbox]):
    """The delivery core with its socket, directory, database and clocks."""

    _store: Store
    _outboxes: Outboxes

    def __init__(
        self,
        config: Config,
        store: Store,
        receiver: Receiver,
        outboxes: Outboxes,
        clock_ns: Callable[[], int] = time.time_ns,
        tell: Callable[[str | None], None] = lambda _trouble: None,
        worker: Worker | None = None,
    ) -> None:
        open_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_RESERVED
        super().__init__(config, store, outboxes, clock_ns, open_max, time.monotonic, os.geteuid())
        self._receiver = receiver
        self._worker = worker
        if worker is not None:
            worker.serve(lambda: self.arrivals(receiver.queue_datagrams or QUEUE_DATAGRAMS_MAX))
        self._work_look_due_s = self._worked_s = 0.0
        self._at_work = False  # between start and stop: neither is to wait for a job
        self._tell = tell  # what nothing can be stored for; None once that is over
        self._started_ns = clock_ns()
        self._wait_max_s = float("inf")
        self._anchors = anchors.Pace(config.anchor_interval_s)
        self._wake_fd: int | None = None
        self._wake_selector = selectors.DefaultSelector()
        self._selector = selectors.DefaultSelector()
        self._selector.register(receiver.socket, selectors.EVENT_READ)
        self._inotify: Inotify | None = None
        self._inotify_due_s = 0.0  # closed files do not wake the daemon before
        self._inotify_on = False  # whether they do now
        self._watch_directory()

    def _watch_directory(self) -> None:
        if self._inotify is not None:
            if self._inotify_on:
                self._selector.unregister(self._inotify.fd)
                self._inotify_on = False
            self._inotify.close()
            self._inotify = None
        try:
            self._inotify = Inotify(self._outboxes.directory)
        except OSError as error:
            self._say("no inotify (%s): closed outboxes are found by looking", error.strerror)

    def wake_on(self, fd: int) -> None:
        """Has `turn` come back early when `fd` becomes readable (a signal arrived)."""
        self._selector.register(fd, selectors.EVENT_READ)
        self._wake_selector.register(fd, selectors.EVENT_READ)
        self._wake_fd = fd

    def turn_every(self, seconds: float) -> None:
        """Has `turn` come back after so long at the latest, whatever its look interval is."""
        self._wait_max_s = min(self._wait_max_s, seconds)

    def watch_again(self) -> None:
        """Takes up inotify where the kernel had no watch left to give before."""
        if self._inotify is None:
            self._watch_directory()

    @property
    def open_names(self) -> frozenset[str]:
        """The outboxes that are open."""
        return frozenset(outbox.name for outbox in (*self._open.values(), *self._given_up.values()))

    def follow_directory(self) -> None:
        """The outboxes are in another directory now; what is open of the former one stays open."""
        self._listing = None
        self._look_due_s = 0.0
        drop_missing(self._intake.producers.values(), self._open, self._may_be_there)
        self._watch_directory()
        self._store.forgotten.boundaries.outboxes = directory_identity(self._outboxes.directory)
        if self._worker is not None:
            self._worker.outboxes = self._outboxes.directory

    def replace_socket(self, sock: socket.socket, queue_datagrams: int | None) -> None:
        """Receives from another socket: the former one's name is gone."""
        self._selector.unregister(self._receiver.socket)
        self._receiver.replace(sock, queue_datagrams)
        self._selector.register(sock, selectors.EVENT_READ)
        self._more = True  # what the former one has queued

    def use(self, config: Config) -> None:
        """Takes over those settings of a changed configuration that are asked for at each use."""
        self._config = config
        self._anchors.change(config.anchor_interval_s)

    def start(self) -> None:
        """Finds every outbox, books what can never come, and takes the first turn."""
        self.begin(time.monotonic())
        self.turn(timeout_s=0)
        self._at_work = True

    def turn(self, timeout_s: float | None = None) -> None:
        """Waits for something to do, at most until the next look is due, and does all of it.

        Raises LogdError kinds for what ends the process; a full disk and a locked database do not.
        """
        if self._stalled is not None:
            # For a signal only: while nothing can be stored, what arrives is not looked at.
            retry_s = min(RETRY_INTERVAL_S, self._wait_max_s)
            self._wait_for_wake(retry_s if timeout_s is None else timeout_s)
            self.step((), (), time.monotonic())
        else:
            ready = self._wait(timeout_s)
            closed = self._closed_names(ready)
            self.step(self._receiver.datagrams(), closed, time.monotonic())
            self._say_usage()
            if self._at_work:
                self._work()
            self._say_anchor()
        self._tell(None if self._stalled is None else str(self._stalled))

    @property
    def stalled(self) -> StorageBusy | None:
        """What nothing can be stored for at the moment."""
        return self._stalled

    def figures(self) -> Figures | None:
        """How it goes, once a second; None between."""
        now_s = self._monotonic_s()
        if not self._meter.due(now_s):
            return None
        survey = self._survey(now_s)
        return replace(
            self._meter.sample(now_s, self._clock_ns()),
            started_ns=self._started_ns,
            backlog=survey.backlog,
            room_s=survey.room_s,
            outboxes=len(self._open),
            outboxes_bytes=sum(size for _, size in self._outboxes.usage.values()),
            wal_bytes=file_bytes(wal_path(self._config.database)),
            queue_datagrams=self._receiver.queue_datagrams,
            ignored=tuple(self._intake.ignored.senders(IGNORED_SENDERS_MAX)),
        )

    def _survey(self, now_s: float) -> Survey:
        survey = Survey()
        for producer, outbox in self._open.items():
            try:
                written = outbox.written()
            except OSError:
                continue  # the next look meets it too, and acts on it
            # A claim of more than a ring can hold is bounded.
            waiting = max(0, min(written - producer.stored, capacity(outbox.header)))
            outbox.pace = outbox.pace or Pace(now_s, written)
            event_bytes = producer.position / producer.stored if producer.stored else 0.0
            room_bytes = outbox.header.room_bytes
            survey.add(waiting, room_bytes, event_bytes, outbox.pace.per_s(now_s, written))
        return survey

    def _say_usage(self) -> None:
        """Outboxes are not in our own memory, but in the machine's: counted and said apart."""
        usage = self._outboxes.usage
        total = sum(size for _, size in usage.values())
        if total > self._config.outboxes_bytes_max:
            uid, (files, size) = max(usage.items(), key=lambda item: item[1][1])
            self._say(
                "outboxes take %d bytes of memory, outboxes_bytes_max is %d; most of it, %d bytes "
                "in %d files, is of user %d",
                total, self._config.outboxes_bytes_max, size, files, uid, user=uid,
            )  # fmt: skip

    def _work(self) -> None:
        """A step at stored events, when nothing waits for a commit."""
        worker, now_s = self._worker, time.monotonic()
        if worker is None:
            return
        if now_s >= self._work_look_due_s:
            self._work_look_due_s = now_s + self._look_interval_s
            worker.look()
        if now_s >= worker.due_s and (
            not self._commit_is_near(now_s) or now_s >= self._worked_s + WORK_INTERVAL_MAX_S
        ):
            worker.step()
            self._worked_s = time.monotonic()

    def _commit_is_near(self, now_s: float) -> bool:
        return self._more or (bool(self._batch) and self._commit_due_s < now_s + STEP_S)

    def _say_anchor(self, *, now: bool = False) -> None:
        """Where the chain ends, for who keeps our log: the key of the database changes it not."""
        head = self._anchors.next(self._store.head, time.monotonic(), now=now)
        if head is None:
            return
        _log.info(anchors.line(head))
        path = self._config.anchor_file
        if path is not None:
            try:
                anchor_file.append(path, head, self._clock_ns())
            except OSError as error:
                self._say("%s: no anchor could be added: %s", path, error.strerror)

    def _wait(self, timeout_s: float | None) -> set[int]:
        """Waits for something to do; the descriptors that are readable."""
        now_s = time.monotonic()
        if self._more:
            timeout_s = 0.0
        elif timeout_s is None:
            due_s = self._wake_due_s()
            if self._at_work and self._worker and not self._commit_is_near(now_s):
                due_s = min(due_s, self._worker.due_s)
            timeout_s = max(0.0, due_s - now_s)
        end_s = now_s + min(timeout_s, self._wait_max_s)
        while True:
            wake_s = end_s
            if self._inotify is not None and not self._inotify_on:
                if now_s >= self._inotify_due_s:
                    self._selector.register(self._inotify.fd, selectors.EVENT_READ)
                    self._inotify_on = True
                else:
                    wake_s = min(end_s, self._inotify_due_s)
            ready = {key.fd for key, _ in self._selector.select(max(0.0, wake_s - now_s))}
            now_s = time.monotonic()
            if ready or now_s >= end_s:
                break
        self._woken()
        return ready

    def _closed_names(self, ready: set[int]) -> list[str]:
        """Outboxes that were closed. To close files again and again costs the daemon nothing more:
        they wake it every CLOSED_INTERVAL_S at most.
        """
        if self._inotify is None or self._inotify.fd not in ready:
            return []
        self._selector.unregister(self._inotify.fd)
        self._inotify_on = False
        self._inotify_due_s = time.monotonic() + CLOSED_INTERVAL_S
        names = self._inotify.names()
        for other in self._inotify.others:
            with contextlib.suppress(OSError):
                owner = self._outboxes.owner(other)
                if owner is not None and owner != os.geteuid():
                    self._intake.ignored.closings.add(owner, None)
        return names

    def _wait_for_wake(self, timeout_s: float) -> None:
        """Waits for a signal only."""
        self._wake_selector.select(timeout_s)
        self._woken()

    def _woken(self) -> None:
        if self._wake_fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)

    # -- the end ---------------------------------------------------------------------------------

    def stop(self, deadline_s: float) -> None:
        """Stores and confirms what has arrived, until `deadline_s` on the monotonic clock.

        What arrives meanwhile stays in the outboxes for the next start.
        """
        self._at_work = False
        for _ in range(2):
            if self._stalled and time.monotonic() >= deadline_s:
                return
            if not self._stalled:
                self._backlog.work(time.monotonic, self.start_work_s)  # files closed just now
            self._look_due_s = self._commit_due_s = 0.0
            self.turn(timeout_s=0)
            while (self._more or self._stalled) and time.monotonic() < deadline_s:
                left_s = max(0.0, deadline_s - time.monotonic())
                self.turn(timeout_s=min(RETRY_INTERVAL_S, left_s) if self._stalled else 0)
        while self._arrivals.held is not None and self._stalled is None:
            self._commit_due_s = 0.0
            self.step((), (), time.monotonic())  # no longer in the kernel's queue

    def close(self) -> None:
        """Closes everything; the store's log goes into the database."""
        self._say_anchor(now=True)
        for outbox in (*self._open.values(), *self._given_up.values()):
            self._outboxes.release(outbox)
        self._open.clear()
        self._outboxes.close()
        if self._inotify is not None:
            self._inotify.close()
        self._selector.close()
        self._wake_selector.close()
        with contextlib.suppress(OSError):
            self._receiver.close()
        self._store.close()
