"""A batch: the events and other rows that one commit stores. Plain data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from logd_wire.schema import INT64_MAX
from logd_wire.wire import Event

EXCERPT_BYTES_MAX = 256
REASON_CHARS_MAX = 200
LOSS_EVENTS_MAX = 1_000_000

# Causes in the loss ledger.
# The events were not received, and there is no outbox to read them from.
LOST_NOT_RECEIVED = "not received"
LOST_DAMAGED = "outbox damaged"
LOST_RESTORED = "restored"  # the events were stored in a database that a backup has replaced
LOST_CLAIMED = "claimed"  # the events are lost according to an outbox's header alone
# The machine went down with the producer, whose last sequence is unknown.
LOST_TAIL_UNKNOWN = "tail unknown"
LOST_OUTBOX_GONE = "outbox gone"
# The first sequence received was high, so earlier events may be lost.
LOST_BEGINNING_UNKNOWN = "beginning unknown"

# Types of events that logd itself appends to the
# trail and keeps for ever (logd_wire.schema has all).
EVENTS_PRUNED = "events_pruned"
PERSON_ERASED = "person_erased"
BATCHES_COLLAPSED = "batches_collapsed"


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many events, and how many bytes of them, a batch can still take."""

    events: int
    bytes: int

    def share(self, count: int) -> Capacity:
        """Returns one of `count` equal shares: at least one event and one byte."""
        return Capacity(max(1, self.events // count), max(1, self.bytes // count))

    def __bool__(self) -> bool:
        return self.events > 0 and self.bytes > 0


@dataclass(slots=True, eq=False)
class Producer:
    """What the daemon knows about one numbered stream of events.

    `stored` is the watermark on disk, `taken` the highest sequence in the batch at hand. `position`
    is where record `taken`+1 lies in the producer's outbox.
    """

    uid: int
    id: int
    seed: int
    row: int | None = None
    stored: int = 0
    taken: int = 0
    position: int = 0
    replaced: int = 0  # the watermark of the database that `logd restore` replaced
    pid: int = 0
    has_outbox: bool = False
    behind: bool = False
    held: bool = False  # held back: another outbox is read before this one (logd.ingest.succession)
    skipped_steps: int = 0  # steps in which the batch had no capacity for it
    ended: bool = False
    refused: dict[str, int] = field(default_factory=dict)
    refused_logged: int = 0  # how many refused events have been logged

    @property
    def label(self) -> str:
        """The producer's name in messages: uid and id."""
        return f"{self.uid}-{self.id:016x}"


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the loss ledger. Without `last` the number of lost events is unknown."""

    producer: Producer
    first: int
    last: int | None
    cause: str

    @property
    def events(self) -> int | None:
        return None if self.last is None else self.last - self.first + 1

    @property
    def claimed(self) -> bool:
        return self.cause == LOST_CLAIMED


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """A row for the quarantine table. With a `sequence` it used up that number of its producer."""

    uid: int
    pid: int
    reason: str
    excerpt: bytes
    bytes: int
    producer: Producer | None = None
    sequence: int | None = None


class Batch:
    """Collects what one commit stores, up to a number of events and bytes."""

    def __init__(
        self, events_max: int, bytes_max: int, loss_events_max: int = LOSS_EVENTS_MAX
    ) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._loss_events_max = loss_events_max
        self.events: list[tuple[Producer, int, Event]] = []
        self.losses: list[Loss] = []
        self.quarantine_entries: list[QuarantineEntry] = []
        # This is a dict used as a set, since its order is that of arrival:
        # a simulation must be repeatable.
        self.producers: dict[Producer, None] = {}
        self.duplicates = 0
        self.awaited: set[int] = set()  # users with a caller who waits for the commit
        self.bytes = 0

    def add(self, producer: Producer, sequence: int, event: Event, size: int) -> None:
        self.events.append((producer, sequence, event))
        self.producers[producer] = None
        self.bytes += size

    def extend(
        self, producer: Producer, events: list[tuple[Producer, int, Event]], size: int
    ) -> None:
        """Adds several events of one producer, `size` bytes in all."""
        if events:
            self.events += events
            self.producers[producer] = None
            self.bytes += size

    def add_quarantine(
        self,
        uid: int,
        pid: int,
        reason: str,
        data: bytes,
        producer: Producer | None = None,
        sequence: int | None = None,
    ) -> None:
        excerpt = data[:EXCERPT_BYTES_MAX]
        reason = reason[:REASON_CHARS_MAX]  # the reason is cut, since it may quote untrusted input
        self.quarantine_entries.append(
            QuarantineEntry(uid, pid, reason, excerpt, len(data), producer, sequence)
        )
        if producer is not None:
            self.producers[producer] = None
        self.bytes += len(excerpt) + 64

    def add_loss(self, producer: Producer, first: int, last: int | None, cause: str) -> None:
        """Records a loss; of one larger than the bound, the number of events counts as unknown."""
        first = min(first, INT64_MAX)
        if last is not None and last - first >= self._loss_events_max:
            last = None
        self.losses.append(Loss(producer, first, last, cause))
        self.producers[producer] = None
        self.bytes += 64

    def lost(self, *, claimed: bool) -> int:
        """Returns the number of lost events: only claimed ones, or all others."""
        return sum(loss.events or 0 for loss in self.losses if loss.claimed == claimed)

    def touch(self, producer: Producer) -> None:
        """Adds the producer's own row to the batch, without an event."""
        self.producers[producer] = None

    def copy(self, events: list[tuple[Producer, int, Event]]) -> Batch:
        """Returns the same batch with other events."""
        made = Batch(self._events_max, self._bytes_max, self._loss_events_max)
        made.events, made.losses, made.quarantine_entries = (
            events,
            self.losses,
            self.quarantine_entries,
        )
        made.producers, made.duplicates = dict(self.producers), self.duplicates
        return made

    def mark_committed(self) -> None:
        """Advances the watermarks in memory. Only called after the commit."""
        for producer in self.producers:
            producer.stored = producer.taken

    @property
    def entries(self) -> int:
        """The number of rows that the batch adds, not counting watermarks."""
        return len(self.events) + len(self.quarantine_entries) + len(self.losses)

    def capacity(self, at_least: int | None = None) -> Capacity:
        """Returns the capacity that is left; with `at_least` N no less than 1/N of the bounds."""
        events, size = self._events_max - self.entries, self._bytes_max - self.bytes
        if at_least is not None:
            events = max(events, self._events_max // at_least, 1)
            size = max(size, self._bytes_max // at_least)
        return Capacity(max(0, events), max(0, size))

    def is_filled_to(self, part: float) -> bool:
        """Returns whether the given fraction of the batch's events or bytes is taken."""
        return self.entries >= part * self._events_max or self.bytes >= part * self._bytes_max

    @property
    def full(self) -> bool:
        return self.is_filled_to(1)

    def __bool__(self) -> bool:
        return bool(self.events or self.losses or self.quarantine_entries or self.producers)
