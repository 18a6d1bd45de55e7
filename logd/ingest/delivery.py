"""The delivery core: what has arrived becomes a batch, a commit, and only then a confirmation.

No socket, clock, file or database of its own: it is handed datagrams, the names of closed files and
the time, and reaches the trail and the outboxes through `logd.ingest.interfaces`. `logd.serve.loop`
drives it from a socket; the simulation in the tests drives the very same code from a seed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Generic

from logd.batch import LOST_CLAIMED, LOST_DAMAGED, Batch, Producer, Room
from logd.config.settings import Config
from logd.errors import StorageBusy, is_shortage
from logd.ingest.backlog import Backlog
from logd.ingest.drain import Datagram, Drain
from logd.ingest.interfaces import AnOutbox, Directory, Trail
from logd.ingest.ordering import Intake
from logd.ingest.outbox_reader import Placement, Resynchronisation, capacity, read_on
from logd.ingest.salvage import begin_salvage, read_rest
from logd.ingest.scheduling import Files, Waiting, in_turn
from logd.ingest.succession import Succession
from logd.ingest.turn_budget import ForcedCommits
from logd.ingest.wakeups import Watch
from logd.log_limit import LimitedLog
from logd.runtime_stats import Meter
from logd_wire.outbox.names import outbox_name, parse_name
from logd_wire.wire import OtherVersion, WireError

# After so many datagrams at once the kernel's queue may have been full (its depth is 10 by
# default, plus one), and senders may have been turned away: then the outboxes are looked at.
QUEUE_DEPTH_MIN = 10
# More than a kernel is set to keep for a socket, where that is not known.
QUEUE_DATAGRAMS_MAX = 65_536
# Names of a listing that are looked at in a turn, and for how long; how many files of a user may
# wait to be opened. Further ones are found by the next listing.
DISCOVER_FILES_MAX = 500
DISCOVER_S_MAX = 0.005
DISCOVER_QUEUE_MAX = 1000
BOOK_ENDS_MAX = 1000
# Producers that may have ended, whose file is there: further ones wait for the next start.
UNDECIDED_ENDS_MAX = 1000
# An outbox that follows another is opened after it, and that after the one that it follows, ...
PREDECESSORS_MAX = 8
# How long in a turn for names of closed files. What is left is found by the listing.
CLOSED_S_MAX = 0.002
# The most outboxes that a due look goes through in one turn.
LOOK_FILES_MAX = 500

_log = logging.getLogger("logd")


@dataclass(eq=False)
class _QueueMark:
    """What was in the kernel's queue at some moment: how many datagrams of it may be left."""

    left: int
    committed: bool = False


