"""A batch: what one commit will store. Plain data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.schema import INT64_MAX
from shared.wire import Event

EXCERPT_BYTES_MAX = 256
LOSS_EVENTS_MAX = 1_000_000

# Causes in the loss ledger.
LOST_NOT_RECEIVED = "not received"  # no outbox to read it from
LOST_DAMAGED = "outbox damaged"
LOST_RESTORED = "restored"  # confirmed once, missing since the database came from a backup
LOST_TAIL_UNKNOWN = "tail unknown"  # the machine went down with the producer
LOST_OUTBOX_GONE = "outbox gone"
LOST_BEGINNING_UNKNOWN = "beginning unknown"  # first heard of at a high number


@dataclass(slots=True, eq=False)
class Producer:
    """What the daemon knows of one numbered stream of events.

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
    pid: int = 0
    has_outbox: bool = False
    behind: bool = False
    ended: bool = False
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The producer as people see it: uid and id."""
        return f"{self.uid}-{self.id:016x}"


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the loss ledger. Without `last` the numbers do not tell how many events it is."""

    producer: Producer
    first: int
    last: int | None
    cause: str

    @property
    def events(self) -> int | None:
        return None if self.last is None else self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something for quarantine. With a `sequence` it used up that number of its producer."""

    uid: int
    pid: int
    reason: str
    excerpt: bytes
    bytes: int
    producer: Producer | None = None
    sequence: int | None = None


class Batch:
    """Collects what one commit takes, and says when it is full."""

    def __init__(
        self, events_max: int, bytes_max: int, loss_events_max: int = LOSS_EVENTS_MAX
    ) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._loss_events_max = loss_events_max
        self.events: list[tuple[Producer, int, Event]] = []
        self.losses: list[Loss] = []
        self.refusals: list[Refusal] = []
        # A set in the order of arrival, so that a run from a seed can be repeated.
        self.producers: dict[Producer, None] = {}
        self.duplicates = 0
        self.bytes = 0

    def add(self, producer: Producer, sequence: int, event: Event, size: int) -> None:
        self.events.append((producer, sequence, event))
        self.producers[producer] = None
        self.bytes += size

    def refuse(
        self,
        uid: int,
        pid: int,
        reason: str,
        data: bytes,
        producer: Producer | None = None,
        sequence: int | None = None,
    ) -> None:
        excerpt = data[:EXCERPT_BYTES_MAX]
        self.refusals.append(Refusal(uid, pid, reason, excerpt, len(data), producer, sequence))
        if producer is not None:
            self.producers[producer] = None
        self.bytes += len(excerpt) + 64

    def lose(self, producer: Producer, first: int, last: int | None, cause: str) -> None:
        """A claim of more than the bound is booked as claimed, without a number to believe."""
        first = min(first, INT64_MAX)
        if last is not None and last - first >= self._loss_events_max:
            last = None
        self.losses.append(Loss(producer, first, last, cause))
        self.producers[producer] = None
        self.bytes += 64

    def note(self, producer: Producer) -> None:
        """The producer's own row has changed, without an event."""
        self.producers[producer] = None

    def settle(self) -> None:
        """It is committed: the watermarks in memory follow, and never before."""
        for producer in self.producers:
            producer.stored = producer.taken

    @property
    def room_events(self) -> int:
        """How many more events it takes."""
        return max(0, self._events_max - len(self.events) - len(self.refusals))

    @property
    def room_bytes(self) -> int:
        """How many more bytes of them it takes."""
        return max(0, self._bytes_max - self.bytes)

    @property
    def full(self) -> bool:
        return not (self.room_bytes and self.room_events)

    def __bool__(self) -> bool:
        return bool(self.events or self.losses or self.refusals or self.producers)
