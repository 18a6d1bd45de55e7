"""A school's history of any size, as the site would have logged it, in an instance of logd.

The demo's sixty days of one class are made once and repeated: over more classes, and over more
terms, with every event's own request id, so that all of it has the shape and the bytes of what the
site emits. It goes in through the daemon's own store, so that chain, roll-ups and counters are
right: `logd verify` finds such a trail whole.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import msgpack

from benchmarks.harness.part import Tell
from benchmarks.harness.processes import Failed, Instance
from logd.batch import Batch, Producer
from logd.config import settings as configuration
from logd.config.settings import Config
from logd.errors import LogdError
from logd.storage import keyfile
from logd.storage.store import Store
from logd_wire.wire import Event, producer_seed
from webapp.classroom.model.content import Course, read_courses
from webapp.demo.history import DAYS, generate
from webapp.demo.school import PEOPLE, STUDENTS

DAY_NS = 86_400 * 10**9
MINUTE_NS = 60 * 10**9
TERM_NS = DAYS * DAY_NS
# A dashboard asks for at most 1000 students at once.
CLASSES_MAX = 33
TERMS = 6  # of sixty days: about a year, before there are more classes
EVENTS_PER_BATCH = 2000
# Web processes at a time, and how many events one of them logs before it is replaced.
WORKERS = 4
EVENTS_PER_WORKER = 50_000
REQUEST_ID_BYTES = 16
UID = 1000

SIZES = (10**5,)
SIZES_LONG = (10**5, 10**6, 10**7)
EVENTS_PER_STEP = 50_000  # of the bar, while a trail is built

Told = Callable[[int], None]


@dataclass(frozen=True)
class _Shape:
    """An event of the demo: everything but its request id, which lies between `head` and `tail`."""

    type: str
    ts_ns: int
    user: int | None
    head: bytes
    tail: bytes


class History:
    """`size` events that end at `now_ns`, and what comes after them. The same seed, the same bytes.

    `students` are their users, a class after the other.
    """

    def __init__(self, size: int, now_ns: int, seed: int = 1) -> None:
        self.size = size
        self.now_ns = now_ns
        self._seed = seed
        per_class = len(self._shapes)
        self.classes = min(CLASSES_MAX, -(-size // (per_class * TERMS)))
        self._terms = -(-size // (per_class * self.classes))

    @property
    def span_ns(self) -> int:
        """From the first event to the last, about."""
        return self.size * TERM_NS // (self.classes * len(self._shapes))

    @cached_property
    def courses(self) -> tuple[Course, ...]:
        """The courses that the site comes with."""
        return read_courses()

    @cached_property
    def _shapes(self) -> list[_Shape]:
        shapes = []
        for kind, user, ts_ns, props in generate(self.now_ns, self.courses).events:
            head, tail = msgpack.packb(props).split(props["request_id"].encode())
            shapes.append(_Shape(kind, ts_ns, None if user is None else int(user), head, tail))
        return shapes

    @property
    def students(self) -> list[str]:
        """The keys of all students, in classes of thirty."""
        return [key for number in range(self.classes) for key in self.class_of(number)]

    def class_of(self, number: int) -> list[str]:
        """The keys of one class."""
        return [str(student.id + number * len(PEOPLE)) for student in STUDENTS]

    def events(self) -> Iterator[Event]:
        """All of it, in the order of storing."""
        whole = self._terms * self.classes * len(self._shapes)
        return islice(self._from_term(0), whole - self.size, whole)

    def more(self) -> Iterator[Event]:
        """What the same school logs from `now_ns` on, without an end."""
        return self._from_term(self._terms)

    def _from_term(self, first: int) -> Iterator[Event]:
        rng = random.Random(f"{self._seed}:{first}")
        people, classes = len(PEOPLE), range(self.classes)
        # No two classes do the same in the same moment.
        late_ns = [rng.randrange(20 * MINUTE_NS) for _ in classes]
        term = first
        while True:
            since_ns = (term - self._terms + 1) * TERM_NS
            for shape in self._shapes:
                ids = rng.randbytes(REQUEST_ID_BYTES * self.classes).hex().encode()
                for number in classes:
                    user = shape.user
                    yield Event(
                        shape.type,
                        shape.ts_ns + since_ns - late_ns[number],
                        None if user is None else str(user + number * people),
                        shape.head + ids[32 * number : 32 * (number + 1)] + shape.tail,
                    )
            term += 1


def build(
    config: Config,
    history: History,
    tell: Told = lambda _events: None,
    events_per_batch: int = EVENTS_PER_BATCH,
) -> None:
    """Stores the history in an instance that has no database yet. `tell` hears of events stored.

    Raises LogdError kinds.
    """
    store = Store(
        config.database,
        keyfile.read(config.key_file),
        history.now_ns,
        config.quarantine_rows_max,
        config.cache_bytes_max,
    )
    try:
        workers = _Workers(history.now_ns)
        events = history.events()
        while part := list(islice(events, events_per_batch)):
            batch = Batch(events_per_batch, config.batch_bytes_max)
            for event in part:
                producer = workers.next()
                batch.add(producer, producer.taken, event, len(event.props))
            store.commit(batch, part[-1].ts_ns)
            batch.mark_committed()
            tell(len(part))
    finally:
        store.close()


@dataclass(frozen=True)
class Trail:
    """An instance with a history in it. What is measured on it adds to what is stored."""

    instance: Instance
    history: History

    @property
    def size(self) -> str:
        """How the tables name it: 10^5 events."""
        return power(self.history.size)

    @property
    def config(self) -> Config:
        """The instance's configuration."""
        return configuration.load(self.instance.config)