class Delivery(Generic[AnOutbox]):
    """One instance's producers, their outboxes and the batch at hand.

    `clock_ns` is the wall clock, for the record only: nothing is ordered by it. `monotonic_s` is
    the clock that producers read as well. At most `open_max` outboxes are held open at a time.
    `own_uid` is the user that logd runs as.
    """

    # How long a turn opens files and searches rings, how long the start does before it is ready,
    # and what one slice of a search looks through: that takes about a millisecond.
    work_s = 0.005
    start_work_s = 0.25
    slice_bytes = 64 * 1024

    def __init__(
        self,
        config: Config,
        store: Trail,
        outboxes: Directory[AnOutbox],
        clock_ns: Callable[[], int],
        open_max: int,
        monotonic_s: Callable[[], float],
        own_uid: int | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._outboxes = outboxes
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        self._meter = Meter()
        self._intake = Intake(self._introduce, config.gap_events_max, own_uid)
        self._open: dict[Producer, AnOutbox] = {}
        self._succession = Succession(self._open)
        self._attaching: list[tuple[int, int]] = []  # each one the predecessor of the one before
        # Removed behind the commit that books their loss.
        self._given_up: dict[Producer, AnOutbox] = {}
        self._files = Files(
            min(open_max, config.outboxes_max),
            config.outboxes_per_user_max,
            shared=config.many_users,
        )
        self._listing: Iterator[tuple[str, int, int]] | None = None
        self._backlog = Backlog()
        # Outboxes in which the next record's place is not known yet: not read, nor confirmed.
        self._searches: dict[Producer, Placement | Resynchronisation] = {}
        self._unfinished: Iterator[tuple[int, int, str] | None] = iter(())
        self._batch = self._new_batch()
        self._look_interval_s = config.look_interval_ms / 1000
        self._look_due_s = 0.0
        self._round: Iterator[Producer] | None = None  # the rest of a due look
        # Senders may have been turned away: all outboxes are to be looked at, from a moment on.
        self._turned_away = False
        self._turned_away_due_s = 0.0
        self._arrivals = Drain(monotonic_s)
        self._forced = ForcedCommits()
        self._commit_interval_s = config.commit_interval_ms / 1000
        self._commit_due_s = 0.0
        self._watch = Watch(self._commit_interval_s)
        self._more = False  # something was left unread for want of room in the batch
        self._undecided: list[tuple[int, int, str]] = []
        self._queued_before = _QueueMark(QUEUE_DATAGRAMS_MAX)  # this process's start
        self._marks: list[_QueueMark] = [self._queued_before]
        self._stalled: StorageBusy | None = None
        self._now_s = 0.0
        self._limited_log = LimitedLog(_log)

    # -- one turn --------------------------------------------------------------------------------

    def begin(self, now_s: float) -> None:
        """Before the first step: finds outboxes, and which producers cannot say more.

        Whatever strangers have put there, this takes `start_work_s` or so: the rest is done in
        later steps. Raises StorageBusy when it cannot tell which outboxes there are.
        """
        self._now_s = now_s
        try:
            self._list(due=True)
        except OSError as error:
            # Taken for an empty directory, it would book every open producer's end as lost.
            raise StorageBusy(f"the outboxes cannot be listed: {error.strerror}.") from error
        self._unfinished = self._store.unfinished()
        self._backlog.work(self._monotonic_s, self.start_work_s)

    def _book_ends(self) -> None:
        """Producers that can say no more: any number of them, so some in each turn.

        Not before what the queue held at the start is taken: their farewells may be in it, and the
        same loss would be booked twice, with numbers and without.
        """
        if self._queued_before.left > 0:
            return
        if self._undecided and self._now_s >= self._look_due_s:
            self._unfinished = chain(self._unfinished, self._undecided)
            self._undecided = []
        for _ in range(BOOK_ENDS_MAX):
            if self._batch.full:
                break
            try:
                end = next(self._unfinished)
            except StopIteration:
                return
            if end is None:
                break  # enough of the database was read
            uid, producer_id, cause = end
            if self._may_be_there(outbox_name(uid, producer_id)):
                # Readable or not, nothing is lost while it is: asked again at the next look.
                if len(self._undecided) < UNDECIDED_ENDS_MAX:
                    self._undecided.append(end)
                continue
            producer = self._intake.producer(uid, producer_id)
            if not producer.ended:  # by now: these were looked up a page at a time
                self._batch.lose(producer, producer.taken + 1, None, cause)
                producer.ended = True
        self._more = True

    def _may_be_there(self, name: str) -> bool:
        try:
            return self._outboxes.has(name)
        except OSError:
            return True

    def step(self, datagrams: Iterable[Datagram], closed: Iterable[str], now_s: float) -> None:
        """Takes what has arrived, reads what is missing, commits, confirms: all that there is.

        `closed` names the files that were let go since the last step, `now_s` is monotonic. Raises
        LogdError kinds for what ends the process. StorageBusy does not: the batch is kept and tried
        again at the next step, and nothing more is read until it is stored.
        """
        self._now_s = now_s
        if self._stalled is not None:
            self._commit()
            return
        drained = self._drain(datagrams)
        self._intake.trim(self._batch, keep=self._open)  # most of it may have made no batch
        self._book_ends()
        due = now_s >= self._look_due_s
        if due:
            self._look_due_s = now_s + self._look_interval_s
        self._turned_away = self._turned_away or self._more or drained >= QUEUE_DEPTH_MIN
        self._discover_new(due=due)
        found = self._find_closed(closed)
        # Whoever waits for the disk does not wait for this; unless it is this that he waits for.
        urgent = self._batch and self._batch.awaited
        self._backlog.work(self._monotonic_s, 0.0 if urgent else self.work_s)
        paced = now_s >= self._commit_due_s
        self._look(due=due, closed=found, watched=paced)
        batch = self._batch
        at_once = paced or self._more
        forced = bool(batch) and not at_once and now_s >= self._forced_due_s()
        if (batch and (at_once or forced)) or (due and batch.duplicates):
            began_s = self._monotonic_s()
            self._commit()
            if forced:
                self._forced.committed(batch.awaited, began_s, self._monotonic_s())
            paced = True
        if paced:
            self._commit_due_s = self._monotonic_s() + self._commit_interval_s
        if self._marks:
            self._pass_marks()

    def arrivals(self, queue_max: int) -> Callable[[], bool]:
        """A check that is true once all that is in the kernel's queue now is committed.

        The queue is in order and holds `queue_max` datagrams at most: when it was empty once, or as
        many have been taken, those of now are.
        """
        mark = _QueueMark(queue_max)
        self._marks.append(mark)
        return lambda: mark.committed

    def _pass_marks(self) -> None:
        for mark in self._marks:
            mark.committed = mark.left <= 0 and not self._batch
        self._marks = [mark for mark in self._marks if not mark.committed]

    def _wake_due_s(self) -> float:
        """When there is something to do though nothing has arrived, on the monotonic clock."""
        if self._backlog:
            return self._now_s
        due_s = self._look_due_s
        if self._batch or self._watch:
            due_s = min(due_s, self._commit_due_s)
        if self._batch:
            due_s = min(due_s, self._forced_due_s())
        if self._turned_away:
            due_s = min(due_s, self._turned_away_due_s)
        return due_s

    def _forced_due_s(self) -> float:
        """When the batch is to be stored for a caller that waits for the disk."""
        awaited = self._batch.awaited
        if not all(map(self._files.others_than, awaited)):
            return 0.0  # no other user has outboxes open
        return self._forced.due_s(awaited)

    def _drain(self, datagrams: Iterable[Datagram]) -> int:
        drained = self._arrivals.take(datagrams, self._intake, self._batch, self._open)
        self._more = self._arrivals.more
        taken = drained - (self._arrivals.held is not None)
        for marked in self._marks:
            marked.left = marked.left - taken if self._more else 0
        return drained

    # -- outboxes --------------------------------------------------------------------------------

    def _discover_new(self, *, due: bool = True) -> None:
        """Goes on in the listing, or begins one: any number of files may be there."""
        try:
            self._list(due=due)
        except OSError as error:
            self._listing = None
            self._say("the outboxes cannot be listed now: %s", error.strerror)

    def _list(self, *, due: bool) -> None:
        if due and self._listing is None:
            self._listing = iter(self._outboxes.names())
        if self._listing is None:
            return
        end_s = self._monotonic_s() + DISCOVER_S_MAX
        for _ in range(DISCOVER_FILES_MAX):
            found = next(self._listing, None)
            if found is None:
                self._listing = None
                return
            self._find(*found)
            if self._monotonic_s() >= end_s:
                break
        self._more = True

    def _find(self, name: str, uid: int, producer_id: int) -> None:
        """Queues a file that is not open yet, to be opened when it is its owner's turn."""
        producer = self._intake.producers.get((uid, producer_id))
        if producer is not None and producer in self._open:
            return
        try:
            owner = self._outboxes.owner(name)
        except OSError:
            return  # found again by the next listing
        if owner is not None and self._backlog.held(owner) < DISCOVER_QUEUE_MAX:
            self._backlog.add(owner, name, partial(self._discover, name, uid, producer_id))

    def _find_closed(self, names: Iterable[str]) -> set[Producer]:
        """Queues what is new among the files that were closed; returns the known producers of them.

        What there is no time for is found by the listing and the next due look.
        """
        found = set()
        end_s = self._monotonic_s() + CLOSED_S_MAX
        for name in names:
            parsed = parse_name(name)
            if parsed is None:
                continue
            self._find(name, *parsed)
            producer = self._intake.producers.get(parsed)
            if producer is not None:
                found.add(producer)
            if self._monotonic_s() >= end_s:
                break
        return found

    def _discover(self, name: str, uid: int, producer_id: int) -> bool:
        producer = self._intake.producers.get((uid, producer_id))
        if producer is not None:
            if producer not in self._open and producer not in self._given_up:
                self._attach(producer, name)
        elif not self._files.room_for(uid):
            self._wait_for_room(name, uid)
        else:
            producer = self._intake.producer(uid, producer_id)  # introduces it, with its outbox
            if producer not in self._open and producer.taken == producer.stored:
                self._intake.forget(producer)  # what waits is found again by its name
        return True

    def _wait_for_room(self, name: str, uid: int) -> None:
        self._say(
            "%s: waits, since %d outboxes of user %d are open already",
            name, self._files.held(uid), uid, user=uid,
        )  # fmt: skip

    def _introduce(self, uid: int, producer_id: int) -> Producer:
        producer = self._store.producer(uid, producer_id)
        self._attach(producer, outbox_name(uid, producer_id))
        return producer

    def _attach(self, producer: Producer, name: str) -> None:
        """Opens the producer's outbox, if it has one, and begins to find its place in it."""
        if not self._files.room_for(producer.uid) and self._may_be_there(name):
            producer.has_outbox = producer.behind = True  # what is missing lies there: no loss
            self._wait_for_room(name, producer.uid)
            return
        outbox = None
        try:
            outbox = self._outboxes.open(name, producer.uid, producer.id)
            if outbox is None:
                return
            if outbox.header.follows:
                self._attach_predecessor(producer, outbox.header.follows)
                if not self._files.room_for(producer.uid):
                    # The predecessor took the last one there was: that is read first.
                    self._guarded(self._outboxes.release, outbox)
                    producer.has_outbox = producer.behind = True
                    self._wait_for_room(name, producer.uid)
                    return
            placement = Placement(producer, outbox.header, outbox.read_at)
            placed = placement.step(self._batch, self.slice_bytes)
        except OtherVersion as error:
            producer.has_outbox = True  # what is missing lies there, so a gap is no loss
            uid = producer.uid if error.uid is None else error.uid
            self._say("%s: %s: left for a daemon that can read it", name, error, user=uid)
        except WireError as error:
            self._refuse(producer, outbox, name, error, error.uid)
        except OSError as error:
            if outbox is not None and not is_shortage(error):
                self._refuse(producer, outbox, name, f"system error: {error.strerror}", None)
                return
            if outbox is not None:
                self._outboxes.release(outbox)
            # Out of descriptors, say. It is there, so a gap is no loss: tried again at each look.
            producer.has_outbox = producer.behind = True
            self._say("%s: cannot be opened now: %s", name, error.strerror, user=producer.uid)
        else:
            producer.has_outbox = producer.behind = True
            # Whatever was booked while the file was not to be seen: its lock decides again.
            producer.ended = False
            if producer.pid == 0:
                producer.pid = outbox.header.pid
            self._open[producer] = outbox
            self._watch.inherit(producer, outbox.header.watched_until_ns, self._monotonic_s())
            self._files.add(producer.uid)
            self._search(producer, placement)
            if placed:
                self._placed(producer)
            self._hold(producer, outbox.header.follows)

    def _attach_predecessor(self, producer: Producer, follows: int) -> None:
        """Opens the outbox that this one follows, if it is there and not open yet."""
        uid, name = producer.uid, outbox_name(producer.uid, follows)
        known = self._intake.producers.get((uid, follows))
        self._attaching.append((uid, producer.id))
        try:
            if (
                (known is None or known not in self._open)
                and (uid, follows) not in self._attaching
                and len(self._attaching) <= PREDECESSORS_MAX
                and self._files.room_for(uid)
                and self._may_be_there(name)
            ):
                self._discover(name, uid, follows)
        finally:
            self._attaching.pop()

    def _hold(self, producer: Producer, follows: int) -> None:
        """Has it wait for the outbox that it follows, as far as that is written by now."""
        predecessor = self._intake.producers.get((producer.uid, follows)) if follows else None
        outbox = self._open.get(predecessor) if predecessor is not None else None
        if predecessor is None or outbox is None:
            return
        with suppress(OSError):  # then the order is not kept, and what is wrong is met elsewhere
            self._succession.hold(producer, predecessor, outbox.written())

    def _refuse(
        self, producer: Producer, outbox: AnOutbox | None, name: str, why: object, uid: int | None
    ) -> None:
        """Quarantines a file that is not this producer's outbox, under its owner's uid."""
        if outbox is not None:
            self._guarded(self._outboxes.refuse, outbox)
        uid = producer.uid if uid is None else uid  # not of the name, which may lie
        pid = producer.pid if uid == producer.uid else 0
        self._batch.refuse(uid, pid, f"outbox: {why}", name.encode())
        self._say("%s: refused as an outbox: %s", name, why)

    def _guarded(self, act: Callable[[AnOutbox], None], outbox: AnOutbox) -> None:
        """Closes, refuses or removes one outbox; an error in that is logged and ends nothing."""
        try:
            act(outbox)
        except OSError as error:
            self._say("%s: cannot be closed or removed: %s", outbox.name, error.strerror)

    def _let_go(self, producer: Producer) -> AnOutbox | None:
        outbox = self._open.pop(producer, None)
        self._searches.pop(producer, None)
        self._succession.drop(producer)
        if outbox is not None:
            self._watch.end(producer)
            # Who lives, and is taken for dead, sends again.
            self._guarded(lambda one: one.unwatch(), outbox)
            self._files.drop(producer.uid)
        return outbox

    # -- searches --------------------------------------------------------------------------------

    def _search(self, producer: Producer, search: Placement | Resynchronisation) -> None:
        """Queues the search for the producer's place in its ring, one slice for each task."""
        self._searches[producer] = search
        self._backlog.add(producer.uid, producer, partial(self._search_on, producer))

    def _search_on(self, producer: Producer) -> bool:
        search, outbox = self._searches.get(producer), self._open.get(producer)
        if search is None or outbox is None:
            return True
        try:
            done = search.step(self._batch, self.slice_bytes)
        except WireError as error:
            self._end_use(producer, outbox, str(error))
            return True
        except OSError as error:
            self._failed(producer, outbox, error)
            return True  # if it is not given up, the next look has it go on
        if done:
            self._placed(producer)
        return done

    def _placed(self, producer: Producer) -> None:
        del self._searches[producer]
        producer.behind = True
        if producer.taken == producer.stored:
            self._confirm(producer)  # committed by a predecessor that did not get to say so

    # -- reading ---------------------------------------------------------------------------------

    def _look(self, *, due: bool, closed: set[Producer], watched: bool) -> None:
        """Reads on in the outboxes that are ahead of the batch.

        `due` begins a round through all of them, which asks who lives; of those that were `closed`
        that is asked at once.
        """
        looked_s = self._monotonic_s()
        in_round = self._next_of_round(due=due)
        asked = in_round | closed
        watch = self._watch if watched else ()
        all_of_them = self._turned_away and looked_s >= self._turned_away_due_s
        waiting, failed = [], []
        for producer, outbox in self._open.items():
            if producer in self._searches:
                if producer in in_round:
                    self._backlog.add(producer.uid, producer, partial(self._search_on, producer))
                continue
            if producer.held:
                continue
            ask = producer in asked
            if not (ask or all_of_them or producer.behind or producer in watch):
                continue
            # Whether it lives is asked before what it has written is read: what a producer
            # writes last must be seen by the read after it is known to be dead.
            try:
                alive = outbox.alive() if ask or producer.behind else True
                written = outbox.written()
            except OSError as error:
                failed.append((producer, outbox, error))
                continue
            if alive and producer not in in_round and written == producer.taken:
                producer.behind = False
                self._watch.nothing_new(producer, looked_s)
                continue
            waiting.append(Waiting(producer, outbox, alive, max(0, written - producer.taken)))
        for producer, outbox, problem in failed:
            self._failed(producer, outbox, problem)
        if all_of_them:
            # Half of the time at most: ten small datagrams cost less than looking at all outboxes.
            ended_s = self._monotonic_s()
            self._turned_away, self._turned_away_due_s = False, ended_s + (ended_s - looked_s)
        for one, room in in_turn(waiting, self._batch, shared=self._files.several_users):
            if room is None:
                one.producer.behind = self._more = True
                continue
            try:
                if one.outbox.unusable is not None:
                    self._end_use(one.producer, one.outbox, one.outbox.unusable, room)
                else:
                    self._read(one.producer, one.outbox, one.alive, room)
            except WireError as error:
                self._end_use(one.producer, one.outbox, str(error), room)
            except OSError as error:
                self._failed(one.producer, one.outbox, error)
        if self._succession and self._succession.release():
            self._more = True

    def _next_of_round(self, *, due: bool) -> set[Producer]:
        """The next part of the round through all outboxes, if one is due or under way."""
        if due and self._round is None:
            self._round = iter(list(self._open))
        part = set(islice(self._round or (), LOOK_FILES_MAX))
        if len(part) < LOOK_FILES_MAX:
            self._round = None
        else:
            self._more = True
        return part

    def _read(self, producer: Producer, outbox: AnOutbox, alive: bool, room: Room) -> None:
        header = outbox.refresh()
        if outbox.confirmed < producer.stored == producer.taken:
            self._confirm(producer)  # for which something was short when it was committed
            if producer not in self._open:
                return
        if header.refused != producer.refused:
            producer.refused = header.refused
            self._batch.note(producer)
        damage = read_on(producer, header, outbox.read_at, self._batch, self._intake, room)
        if damage is not None:
            self._say("%s: %s", outbox.name, damage, user=producer.uid)
            outbox.scans_left -= 1
            if outbox.scans_left >= 0:
                self._search(producer, Resynchronisation(producer, header, outbox.read_at))
            else:
                self._end_use(producer, outbox, damage)
            return
        producer.behind = producer.taken < header.written
        if producer.behind:
            self._more = True
        elif not alive:
            producer.ended = True
            self._batch.note(producer)

    def _failed(self, producer: Producer, outbox: AnOutbox, error: OSError) -> None:
        """Handles an OSError on one outbox: gives it up, or for a shortage tries again later."""
        if is_shortage(error):
            producer.behind = True
            self._say("%s: cannot be used now: %s", outbox.name, error.strerror)
            return
        self._end_use(producer, outbox, f"system error: {error.strerror}")

    def _end_use(
        self, producer: Producer, outbox: AnOutbox, reason: str, room: Room | None = None
    ) -> None:
        """Gives an outbox up, in this turn or a later one: what still reads is stored first."""
        begin_salvage(producer, outbox, reason)
        batch = self._batch
        if producer not in self._searches and read_rest(
            producer, outbox, batch, self._intake, room or batch.room()
        ):
            producer.behind = self._more = True
        else:
            self._give_up(producer, outbox, reason)

    def _give_up(self, producer: Producer, outbox: AnOutbox, reason: str) -> None:
        """The rest of this outbox cannot be read; its producer goes on without one."""
        self._say("%s: given up: %s", outbox.name, reason, user=producer.uid)
        header = outbox.header
        # What it holds past that once it is removed is booked then, up to a ring's fill.
        outbox.header = replace(header, written=max(header.written, producer.taken))
        if header.written > producer.taken:
            plausible = header.written - producer.taken <= capacity(header)
            last = header.written if plausible else None
            # Before its place was found, nothing but the header speaks of any event.
            placing = isinstance(self._searches.get(producer), Placement)
            cause = LOST_CLAIMED if placing else LOST_DAMAGED
            self._batch.lose(producer, producer.taken + 1, last, cause)
            producer.taken = last or producer.taken
        self._batch.refuse(
            producer.uid, producer.pid, f"outbox: {reason}", outbox.name.encode(), producer
        )
        producer.has_outbox = producer.behind = False
        self._let_go(producer)
        self._given_up[producer] = outbox

    def _remove_given_up(self, producer: Producer, outbox: AnOutbox) -> None:
        """Removes a given-up outbox whose loss is committed; its living producer notices by that.

        What the producer has written since is booked first, up to what its ring can hold.
        """
        try:
            written = outbox.written()
        except OSError as error:
            if is_shortage(error):
                self._batch.note(producer)
                self._given_up[producer] = outbox
                return
            written = producer.taken
            self._batch.lose(producer, producer.taken + 1, None, LOST_DAMAGED)
        if producer.taken < written <= outbox.header.written + capacity(outbox.header):
            self._batch.lose(producer, producer.taken + 1, written, LOST_DAMAGED)
            producer.taken = written
            self._given_up[producer] = outbox
        else:
            self._guarded(self._outboxes.remove, outbox)

    # -- commit ----------------------------------------------------------------------------------

    def _commit(self) -> None:
        batch, began_s = self._batch, self._monotonic_s()
        try:
            self._store.commit(batch, self._clock_ns())
        except StorageBusy as problem:
            self._stalled = problem
            self._say("%s Trying again every second.", problem)
            return
        if self._stalled is not None:
            self._say("stored again after: %s", self._stalled)
            self._stalled = None
        lost = batch.lost(claimed=False)
        self._meter.committed(len(batch.events), lost, self._monotonic_s() - began_s)
        batch.settle()
        self._batch = self._new_batch()
        given_up, self._given_up = self._given_up, {}
        for producer in batch.producers:
            self._confirm(producer)
            if producer.ended:
                self._dismiss(producer)
        for producer, outbox in given_up.items():
            self._remove_given_up(producer, outbox)

    def _confirm(self, producer: Producer) -> None:
        outbox = self._open.get(producer)
        if outbox is None or producer in self._searches:
            return
        now_s = self._monotonic_s()
        until_ns = self._watch.promise(producer, now_s, now_s - self._now_s)
        try:
            outbox.confirm(producer.stored, producer.position, until_ns)
        except OSError as error:
            if not producer.ended:  # else it goes at once, and nobody asks
                self._failed(producer, outbox, error)

    def _dismiss(self, producer: Producer) -> None:
        """Retires a producer whose end is committed, and removes its outbox."""
        outbox = self._open.get(producer)
        if outbox is not None:
            if not self._retire(outbox):
                producer.ended, producer.behind = False, True
                return
            self._let_go(producer)
            self._guarded(self._outboxes.remove, outbox)
        self._intake.forget(producer)

    def _retire(self, outbox: AnOutbox) -> bool:
        """Whether nothing more comes from this outbox. Its process may live, without its lock."""
        try:
            outbox.unwatch()  # from here on it sends what it writes
            return outbox.retire()
        except OSError as error:
            return not is_shortage(error)  # what cannot be written to is removed all the same

    def _new_batch(self) -> Batch:
        config = self._config
        return Batch(config.batch_events_max, config.batch_bytes_max, config.gap_events_max)

    def _say(self, message: str, *args: object, user: int | None = None) -> None:
        """Logs at a bounded rate for each message, and for each user who can cause it."""
        self._limited_log.warning(self._now_s, message, *args, user=user)
