"""The delivery core: makes a batch of what has arrived, commits it, and only then confirms it.

It has no socket, clock, file or database of its own: it is handed datagrams, the names of closed
files and the time, and reaches the trail and the outboxes through `logd.ingest.interfaces`.
`logd.serve.loop` drives it from a socket; the simulation in the tests drives the same code from a
seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic

from logd.batch import Producer
from logd.config.settings import Config
from logd.errors import StorageBusy
from logd.ingest.commit_log import log_commit
from logd.ingest.drain import Datagram, Drain
from logd.ingest.ended_producers import EndedProducers, drop_missing
from logd.ingest.interfaces import AnOutbox, Directory, Trail
from logd.ingest.open_outboxes import OpenOutboxes
from logd.ingest.ordering import Intake
from logd.ingest.outbox_finder import OutboxFinder
from logd.ingest.outbox_lifecycle import OutboxLifecycle
from logd.ingest.outbox_opener import OutboxOpener
from logd.ingest.outbox_poller import OutboxPoller
from logd.ingest.place_searches import PlaceSearches
from logd.ingest.queue_marks import QueueMarks
from logd.ingest.scheduling import OpenFileQuota
from logd.ingest.step_budget import ForcedCommits
from logd.ingest.step_state import StepState
from logd.ingest.user_tasks import UserTasks
from logd.ingest.wakeups import Wakeups
from logd.runtime_stats import StatsRecorder

# A kernel queue holds 11 datagrams by default. After this many at once it may have been full,
# and senders may have been refused, so the outboxes are polled.
QUEUE_DEPTH_MIN = 10


class Delivery(Generic[AnOutbox]):
    """The delivery core of one instance: its producers, their outboxes and the current batch.

    `clock_ns` is the wall clock; nothing is ordered by it. `monotonic_s` is the clock that
    producers read as well. At most `open_max` outboxes are held open at a time. `own_uid` is the
    user that logd runs as. The parts that do the work are attributes: the simulation and the tests
    replace them, or drive one alone.
    """

    # Seconds for which a step opens files and searches rings; seconds for that before the daemon
    # is ready; and bytes that one slice of a search reads, which takes about a millisecond.
    work_s = 0.005
    start_work_s = 0.25
    slice_bytes = 64 * 1024
    # The simulation in the tests replaces these two classes.
    intake_type: type[Intake] = Intake
    opener_type: type[OutboxOpener[AnOutbox]] = OutboxOpener

    def __init__(
        self,
        config: Config,
        store: Trail,
        directory: Directory[AnOutbox],
        clock_ns: Callable[[], int],
        open_max: int,
        monotonic_s: Callable[[], float],
        own_uid: int | None = None,
    ) -> None:
        self._store = store
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        self._directory = directory
        self._poll_interval_s = config.look_interval_ms / 1000
        self._commit_interval_s = config.commit_interval_ms / 1000
        self._stalled: StorageBusy | None = None
        self.stats = StatsRecorder()
        self.state = state = StepState(config, monotonic_s)
        self.tasks = UserTasks()
        self.drain = Drain(monotonic_s)
        self._forced = ForcedCommits()
        self._marks = QueueMarks()
        self._started = self._marks.start
        quota = OpenFileQuota(
            min(open_max, config.outboxes_max),
            config.outboxes_per_user_max,
            shared=config.many_users,
        )
        self.outboxes = OpenOutboxes[AnOutbox](quota, Wakeups(self._commit_interval_s), state)
        self.intake = self.intake_type(self._load_producer, config.gap_events_max, own_uid)
        self.lifecycle = OutboxLifecycle(directory, self.outboxes, self.intake, state)
        self.searches = PlaceSearches(
            self.outboxes, self.lifecycle, self.tasks, state, self.slice_bytes
        )
        self.opener = self.opener_type(
            store, directory, self.outboxes, self.lifecycle, self.searches, self.intake, state
        )
        self.finder = OutboxFinder(
            directory, self.outboxes, self.opener, self.intake, self.tasks, state
        )
        self.poller = OutboxPoller(self.outboxes, self.lifecycle, self.searches, self.intake, state)
        self._ends = EndedProducers(self.intake, state, lambda name: self.opener.may_exist(name))

    def _load_producer(self, uid: int, producer_id: int) -> Producer:
        return self.opener.load_producer(uid, producer_id)

    # -- one step --------------------------------------------------------------------------------

    def recover(self, now_s: float) -> None:
        """Finds the outboxes, and the producers that can send nothing more.

        Called before the first step.

        It takes about `start_work_s`, however many files there are: later steps do the rest. Raises
        StorageBusy when the outboxes cannot be listed.
        """
        self.state.now_s = now_s
        try:
            self.finder.list(due=True)
        except OSError as error:
            # If this counted as an empty directory,
            # the end of every open producer would be recorded as a loss.
            raise StorageBusy(f"the outboxes cannot be listed: {error.strerror}.") from error
        self._ends.begin(self._store.unfinished())
        self.run_tasks()

    def run_tasks(self) -> None:
        """Opens and searches outboxes for about `start_work_s`. Called at a start and a stop."""
        self.tasks.run(self._monotonic_s, self.start_work_s)

    def step(self, datagrams: Iterable[Datagram], closed: Iterable[str], now_s: float) -> None:
        """Runs one step: takes what has arrived, reads what is missing, commits, confirms.

        `closed` names the files that were closed since the last step, `now_s` is monotonic. Raises
        a LogdError if the process has to end. StorageBusy is kept in `stalled` instead: the batch
        is committed again at the next step, and nothing more is read until it is stored.
        """
        state = self.state
        state.now_s = now_s
        if self._stalled is not None:
            self.commit()
            return
        drained = self._take_datagrams(datagrams)
        # Producers are trimmed even if there is no batch to commit.
        self.intake.trim(state.batch, keep=self.outboxes.keys())
        if self._started.unread <= 0:
            self._ends.record_ended()
        due = now_s >= state.poll_due_s
        if due:
            state.poll_due_s = now_s + self._poll_interval_s
        if state.work_left or drained >= QUEUE_DEPTH_MIN:
            self.poller.queue_was_full = True
        self.finder.find_new(due=due)
        found = self.finder.find_closed(closed)
        # If a caller waits for the disk, run one task only (it may be what the caller waits for).
        urgent = state.batch and state.batch.awaited
        self.tasks.run(self._monotonic_s, 0.0 if urgent else self.work_s)
        paced = now_s >= state.commit_due_s
        self.poller.poll(due=due, closed=found, check_wakeups=paced)
        self._commit_if_due(due=due, paced=paced)
        if self._marks:
            self._marks.record_commit(batch_empty=not state.batch)

    def _take_datagrams(self, datagrams: Iterable[Datagram]) -> int:
        drain = self.drain
        drained = drain.take(datagrams, self.intake, self.state.batch, self.outboxes)
        self.state.work_left = drain.more
        self._marks.record_taken(drained - (drain.held is not None), emptied=not drain.more)
        return drained

    def _commit_if_due(self, *, due: bool, paced: bool) -> None:
        state, batch = self.state, self.state.batch
        at_once = paced or state.work_left
        forced = bool(batch) and not at_once and state.now_s >= self._forced_due_s()
        if (batch and (at_once or forced)) or (due and batch.duplicates):
            began_s = self._monotonic_s()
            self.commit()
            if forced:
                self._forced.committed(batch.awaited, began_s, self._monotonic_s())
            paced = True
        if paced:
            state.commit_due_s = self._monotonic_s() + self._commit_interval_s

    def commit(self) -> None:
        """Commits the batch and confirms it in the outboxes; keeps a StorageBusy in `stalled`."""
        state, batch, began_s = self.state, self.state.batch, self._monotonic_s()
        try:
            self._store.commit(batch, self._clock_ns())
        except StorageBusy as problem:
            self._stalled = problem
            state.warn_throttled("%s Trying again every second.", problem)
            return
        if self._stalled is not None:
            state.warn_throttled("stored again after: %s", self._stalled)
            self._stalled = None
        lost = batch.lost(claimed=False)
        self.stats.record_commit(len(batch.events), lost, self._monotonic_s() - began_s)
        batch.mark_committed()
        log_commit(batch, state.warn_throttled)
        state.batch = state.new_batch()
        self.lifecycle.finish_commit(batch)

    # -- for the loop that drives it -------------------------------------------------------------

    @property
    def stalled(self) -> StorageBusy | None:
        """Why nothing can be stored now; None if events can be stored."""
        return self._stalled

    @property
    def has_backlog(self) -> bool:
        """Whether the last step left input unread or unlisted; then the next is due at once."""
        return self.state.work_left

    @property
    def holds_datagram(self) -> bool:
        """Whether a datagram was taken from the queue of which a part is not in a batch yet."""
        return self.drain.held is not None

    def next_due_s(self) -> float:
        """Returns the monotonic time of the next step, if nothing arrives before it."""
        state = self.state
        if self.tasks:
            return state.now_s
        due_s = state.poll_due_s
        if state.batch or self.outboxes.wakeups:
            due_s = min(due_s, state.commit_due_s)
        if state.batch:
            due_s = min(due_s, self._forced_due_s())
        if self.poller.queue_was_full:
            due_s = min(due_s, self.poller.poll_all_due_s)
        return due_s

    def _forced_due_s(self) -> float:
        """Returns the monotonic time at which callers that wait for the disk may force a commit."""
        awaited = self.state.batch.awaited
        if not all(map(self.outboxes.quota.others_than, awaited)):
            return 0.0  # no other user has an outbox open, so no other user waits
        return self._forced.due_s(awaited)

    def commit_is_near(self, by_s: float) -> bool:
        """Returns whether a commit is due before the monotonic time `by_s`."""
        state = self.state
        return state.work_left or (bool(state.batch) and state.commit_due_s < by_s)

    def force_step(self, *, poll: bool = True) -> None:
        """Makes the next step commit the batch at hand and, with `poll`, poll every outbox."""
        self.state.commit_due_s = 0.0
        if poll:
            self.state.poll_due_s = 0.0

    def step_at_once(self) -> None:
        """Makes the next step follow without a wait, since datagrams may be in another queue."""
        self.state.work_left = True

    def mark_queue(self, queue_max: int) -> Callable[[], bool]:
        """Returns a check that is true once everything now in the kernel's queue is committed.

        The queue holds `queue_max` datagrams at most.
        """
        return self._marks.add(queue_max)

    def open_names(self) -> frozenset[str]:
        """Returns the names of the outboxes that are open."""
        opened = (*self.outboxes.values(), *self.lifecycle.given_up.values())
        return frozenset(outbox.name for outbox in opened)

    def use_new_directory(self) -> None:
        """Starts to list a new directory; outboxes open in the former one stay open."""
        self.finder.restart()
        self.state.poll_due_s = 0.0
        drop_missing(self.intake.producers.values(), self.outboxes, self.opener.may_exist)

    def close(self) -> None:
        """Closes every outbox; the files stay for the next daemon."""
        for outbox in (*self.outboxes.release_all(), *self.lifecycle.given_up.values()):
            self._directory.release(outbox)
