"""Opens outboxes: checks a file, holds it open within its user's quota, and finds its place."""

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

# An outbox that follows another is opened after it, which may follow a further one, and so on.
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
    # The chain of outboxes being opened, each the predecessor of the one before.
    opening: list[tuple[int, int]] = field(default_factory=list, init=False)

    def load_producer(self, uid: int, producer_id: int) -> Producer:
        """Loads a producer from the database, and opens its outbox if it has one."""
        producer = self.store.producer(uid, producer_id)
        self.open(producer, outbox_name(uid, producer_id))
        return producer

    def open_found(self, name: str, uid: int, producer_id: int) -> bool:
        """Opens a file that was found in the directory; returns True when the task is done."""
        producer = self.intake.producers.get((uid, producer_id))
        if producer is not None:
            if producer not in self.outboxes and producer not in self.lifecycle.given_up:
                self.open(producer, name)
        elif not self.outboxes.quota.has_room(uid):
            self._warn_over_quota(name, uid)
        else:
            producer = self.intake.producer(uid, producer_id)  # loads it, with its outbox
            if producer not in self.outboxes and producer.taken == producer.stored:
                self.intake.drop(producer)  # an outbox that waits is found again by its name
        return True

    def may_exist(self, name: str) -> bool:
        """Returns whether the file exists, or whether that cannot be determined."""
        try:
            return self.directory.has(name)
        except OSError:
            return True

    def open(self, producer: Producer, name: str) -> None:
        """Opens the producer's outbox, if it has one, and begins to find its place in it."""
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
                    # The predecessor took the last file of the quota: that is read first.
                    state.attempt(self.directory.release, outbox)
                    self._wait_for_quota(producer, name)
                    return
            search = NextRecordSearch(producer, outbox.header, outbox.read_at)
            placed = search.step(state.batch, self.searches.slice_bytes)
        except OtherVersion as error:
            producer.has_outbox = True  # what is missing is in there, not lost
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
            # Out of descriptors, say. The file exists, so a gap is not recorded as a loss: every
            # poll retries.
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
        # Whatever was recorded while the file was out of reach, its lock decides again.
        producer.ended = False
        if producer.pid == 0:
            producer.pid = outbox.header.pid
        self.outboxes.add(producer, outbox)
        self.searches.start(producer, search)
        if placed:
            self.searches.finish(producer)
        self._hold_for_predecessor(producer, outbox.header.follows)

    def _open_predecessor(self, producer: Producer, follows: int) -> None:
        """Opens the outbox that this one follows, if it exists and is not open yet."""
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
        """Holds a producer back until what its predecessor has written by now is read."""
        predecessor = self.intake.producers.get((producer.uid, follows)) if follows else None
        outbox = self.outboxes.get(predecessor) if predecessor is not None else None
        if predecessor is None or outbox is None:
            return
        with suppress(OSError):  # order is then not kept; the next poll handles it
            self.outboxes.succession.hold(producer, predecessor, outbox.written())

    def _wait_for_quota(self, producer: Producer, name: str) -> None:
        producer.has_outbox = producer.behind = True  # what is missing is in there, not lost
        self._warn_over_quota(name, producer.uid)

    def _warn_over_quota(self, name: str, uid: int) -> None:
        self.state.warn_throttled(
            "%s: waits, since %d outboxes of user %d are open already",
            name, self.outboxes.quota.held(uid), uid, user=uid,
        )  # fmt: skip

    def _quarantine(
        self, producer: Producer, outbox: AnOutbox | None, name: str, why: object, uid: int | None
    ) -> None:
        """Quarantines a file that is not this producer's outbox, under its owner's uid."""
        if outbox is not None:
            self.state.attempt(self.directory.refuse, outbox)
        uid = producer.uid if uid is None else uid  # the owner's: the name may lie
        pid = producer.pid if uid == producer.uid else 0
        self.state.batch.add_quarantine(uid, pid, f"outbox: {why}", name.encode())
        self.state.warn_throttled(
            "%s: refused as an outbox: %s (of user %d)", name, why, uid, user=uid
        )
