"""An experiment: one thread receives, orders and repairs, another one commits.

The hand-over is where it can go wrong, so it is all here. The receiver closes a batch and gives the
writer copies of its producers, frozen at that moment; it goes on taking into the next batch with
the originals. `stored` and the confirmations follow only after the commit, from the copies. There
is never more than one batch in flight, so rows and watermarks are known when the next is closed.
A full disk ends this daemon, where the real one waits: that is not what is measured.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from logd.batch import Batch, Producer
from logd.config.settings import Config
from logd.ingest.outbox_directory import Outboxes
from logd.ingest.receiver import Receiver
from logd.serve.loop import Daemon
from logd.storage import keyfile
from logd.storage.database import connect
from logd.storage.store import Store
from logd_wire.outbox.names import outbox_name


class Writer(threading.Thread):
    """Commits what it is given, one batch at a time; `done_fd` becomes readable after each."""

    def __init__(self, store: Store, clock_ns: Callable[[], int]) -> None:
        super().__init__(name="writer", daemon=True)
        self._store = store
        self._clock_ns = clock_ns
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self.done_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.error: BaseException | None = None

    def run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._store.commit(batch, self._clock_ns())
                batch.mark_committed()
            except BaseException as error:  # noqa: BLE001 - raised again by the receiver
                self.error = error
            os.eventfd_write(self.done_fd, 1)

    def commit(self, batch: Batch) -> None:
        """Takes the batch; only when the one before is done."""
        self._batches.put(batch)

    def done(self) -> bool:
        """Whether a commit has ended since the last call. Raises what it raised."""
        try:
            os.eventfd_read(self.done_fd)
        except BlockingIOError:
            return False
        if self.error is not None:
            raise self.error
        return True

    def stop(self) -> None:
        """Ends the thread after the commit in hand."""
        if self.is_alive():
            self._batches.put(None)
            self.join()
        os.close(self.done_fd)


class TwoThreads(Daemon):
    """The daemon with its commits in a thread of their own."""

    def __init__(
        self,
        config: Config,
        store: Store,
        receiver: Receiver,
        outboxes: Outboxes,
        clock_ns: Callable[[], int] = time.time_ns,
        **options: Any,
    ) -> None:
        super().__init__(config, store, receiver, outboxes, clock_ns, **options)
        self._writer = Writer(store, clock_ns)
        self._in_flight: dict[Producer, Producer] | None = None  # originals and their copies
        # Producers are looked up by the receiver while the writer is inside its transaction: on
        # the writer's connection that would show watermarks that are not committed yet.
        self._lookup = Store.__new__(Store)
        self._lookup._connection = connect(
            config.database, keyfile.read(config.key_file), read_only=True
        )
        self.wake_on(self._writer.done_fd)
        self._writer.start()

    def _introduce(self, uid: int, producer_id: int) -> Producer:
        producer = self._lookup.producer(uid, producer_id)
        self._attach(producer, outbox_name(uid, producer_id))
        return producer

    def turn(self, timeout_s: float | None = None) -> None:
        """As the one thread's, but its commit is a hand-over, and a full batch waits for it."""
        self._collect()
        if self._in_flight is not None and not self._batch.capacity():
            self._wait_for_wake(1.0 if timeout_s is None else timeout_s)
            self._commit()
            return
        super().turn(timeout_s)

    def _commit(self) -> None:
        self._collect()
        if self._in_flight is None:
            closed = self._close_batch(self._batch)
            self._batch = self._new_batch()
            self._writer.commit(closed)

    def _close_batch(self, batch: Batch) -> Batch:
        copies = {producer: replace(producer) for producer in batch.producers}
        self._in_flight = copies
        closed = self._new_batch()
        closed.producers = dict.fromkeys(copies.values())
        closed.events = [(copies[p], sequence, event) for p, sequence, event in batch.events]
        closed.losses = [replace(loss, producer=copies[loss.producer]) for loss in batch.losses]
        closed.quarantine_entries = [
            replace(refusal, producer=copies[refusal.producer]) if refusal.producer else refusal
            for refusal in batch.quarantine_entries
        ]
        closed.duplicates = batch.duplicates
        return closed

    def _collect(self) -> None:
        """Takes over what the writer has committed: rows, watermarks, confirmations, ends."""
        if self._in_flight is None or not self._writer.done():
            return
        copies, self._in_flight = self._in_flight, None
        for producer, copy in copies.items():
            producer.row = copy.row
            producer.stored = copy.stored
            outbox = self._open.get(producer)
            if outbox is not None:
                outbox.confirm(copy.stored, copy.position, 0)
            if copy.ended:
                self._dismiss(producer)

    def stop(self, deadline_s: float) -> None:
        """Stores what has arrived, and what is in flight."""
        super().stop(deadline_s)
        while (self._in_flight is not None or self._batch) and time.monotonic() < deadline_s:
            time.sleep(0.001)  # the signal that asked us to stop cuts every other wait short
            self.turn(timeout_s=0)

    def close(self) -> None:
        """Ends the writer first: the store is its."""
        self._writer.stop()
        self._lookup._connection.close()
        super().close()
