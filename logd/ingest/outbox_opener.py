"""Opens outboxes: checks a file, opens it within its user's quota, and finds its next record."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic

from logd.batch import Producer
from logd.errors import is_shortage
from logd.ingest.interfaces import AnOutbox, Directory, Trail
from logd.ingest.open_outboxes import OpenOutboxes
from logd.ingest.ordering import Intake
from logd.ingest.outbox_lifecycle import OutboxLifecycle
from logd.ingest.outbox_reader import NextRecordSearch
from logd.ingest.place_searches import PlaceSearches
from logd.ingest.step_state import StepState
from logd_wire.outbox.names import outbox_name
from logd_wire.wire import OtherVersion, WireError

# How many predecessors are opened before an outbox: each may follow another one.
PREDECESSORS_MAX = 8


@dataclass(eq=False)
class OutboxOpener(Generic[AnOutbox]):
    """Opens a producer's outbox at the producer's first record, or when its file is found."""

    store: Trail
    directory: Directory[AnOutbox]
    outboxes: OpenOutboxes[AnOutbox]
    lifecycle: OutboxLifecycle[AnOutbox]
    searches: PlaceSearches[AnOutbox]
    intake: Intake
    state: StepState
    # The outboxes being opened now: each one is followed by the one before.
    opening: list[tuple[int, int]] = field(default_factory=list, init=False)

    def load_producer(self, uid: int, producer_id: int) -> Producer:
        """Loads a producer from the database, and opens its outbox if it has one."""
        producer = self.store.producer(uid, producer_id)
        self.open(producer, outbox_name(uid, producer_id))
        return producer

    def open_found(self, name: str, uid: int, producer_id: int) -> bool:
        """Opens a file found in the directory. Always returns True, since the task is done."""
        producer = self.intake.producers.get((uid, producer_id))
        if producer is not None:
            if producer not in self.outboxes and producer not in self.lifecycle.given_up:
                self.open(producer, name)
        elif not self.outboxes.quota.has_room(uid):
            self._warn_over_quota(name, uid)
        else:
            producer = self.intake.producer(uid, producer_id)  # loading a producer opens its outbox
            if producer not in self.outboxes and producer.taken == producer.stored:
                self.intake.drop(producer)  # a waiting outbox is found again by its file's name
        return True

    def may_exist(self, name: str) -> bool:
        """Returns whether the file exists, or may exist because that cannot be determined."""
        try:
            return self.directory.has(name)
        except OSError:
            return True

    def open(self, producer: Producer, name: str) -> None:
        """Opens the producer's outbox, if it has one, and begins to search for its next record."""
        quota, state = self.outboxes.quota, self.state
        if not quota.has_room(producer.uid) and self.may_exist(name):
            self._wait_for_quota(producer, name)
            return
        outbox = None
        try:
            outbox = self.directory.open(name, producer.uid, producer.id)
            if outbox is None:
                return
            if outbox.header.follows:
                self._open_predecessor(producer, outbox.header.follows)
                if not quota.has_room(producer.uid):
                    # The predecessor took the last file of the quota, and is read first.
                    state.attempt(self.directory.release, outbox)
                    self._wait_for_quota(producer, name)
                    return
            search = NextRecordSearch(producer, outbox.header, outbox.read_at)
            placed = search.step(state.batch, self.searches.slice_bytes)
        except OtherVersion as error:
            producer.has_outbox = True  # missing events are in this outbox, not lost
            uid = producer.uid if error.uid is None else error.uid
            state.warn_throttled(
                "%s: %s: left for a daemon that can read it", name, error, user=uid
            )
        except WireError as error:
            self._quarantine(producer, outbox, name, error, error.uid)
        except OSError as error:
            if outbox is not None and not is_shortage(error):
                self._quarantine(producer, outbox, name, f"system error: {error.strerror}", None)
                return
            if outbox is not None:
                self.directory.release(outbox)
            # A shortage, such as of descriptors. The file exists,
            # so a gap is not recorded as a loss, and every poll retries to open it.
            producer.has_outbox = producer.behind = True
            state.warn_throttled(
                "%s: cannot be opened now: %s", name, error.strerror, user=producer.uid
            )
        else:
            self._hold_open(producer, outbox, search, placed=placed)

    def _hold_open(
        self, producer: Producer, outbox: AnOutbox, search: NextRecordSearch, *, placed: bool
    ) -> None:
        producer.has_outbox = producer.behind = True
        # A recorded end does not count: the lock on the file decides again.
        producer.ended = False
        if producer.pid == 0:
            producer.pid = outbox.header.pid
        self.outboxes.add(producer, outbox)
        self.searches.start(producer, search)
        if placed:
            self.searches.finish(producer)
        self._hold_for_predecessor(producer, outbox.header.follows)

    def _open_predecessor(self, producer: Producer, follows: int) -> None:
        """Opens the outbox that the producer's outbox follows, if it exists and is not open yet."""
        uid, name = producer.uid, outbox_name(producer.uid, follows)
        known = self.intake.producers.get((uid, follows))
        self.opening.append((uid, producer.id))
        try:
            if (
                (known is None or known not in self.outboxes)
                and (uid, follows) not in self.opening
                and len(self.opening) <= PREDECESSORS_MAX
                and self.outboxes.quota.has_room(uid)
                and self.may_exist(name)
            ):
                self.open_found(name, uid, follows)
        finally:
            self.opening.pop()

    def _hold_for_predecessor(self, producer: Producer, follows: int) -> None:
        """Holds a producer back until what its predecessor has written up to now is read."""
        predecessor = self.intake.producers.get((producer.uid, follows)) if follows else None
        outbox = self.outboxes.get(predecessor) if predecessor is not None else None
        if predecessor is None or outbox is None:
            return
        # If this fails, the next poll reads the outbox; the order may be lost.
        with suppress(OSError):
            self.outboxes.succession.hold(producer, predecessor, outbox.written())

    def _wait_for_quota(self, producer: Producer, name: str) -> None:
        producer.has_outbox = producer.behind = True  # missing events are in this outbox, not lost
        self._warn_over_quota(name, producer.uid)

    def _warn_over_quota(self, name: str, uid: int) -> None:
        self.state.warn_throttled(
            "%s: waits, since %d outboxes of user %d are open already",
            name, self.outboxes.quota.held(uid), uid, user=uid,
        )  # fmt: skip

    def _quarantine(
        self, producer: Producer, outbox: AnOutbox | None, name: str, why: object, uid: int | None
    ) -> None:
        """Quarantines a file that is not the producer's outbox, under its owner's uid."""
        if outbox is not None:
            self.state.attempt(self.directory.refuse, outbox)
        # The entry names the uid of the file's owner, since the file's name may be forged.
        uid = producer.uid if uid is None else uid
        pid = producer.pid if uid == producer.uid else 0
        self.state.batch.add_quarantine(uid, pid, f"outbox: {why}", name.encode())
        self.state.warn_throttled(
            "%s: refused as an outbox: %s (of user %d)", name, why, uid, user=uid
        )