_built: dict[int, Trail] = {}


def building_steps(sizes: tuple[int, ...]) -> int:
    """Steps of the bar that building them takes."""
    return sum(size // EVENTS_PER_STEP for size in sizes)


@contextmanager
def trail(place: Path, size: int, tell: Tell) -> Iterator[Trail]:
    """A trail of that size for the length of a `with`; built in `place` once in this process.

    A later part of the same run gets the one that is there, with what was added to it meanwhile.
    Raises Failed.
    """
    steps = size // EVENTS_PER_STEP
    found = _built.get(size)
    if found is not None and found.instance.config.exists():
        tell(f"{power(size)} events, built", steps)
    else:
        directory = place / f"trail-{size}"
        made = Trail(Instance(directory), History(size, time.time_ns()))
        made.instance.command("init", str(directory))
        _build_and_tell(made, tell)
        found = _built[size] = made
    try:
        yield found
    finally:
        found.instance.__exit__()  # its outboxes; the next daemon makes their directory again


def _build_and_tell(made: Trail, tell: Tell) -> None:
    done = 0

    def count(events: int) -> None:
        nonlocal done
        before = done // EVENTS_PER_STEP
        done += events
        steps = done // EVENTS_PER_STEP - before
        tell(f"building {made.size}", steps)

    try:
        build(made.config, made.history, count)
    except LogdError as error:
        raise Failed(f"a trail of {made.size} events cannot be built: {error}") from error


def power(size: int) -> str:
    """A size as people say it: 10^5, or 200,000."""
    zeros = len(str(size)) - 1
    return f"10^{zeros}" if size == 10**zeros else f"{size:,}"


def suffix(size: int) -> str:
    """A size as the names of figures have it: 1e5."""
    return f"{size:.0e}".replace("e+0", "e").replace("e+", "e")


class _Workers:
    """The web processes, one event each in turn; their ends are in the trail, so none is missed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._count = 0
        self._now: list[Producer] = []

    def next(self) -> Producer:
        """The one whose event is next, with the number of that event taken."""
        if self._count % (WORKERS * EVENTS_PER_WORKER) == 0:
            self._now = [self._new() for _ in range(WORKERS)]
        producer = self._now[self._count % WORKERS]
        self._count += 1
        producer.taken += 1
        return producer

    def _new(self) -> Producer:
        producer_id = self._rng.getrandbits(64)
        seed = producer_seed(producer_id)
        return Producer(uid=UID, id=producer_id, seed=seed, pid=1, ended=True)
