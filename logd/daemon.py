"""The daemon's one thread: drain the socket, read outboxes, commit, confirm. `turn` is one round.

While a commit waits for the disk nothing is received; nothing has to be: the kernel's queue takes
the first datagrams, the outboxes keep all of them, and the next turn reads in bulk what did not
fit. That is the whole of group commit here: the batch is what arrived during the last commit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import selectors
import time
from collections.abc import Callable

from logd.batch import LOST_DAMAGED, Batch, Producer
from logd.config import Config
from logd.errors import NotYet
from logd.inotify import Inotify
from logd.intake import Intake
from logd.outboxes import OpenOutbox, Outboxes
from logd.receiver import Receiver
from logd.repair import align, read_on, resynchronise
from logd.store import Store
from shared.outbox_file import outbox_name
from shared.wire import RECORD_HEAD, OtherVersion, WireError

# After so many datagrams at once the kernel's queue may have been full (its depth is 10 by
# default, plus one), and senders may have been turned away: then the outboxes are looked at.
QUEUE_DEPTH_MIN = 10
DRAIN_DATAGRAMS_MAX = 4096
RETRY_INTERVAL_S = 1.0
# For sockets, the database, reports: outboxes past this wait until others are done with.
DESCRIPTORS_RESERVED = 32
LOG_INTERVAL_S = 30.0

_log = logging.getLogger("logd")


class Daemon:
    """Owns the open parts and moves events through them. `clock_ns` is the wall clock."""

    def __init__(
        self,
        config: Config,
        store: Store,
        receiver: Receiver,
        outboxes: Outboxes,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._store = store
        self._receiver = receiver
        self._outboxes = outboxes
        self._clock_ns = clock_ns
        self._intake = Intake(self._introduce, config.gap_events_max)
        self._open: dict[Producer, OpenOutbox] = {}
        self._given_up: list[OpenOutbox] = []  # removed behind the commit that books their loss
        self._open_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_RESERVED
        self._batch = self._new_batch()
        self._look_interval_s = config.look_interval_ms / 1000
        self._look_due_s = 0.0
        self._more = False  # something was left unread for want of room in the batch
        self._stalled: NotYet | None = None
        self._logged_at_s = 0.0
        self._wake_fd: int | None = None
        self._wake_selector = selectors.DefaultSelector()
        self._selector = selectors.DefaultSelector()
        self._selector.register(receiver.socket, selectors.EVENT_READ)
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify(outboxes.directory)
            self._selector.register(self._inotify.fd, selectors.EVENT_READ)
        except OSError as error:
            _log.warning("no inotify (%s): closed outboxes are found by looking", error.strerror)

    def wake_on(self, fd: int) -> None:
        """Has `turn` come back early when `fd` becomes readable (a signal arrived)."""
        self._selector.register(fd, selectors.EVENT_READ)
        self._wake_selector.register(fd, selectors.EVENT_READ)
        self._wake_fd = fd

    # -- one turn --------------------------------------------------------------------------------

    def start(self) -> None:
        """Finds every outbox, books what can never come, and takes the first turn."""
        present = set()
        for name, uid, producer_id in self._outboxes.names():
            present.add((uid, producer_id))
            self._discover(name, uid, producer_id)
        for uid, producer_id, cause in self._store.unfinished():
            if (uid, producer_id) not in present:
                self._book_end(self._intake.producer(uid, producer_id), cause)
        for producer in list(self._open):
            self._confirm(producer)  # committed by a predecessor that did not get to say so
        self.turn(timeout_s=0)

    def _book_end(self, producer: Producer, cause: str) -> None:
        self._batch.lose(producer, producer.taken + 1, None, cause)
        producer.ended = True

    def turn(self, timeout_s: float | None = None) -> None:
        """Waits for something to do, at most until the next look is due, and does all of it.

        Raises LogdError kinds for what ends the process. NotYet does not: the batch is kept and
        tried again, and nothing more is read until it is stored.
        """
        if self._stalled is not None:
            self._wait_for_wake(RETRY_INTERVAL_S if timeout_s is None else timeout_s)
            self._commit()
            return
        self._wait(timeout_s)
        drained = self._drain()
        now_s = time.monotonic()
        due = now_s >= self._look_due_s
        closed = self._inotify.names() if self._inotify else set()
        if due:
            self._look_due_s = now_s + self._look_interval_s
            self._discover_new()
        elif closed:
            self._discover_new(closed)
        self._look(due=due, all_of_them=due or bool(closed) or drained >= QUEUE_DEPTH_MIN)
        if self._batch or (due and self._batch.duplicates):
            self._commit()

    def _wait(self, timeout_s: float | None) -> None:
        if self._more:
            timeout_s = 0.0
        elif timeout_s is None:
            timeout_s = max(0.0, self._look_due_s - time.monotonic())
        self._selector.select(timeout_s)
        self._woken()

    def _wait_for_wake(self, timeout_s: float) -> None:
        """Waits for a signal only: while nothing can be stored, what arrives is not looked at."""
        self._wake_selector.select(timeout_s)
        self._woken()

    def _woken(self) -> None:
        if self._wake_fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)

    def _drain(self) -> int:
        drained = 0
        self._more = False
        batch, datagram = self._batch, self._intake.datagram
        for data, uid, pid, cut in self._receiver.datagrams():
            drained += 1
            if cut:
                batch.refuse(uid, pid, "oversize datagram", data)
            else:
                datagram(data, uid, pid, batch)
            if batch.full or drained == DRAIN_DATAGRAMS_MAX:
                self._more = True
                break
        return drained

    # -- outboxes --------------------------------------------------------------------------------

    def _discover_new(self, names: set[str] | None = None) -> None:
        try:
            listed = self._outboxes.names()
        except OSError as error:
            self._say("%s: cannot be listed now: %s", self._outboxes.directory, error.strerror)
            return
        for name, uid, producer_id in listed:
            if names is None or name in names:
                self._discover(name, uid, producer_id)

    def _discover(self, name: str, uid: int, producer_id: int) -> None:
        producer = self._intake.producers.get((uid, producer_id))
        if producer is None:
            producer = self._intake.producer(uid, producer_id)  # introduces it, with its outbox
            if not producer.has_outbox:
                self._intake.forget(producer)
        elif producer not in self._open:
            self._attach(producer, name)

    def _introduce(self, uid: int, producer_id: int) -> Producer:
        producer = self._store.producer(uid, producer_id)
        self._attach(producer, outbox_name(uid, producer_id))
        return producer

    def _attach(self, producer: Producer, name: str) -> None:
        """Opens the producer's outbox, if it has one, and finds its place in it."""
        outbox = None
        try:
            if len(self._open) >= self._open_max and self._outboxes.has(name):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            outbox = self._outboxes.open(name, producer.uid, producer.id)
            if outbox is None:
                return
            align(producer, outbox.header, outbox.read_at, self._batch)
        except OtherVersion as error:
            producer.has_outbox = True  # what is missing lies there, so a gap is no loss
            self._say("%s: %s: left for a daemon that can read it", name, error)
        except WireError as error:
            if outbox is not None:
                self._outboxes.refuse(outbox)
            self._batch.refuse(producer.uid, producer.pid, f"outbox: {error}", name.encode())
            _log.warning("%s: refused as an outbox: %s", name, error)
        except OSError as error:
            # Out of descriptors, say. It is there, so a gap is no loss: tried again at each look.
            producer.has_outbox = producer.behind = True
            self._say("%s: cannot be opened now: %s", name, error.strerror)
        else:
            producer.has_outbox = producer.behind = True
            if producer.pid == 0:
                producer.pid = outbox.header.pid
            self._open[producer] = outbox

    def _look(self, *, due: bool, all_of_them: bool) -> None:
        """Reads on in the outboxes that are ahead of the batch; `due`: also asks who lives."""
        for producer, outbox in list(self._open.items()):
            if not (all_of_them or producer.behind):
                continue
            if self._batch.full:
                self._more = True
                return
            # Whether it lives is asked before what it has written is read: what a producer
            # writes last must be seen by the read after it is known to be dead.
            alive = outbox.alive() if all_of_them else True
            if alive and not due and outbox.written() == producer.taken:
                producer.behind = False
                continue
            try:
                self._read(producer, outbox, alive)
            except WireError as error:
                self._give_up(producer, outbox, str(error))

    def _read(self, producer: Producer, outbox: OpenOutbox, alive: bool) -> None:
        header = outbox.refresh()
        if header.refused != producer.refused:
            producer.refused = header.refused
            self._batch.note(producer)
        damage = read_on(producer, header, outbox.read_at, self._batch, self._intake)
        if damage is not None:
            _log.warning("%s: %s", outbox.name, damage)
            outbox.scans_left -= 1
            if outbox.scans_left >= 0:
                resynchronise(producer, header, outbox.read_at, header.written, self._batch)
            else:
                self._give_up(producer, outbox, damage)
                return
        producer.behind = producer.taken < header.written
        if producer.behind:
            self._more = True
        elif not alive:
            producer.ended = True
            self._batch.note(producer)

    def _give_up(self, producer: Producer, outbox: OpenOutbox, reason: str) -> None:
        """The rest of this outbox cannot be read; its producer goes on without one."""
        _log.warning("%s: given up: %s", outbox.name, reason)
        header = outbox.header
        if header.written > producer.taken:
            waiting = header.written - producer.taken
            plausible = waiting <= header.ring_bytes // RECORD_HEAD.size
            last = header.written if plausible else None
            self._batch.lose(producer, producer.taken + 1, last, LOST_DAMAGED)
            producer.taken = last or producer.taken
        self._batch.refuse(
            producer.uid, producer.pid, f"outbox: {reason}", outbox.name.encode(), producer
        )
        producer.has_outbox = producer.behind = False
        self._given_up.append(self._open.pop(producer))

    # -- commit ----------------------------------------------------------------------------------

    def _commit(self) -> None:
        batch = self._batch
        try:
            self._store.commit(batch, self._clock_ns())
        except NotYet as problem:
            if self._stalled is None:
                self._logged_at_s = 0.0
            self._stalled = problem
            self._say("%s Trying again every second.", problem)
            return
        if self._stalled is not None:
            _log.warning("stored again after: %s", self._stalled)
            self._stalled = None
        self._batch = self._new_batch()
        for producer in batch.producers:
            self._confirm(producer)
            if producer.ended:
                self._dismiss(producer)
        for outbox in self._given_up:
            self._outboxes.remove(outbox)  # which is how a living producer finds out
        self._given_up.clear()
        self._intake.trim()

    def _confirm(self, producer: Producer) -> None:
        outbox = self._open.get(producer)
        if outbox is not None:
            outbox.confirm(producer.stored, producer.position)

    def _dismiss(self, producer: Producer) -> None:
        """Its end is on disk: the outbox can go."""
        outbox = self._open.pop(producer, None)
        if outbox is not None:
            self._outboxes.remove(outbox)
        self._intake.forget(producer)

    def _new_batch(self) -> Batch:
        config = self._config
        return Batch(config.batch_events_max, config.batch_bytes_max, config.gap_events_max)

    def _say(self, message: str, *args: object) -> None:
        """Logs at a bounded rate: what goes on being wrong is not said a thousand times."""
        now_s = time.monotonic()
        if now_s - self._logged_at_s >= LOG_INTERVAL_S:
            self._logged_at_s = now_s
            _log.warning(message, *args)

    # -- the end ---------------------------------------------------------------------------------

    def stop(self, deadline_s: float) -> None:
        """Stores and confirms what has arrived, until `deadline_s` on the monotonic clock.

        What arrives meanwhile stays in the outboxes for the next start.
        """
        for _ in range(2):
            self._look_due_s = 0.0
            self.turn(timeout_s=0)
            while (self._more or self._stalled) and time.monotonic() < deadline_s:
                left_s = max(0.0, deadline_s - time.monotonic())
                self.turn(timeout_s=min(RETRY_INTERVAL_S, left_s) if self._stalled else 0)

    def close(self) -> None:
        """Closes everything; the store's log goes into the database."""
        for outbox in (*self._open.values(), *self._given_up):
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
