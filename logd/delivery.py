"""The delivery core: what has arrived becomes a batch, a commit, and only then a confirmation.

No socket, clock, file or database of its own: it is handed datagrams, the names of closed files and
the time, and reaches the trail and the outboxes through `logd.ports`. `logd.daemon` drives
it from a socket; the simulation in the tests drives the very same code from a seed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic

from logd.batch import LOST_DAMAGED, Batch, Producer, Room
from logd.config import Config
from logd.errors import NotYet
from logd.fairness import Files, Waiting, in_turn
from logd.figures import Meter
from logd.intake import Intake
from logd.ports import AnOutbox, Directory, Trail
from logd.repair import align, read_on, resynchronise
from logd.watch import Watch
from shared.outbox_file import outbox_name, parse_name
from shared.wire import RECORD_HEAD, OtherVersion, WireError

# After so many datagrams at once the kernel's queue may have been full (its depth is 10 by
# default, plus one), and senders may have been turned away: then the outboxes are looked at.
QUEUE_DEPTH_MIN = 10
DRAIN_DATAGRAMS_MAX = 4096
# Datagrams take one such part of a batch, and so many at once, at most: under a flood of them the
# outboxes are read all the same.
DATAGRAMS_PART = 4
# So many names of a listing are looked at in a turn, and so much of damaged rings is searched.
DISCOVER_FILES_MAX = 1000
SEARCH_BYTES_MAX = 8 * 1024 * 1024
LOG_INTERVAL_S = 30.0

_log = logging.getLogger("logd")

# Data, the sender's uid and pid by the kernel's word, and whether the data was cut.
Datagram = tuple[bytes, int, int, bool]


@dataclass(eq=False)
class _Arrivals:
    """What was in the kernel's queue at some moment: how many datagrams of it may be left."""

    left: int
    committed: bool = False


