"""The daemon's one thread: waits for input, runs a step of the delivery core, and repeats.

Nothing is received while a commit waits for the disk, and nothing has to be: the kernel's queue
takes the first datagrams, the outboxes keep all events, and the next step reads the rest in bulk.
Group commit: the batch is what has arrived since the last commit.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import time
from collections.abc import Callable

from logd.audit.head_signer import HeadSigner
from logd.config.settings import Config
from logd.errors import StorageBusy
from logd.ingest.delivery import Delivery
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.queue_marks import QUEUE_DATAGRAMS_MAX
from logd.ingest.receiver import Receiver
from logd.maintenance.outbox_survey import directory_identity
from logd.maintenance.search_index import SearchIndex
from logd.maintenance.worker import STEP_S, Worker
from logd.runtime_stats import RuntimeStats
from logd.serve.access_recorder import AccessRecorder
from logd.serve.anchor_log import AnchorLog
from logd.serve.closed_files import ClosedFiles
from logd.serve.stats_source import StatsSource
from logd.storage.store import Store

RETRY_INTERVAL_S = 1.0
# Descriptors for sockets, database and reports. Outboxes beyond the rest of the limit wait.
DESCRIPTORS_RESERVED = 32
# Seconds between two steps of a job at most, however busy the daemon is.
WORK_INTERVAL_MAX_S = 0.5
# The same for the values of blocks, which nothing waits for.
INDEX_INTERVAL_MAX_S = 1.0


class EventLoop:
    """Drives the delivery core from a socket, the outboxes' directory and the clocks.

    `set_trouble` is called at each step with the reason why nothing can be stored, or None.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        receiver: Receiver,
        directory: OutboxDirectory,
        clock_ns: Callable[[], int] = time.time_ns,
        set_trouble: Callable[[str | None], None] = lambda _trouble: None,
        worker: Worker | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        signer: HeadSigner | None = None,
        index: SearchIndex | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._receiver = receiver
        self._directory = directory
        self._set_trouble = set_trouble
        self._worker = worker
        self._index = index
        self._monotonic_s = monotonic_s
        open_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_RESERVED
        self.delivery: Delivery[OpenOutbox] = Delivery(
            config, store, directory, clock_ns, open_max, monotonic_s, os.geteuid()
        )
        self._warn = self.delivery.state.warn_throttled
        self._anchors = AnchorLog(config, store.trail_id, clock_ns, self._warn, signer)
        self._stats = StatsSource(
            *(config, self.delivery, directory, receiver, clock_ns, monotonic_s),
            heads_signed=signer is not None,
            anchors=self._anchors,
        )
        if worker is not None:
            worker.attach_daemon(
                lambda: self.delivery.mark_queue(receiver.queue_datagrams or QUEUE_DATAGRAMS_MAX)
            )
        self._worker_poll_due_s = self._worked_s = 0.0
        self._may_work = False  # whether jobs run: not during start and stop, which must not wait
        self._wait_max_s = float("inf")
        self._wake_fd: int | None = None
        self._wake_selector = selectors.DefaultSelector()
        self._selector = selectors.DefaultSelector()
        self._selector.register(receiver.socket, selectors.EVENT_READ)
        self.closed_files = ClosedFiles(
            directory,
            self._selector,
            self.delivery.intake.ignored.closings,
            self._warn,
            monotonic_s,
        )
        self.access = AccessRecorder(
            store,
            (self._selector, self._wake_selector),
            clock_ns,
            monotonic_s,
            self._warn,
        )

    def wake_on(self, fd: int) -> None:
        """Makes `run_once` return early when `fd` becomes readable (a signal arrived)."""
        self._selector.register(fd, selectors.EVENT_READ)
        self._wake_selector.register(fd, selectors.EVENT_READ)
        self._wake_fd = fd

    def limit_wait(self, seconds: float) -> None:
        """Makes `run_once` wait no longer than `seconds`, whatever the poll interval is."""
        self._wait_max_s = min(self._wait_max_s, seconds)

    def use_new_directory(self) -> None:
        """Reads outboxes from the directory that has replaced a former one."""
        self.delivery.use_new_directory()
        self.closed_files.watch()
        self._store.erasure_list.boundaries.outboxes = directory_identity(self._directory.path)
        if self._worker is not None:
            self._worker.outboxes = self._directory.path

    def replace_socket(self, sock: socket.socket, queue_datagrams: int | None) -> None:
        """Receives from `sock`, which replaces a socket that has lost its name."""
        self._selector.unregister(self._receiver.socket)
        self._receiver.replace(sock, queue_datagrams)
        self._selector.register(sock, selectors.EVENT_READ)
        self.delivery.step_at_once()  # the former socket may have datagrams queued

    def apply_config(self, config: Config) -> None:
        """Uses the settings of a reloaded configuration that need no restart."""
        self._config = config
        self._anchors.apply_config(config)

    def start(self) -> None:
        """Finds all outboxes, records what can never arrive, and runs the first step."""
        self.delivery.recover(self._monotonic_s())
        self.run_once(timeout_s=0)
        self._may_work = True

    def run_once(self, timeout_s: float | None = None) -> None:
        """Waits for input, at most until the next poll is due, and runs a step with all of it.

        Raises a LogdError if the process has to end; it continues with a full disk or a locked
        database.
        """
        delivery = self.delivery
        if delivery.stalled is not None:
            # Nothing is received while nothing can be stored.
            retry_s = min(RETRY_INTERVAL_S, self._wait_max_s)
            self._wait_for_wake(retry_s if timeout_s is None else timeout_s)
            delivery.step((), (), self._monotonic_s())
        else:
            ready = self.wait(timeout_s)
            closed = self.closed_files.names(ready)
            delivery.step(self._receiver.datagrams(), closed, self._monotonic_s())
            self._warn_of_outbox_bytes()
            if delivery.stalled is None:
                self.access.step()
            if self._may_work:
                self.work()
        self.write_anchor()  # also while nothing can be stored, since the head is on disk
        self._set_trouble(None if delivery.stalled is None else str(delivery.stalled))

    @property
    def stalled(self) -> StorageBusy | None:
        """Why nothing can be stored now; None if events can be stored."""
        return self.delivery.stalled

    def sample_stats(self) -> RuntimeStats | None:
        """Returns the daemon's statistics once a second, and None in between."""
        return self._stats.sample()

    def _warn_of_outbox_bytes(self) -> None:
        """Warns if outboxes take too much memory, which counts for no process."""
        usage = self._directory.usage
        total = sum(size for _, size in usage.values())
        if total > self._config.outboxes_bytes_max:
            uid, (files, size) = max(usage.items(), key=lambda item: item[1][1])
            self._warn(
                "outboxes take %d bytes of memory, outboxes_bytes_max is %d; most of it, %d bytes "
                "in %d files, belongs to user %d",
                total, self._config.outboxes_bytes_max, size, files, uid, user=uid,
            )  # fmt: skip

    def work(self) -> None:
        """Runs a step of a job on stored events, if no commit is due soon."""
        worker, now_s = self._worker, self._monotonic_s()
        if worker is None:
            return
        if now_s >= self._worker_poll_due_s:
            self._worker_poll_due_s = now_s + self._config.look_interval_ms / 1000
            worker.poll()
        if now_s >= worker.due_s and (
            not self.delivery.commit_is_near(now_s + STEP_S)
            or now_s >= self._worked_s + WORK_INTERVAL_MAX_S
        ):
            worker.step()
            self._worked_s = self._monotonic_s()
        elif (
            self._index is not None
            and now_s >= self._index_due_s()
            and (
                not (self.delivery.has_backlog or self.delivery.commit_is_near(now_s + STEP_S))
                or now_s >= self._worked_s + INDEX_INTERVAL_MAX_S
            )
        ):
            self._index.step()
            self._worked_s = self._monotonic_s()

    def _index_due_s(self) -> float:
        """When the values of blocks are due: not while a job removes events."""
        if self._index is None or (self._worker is not None and self._worker.is_busy):
            return float("inf")
        return self._index.due_s

    def write_anchor(self, *, now: bool = False) -> None:
        """Writes an anchor to the log if one is due; with `now`, if the head has moved."""
        store = self._store
        self._anchors.write(store.head, self._monotonic_s(), lasting=store.lasting_head, now=now)

    def wait(self, timeout_s: float | None) -> set[int]:
        """Waits for input or the time of the next step; returns the readable descriptors."""
        now_s = self._monotonic_s()
        if self.delivery.has_backlog:
            timeout_s = 0.0
        elif timeout_s is None:
            due_s = self.delivery.next_due_s()
            due_s = min(due_s, self.access.due_s)
            if self._may_work and self._worker and not self.delivery.commit_is_near(now_s + STEP_S):
                due_s = min(due_s, self._worker.due_s, self._index_due_s())
            timeout_s = max(0.0, due_s - now_s)
        end_s = now_s + min(timeout_s, self._wait_max_s)
        while True:
            wake_s = min(end_s, self.closed_files.enable(now_s))
            ready = {key.fd for key, _ in self._selector.select(max(0.0, wake_s - now_s))}
            now_s = self._monotonic_s()
            if ready or now_s >= end_s:
                break
        self._drain_wake_fd()
        return ready

    def _wait_for_wake(self, timeout_s: float) -> None:
        """Waits for a signal only, and meanwhile refuses to store access events."""
        self.access.refuse()
        now_s = self._monotonic_s()
        end_s = now_s + timeout_s
        while self._wake_selector.select(max(0.0, end_s - now_s)) and self.access.refuse():
            now_s = self._monotonic_s()
            if now_s >= end_s:
                break
        self._drain_wake_fd()

    def _drain_wake_fd(self) -> None:
        if self._wake_fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)

    # -- the end ---------------------------------------------------------------------------------

    def stop(self, deadline_s: float) -> None:
        """Stores and confirms what has arrived, until `deadline_s` on the monotonic clock.

        Events that arrive later stay in the outboxes for the next start.
        """
        self._may_work = False
        delivery = self.delivery
        for _ in range(2):
            if delivery.stalled and self._monotonic_s() >= deadline_s:
                return
            if not delivery.stalled:
                delivery.run_tasks()  # outboxes that were closed just now are opened too
            delivery.force_step()
            self.run_once(timeout_s=0)
            while (delivery.has_backlog or delivery.stalled) and self._monotonic_s() < deadline_s:
                left_s = max(0.0, deadline_s - self._monotonic_s())
                self.run_once(timeout_s=min(RETRY_INTERVAL_S, left_s) if delivery.stalled else 0)
        while delivery.holds_datagram and delivery.stalled is None:
            delivery.force_step(poll=False)
            # The datagram that is partly taken is no longer in the kernel's queue.
            delivery.step((), (), self._monotonic_s())

    def close(self) -> None:
        """Closes everything, and moves the WAL into the database."""
        self.write_anchor(now=True)
        self.delivery.close()
        self._directory.close()
        self.closed_files.close()
        self.access.close()
        self._selector.close()
        self._wake_selector.close()
        with contextlib.suppress(OSError):
            self._receiver.close()
        self._store.close()