class Delivery(Generic[AnOutbox]):
    """One instance's producers, their outboxes and the batch at hand.

    `clock_ns` is the wall clock, for the record only: nothing is ordered by it. `monotonic_s` is
    the clock that producers read as well. At most `open_max` outboxes are held open at a time.
    """

    def __init__(
        self,
        config: Config,
        store: Trail,
        outboxes: Directory[AnOutbox],
        clock_ns: Callable[[], int],
        open_max: int,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._outboxes = outboxes
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        self._meter = Meter()
        self._intake = Intake(self._introduce, config.gap_events_max)
        self._open: dict[Producer, AnOutbox] = {}
        self._given_up: list[AnOutbox] = []  # removed behind the commit that books their loss
        self._files = Files(
            min(open_max, config.outboxes_max),
            config.outboxes_per_user_max,
            shared=config.many_users,
        )
        self._listing: Iterator[tuple[str, int, int]] | None = None
        self._unfinished: Iterator[tuple[int, int, str]] = iter(())
        self._search_bytes_left = SEARCH_BYTES_MAX
        self._batch = self._new_batch()
        self._look_interval_s = config.look_interval_ms / 1000
        self._look_due_s = 0.0
        self._commit_interval_s = config.commit_interval_ms / 1000
        self._commit_due_s = 0.0
        self._watch = Watch(self._commit_interval_s)
        self._more = False  # something was left unread for want of room in the batch
        self._arrivals: list[_Arrivals] = []
        self._stalled: NotYet | None = None
        self._now_s = 0.0
        self._logged_at_s: dict[str, float] = {}

    # -- one turn --------------------------------------------------------------------------------

    def begin(self, now_s: float) -> None:
        """Before the first step: finds every outbox, and books what can never come.

        Raises NotYet when it cannot tell which outboxes there are.
        """
        self._now_s = now_s
        try:
            for name, uid, producer_id in self._outboxes.names():
                self._search_bytes_left = SEARCH_BYTES_MAX
                self._discover(name, uid, producer_id)
        except OSError as error:
            # Taken for an empty directory, it would book every open producer's end as lost.
            raise NotYet(f"the outboxes cannot be listed: {error.strerror}.") from error
        self._unfinished = iter(self._store.unfinished())
        self._book_ends()
        for producer in list(self._open):
            self._confirm(producer)  # committed by a predecessor that did not get to say so

    def _book_ends(self) -> None:
        """Producers that can say no more: any number of them, so as many as a batch takes."""
        while not self._batch.full:
            end = next(self._unfinished, None)
            if end is None:
                return
            uid, producer_id, cause = end
            if self._may_be_there(outbox_name(uid, producer_id)):
                continue  # readable or not, nothing is lost while it is
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

    def step(self, datagrams: Iterable[Datagram], closed: set[str], now_s: float) -> None:
        """Takes what has arrived, reads what is missing, commits, confirms: all that there is.

        `closed` names the files that were let go since the last step, `now_s` is monotonic. Raises
        LogdError kinds for what ends the process. NotYet does not: the batch is kept and tried
        again at the next step, and nothing more is read until it is stored.
        """
        self._now_s = now_s
        if self._stalled is not None:
            self._commit()
            return
        self._search_bytes_left = SEARCH_BYTES_MAX
        drained = self._drain(datagrams)
        self._book_ends()
        due = now_s >= self._look_due_s
        if due:
            self._look_due_s = now_s + self._look_interval_s
        self._discover_new(due=due)
        for name in closed:
            parsed = parse_name(name)
            if parsed is not None:
                self._discover(name, *parsed)
        paced = now_s >= self._commit_due_s
        all_of_them = due or bool(closed) or drained >= QUEUE_DEPTH_MIN
        self._look(due=due, all_of_them=all_of_them, watched=paced)
        batch = self._batch
        if (batch and (paced or self._more or batch.awaited)) or (due and batch.duplicates):
            self._commit()
            paced = True
        if paced:
            self._commit_due_s = self._monotonic_s() + self._commit_interval_s
        if self._arrivals:
            self._pass_arrivals()

    def arrivals(self, queue_max: int) -> Callable[[], bool]:
        """A check that is true once all that is in the kernel's queue now is committed.

        The queue is in order and holds `queue_max` datagrams at most: when it was empty once, or as
        many have been taken, those of now are.
        """
        arrivals = _Arrivals(queue_max)
        self._arrivals.append(arrivals)
        return lambda: arrivals.committed

    def _pass_arrivals(self) -> None:
        for arrivals in self._arrivals:
            arrivals.committed = arrivals.left <= 0 and not self._batch
        self._arrivals = [arrivals for arrivals in self._arrivals if not arrivals.committed]

    def _wake_due_s(self) -> float:
        """When there is something to do though nothing has arrived, on the monotonic clock."""
        if self._batch or self._watch:
            return min(self._look_due_s, self._commit_due_s)
        return self._look_due_s

    def _drain(self, datagrams: Iterable[Datagram]) -> int:
        drained = 0
        self._more = False
        batch, datagram = self._batch, self._intake.datagram
        for data, uid, pid, cut in datagrams:
            drained += 1
            if cut:
                batch.refuse(uid, pid, "oversize datagram", data)
            else:
                datagram(data, uid, pid, batch)
            if batch.filled(DATAGRAMS_PART) or drained == DRAIN_DATAGRAMS_MAX:
                self._more = True
                break
        for arrivals in self._arrivals:
            arrivals.left = arrivals.left - drained if self._more else 0
        return drained

    # -- outboxes --------------------------------------------------------------------------------

    def _discover_new(self, *, due: bool = True) -> None:
        """Goes on in the listing, or begins one: any number of files may be there."""
        try:
            if due and self._listing is None:
                self._listing = iter(self._outboxes.names())
            for _ in range(DISCOVER_FILES_MAX if self._listing is not None else 0):
                found = next(self._listing, None)  # type: ignore[arg-type] # it is there
                if found is None:
                    self._listing = None
                    return
                self._discover(*found)
            self._more = self._more or self._listing is not None
        except OSError as error:
            self._listing = None
            self._say("the outboxes cannot be listed now: %s", error.strerror)

    def _discover(self, name: str, uid: int, producer_id: int) -> None:
        producer = self._intake.producers.get((uid, producer_id))
        if producer is not None:
            if producer not in self._open:
                self._attach(producer, name)
        elif not self._outboxes.has(name):
            pass  # gone
        elif not self._files.room_for(uid):
            self._wait_for_room(name, uid)
        else:
            producer = self._intake.producer(uid, producer_id)  # introduces it, with its outbox
            if producer not in self._open and producer.taken == producer.stored:
                self._intake.forget(producer)  # what waits is found again by its name

    def _wait_for_room(self, name: str, uid: int) -> None:
        self._say(
            "%s: waits, since %d outboxes of user %d are open already",
            name, self._files.held(uid), uid,
        )  # fmt: skip

    def _introduce(self, uid: int, producer_id: int) -> Producer:
        producer = self._store.producer(uid, producer_id)
        self._attach(producer, outbox_name(uid, producer_id))
        return producer

    def _attach(self, producer: Producer, name: str) -> None:
        """Opens the producer's outbox, if it has one, and finds its place in it."""
        room = self._files.room_for(producer.uid)
        if not (room and self._search_bytes_left > 0) and self._outboxes.has(name):
            producer.has_outbox = producer.behind = True  # what is missing lies there: no loss
            if not room:
                self._wait_for_room(name, producer.uid)
            return
        outbox = None
        try:
            outbox = self._outboxes.open(name, producer.uid, producer.id)
            if outbox is None:
                return
            if outbox.header.confirmed_sequence != producer.taken:
                self._search_bytes_left -= outbox.header.ring_bytes
            align(producer, outbox.header, outbox.read_at, self._batch)
        except OtherVersion as error:
            producer.has_outbox = True  # what is missing lies there, so a gap is no loss
            self._say("%s: %s: left for a daemon that can read it", name, error)
        except WireError as error:
            if outbox is not None:
                self._outboxes.refuse(outbox)
            uid = producer.uid if error.uid is None else error.uid  # not of the name, which may lie
            pid = producer.pid if uid == producer.uid else 0
            self._batch.refuse(uid, pid, f"outbox: {error}", name.encode())
            self._say("%s: refused as an outbox: %s", name, error)
        except OSError as error:
            # Out of descriptors, say. It is there, so a gap is no loss: tried again at each look.
            producer.has_outbox = producer.behind = True
            self._say("%s: cannot be opened now: %s", name, error.strerror)
        else:
            producer.has_outbox = producer.behind = True
            # Whatever was booked while the file was not to be seen: its lock decides again.
            producer.ended = False
            if producer.pid == 0:
                producer.pid = outbox.header.pid
            self._open[producer] = outbox
            self._watch.inherit(producer, outbox.header.watched_until_ns, self._monotonic_s())
            self._files.add(producer.uid)

    def _let_go(self, producer: Producer) -> AnOutbox | None:
        outbox = self._open.pop(producer, None)
        if outbox is not None:
            self._watch.end(producer)
            outbox.unwatch()  # who lives, and is taken for dead, sends again
            self._files.drop(producer.uid)
        return outbox

    def _look(self, *, due: bool, all_of_them: bool, watched: bool) -> None:
        """Reads on in the outboxes that are ahead of the batch; `due`: also asks who lives."""
        looked_s = self._monotonic_s()
        watch = self._watch if watched else ()
        waiting = []
        for producer, outbox in self._open.items():
            if not (all_of_them or producer.behind or producer in watch):
                continue
            # Whether it lives is asked before what it has written is read: what a producer
            # writes last must be seen by the read after it is known to be dead.
            alive = outbox.alive() if all_of_them else True
            written = outbox.written()
            if alive and not due and written == producer.taken:
                producer.behind = False
                self._watch.nothing_new(producer, looked_s)
                continue
            waiting.append(Waiting(producer, outbox, alive, max(0, written - producer.taken)))
        for one, room in in_turn(waiting, self._batch):
            if room is None:
                one.producer.behind = self._more = True
                continue
            try:
                self._read(one.producer, one.outbox, one.alive, room)
            except WireError as error:
                self._give_up(one.producer, one.outbox, str(error))

    def _read(self, producer: Producer, outbox: AnOutbox, alive: bool, room: Room) -> None:
        header = outbox.refresh()
        if header.refused != producer.refused:
            producer.refused = header.refused
            self._batch.note(producer)
        damage = read_on(producer, header, outbox.read_at, self._batch, self._intake, room)
        if damage is not None and self._search_bytes_left > 0:
            self._search_bytes_left -= header.ring_bytes
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

    def _give_up(self, producer: Producer, outbox: AnOutbox, reason: str) -> None:
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
        self._let_go(producer)
        self._given_up.append(outbox)

    # -- commit ----------------------------------------------------------------------------------

    def _commit(self) -> None:
        batch, began_s = self._batch, self._monotonic_s()
        try:
            self._store.commit(batch, self._clock_ns())
        except NotYet as problem:
            if self._stalled is None:
                self._logged_at_s.clear()
            self._stalled = problem
            self._say("%s Trying again every second.", problem)
            return
        if self._stalled is not None:
            _log.warning("stored again after: %s", self._stalled)
            self._stalled = None
        lost = sum(loss.events or 0 for loss in batch.losses)
        self._meter.committed(len(batch.events), lost, self._monotonic_s() - began_s)
        batch.settle()
        self._batch = self._new_batch()
        for producer in batch.producers:
            self._confirm(producer)
            if producer.ended:
                self._dismiss(producer)
        for outbox in self._given_up:
            self._outboxes.remove(outbox)  # which is how a living producer finds out
        self._given_up.clear()
        self._intake.trim(keep=self._open)

    def _confirm(self, producer: Producer) -> None:
        outbox = self._open.get(producer)
        if outbox is not None:
            now_s = self._monotonic_s()
            until_ns = self._watch.promise(producer, now_s, now_s - self._now_s)
            outbox.confirm(producer.stored, producer.position, until_ns)

    def _dismiss(self, producer: Producer) -> None:
        """Its end is on disk: the outbox can go."""
        outbox = self._let_go(producer)
        if outbox is not None:
            self._outboxes.remove(outbox)
        self._intake.forget(producer)

    def _new_batch(self) -> Batch:
        config = self._config
        return Batch(config.batch_events_max, config.batch_bytes_max, config.gap_events_max)

    def _say(self, message: str, *args: object) -> None:
        """Logs at a bounded rate: what goes on being wrong is not said a thousand times."""
        if self._now_s - self._logged_at_s.get(message, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
            self._logged_at_s[message] = self._now_s
            _log.warning(message, *args)
