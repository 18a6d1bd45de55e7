"""A school's history of any size, as the site would have logged it, in an instance of logd.

The demo's sixty days of one class are generated once and repeated over more classes and terms, each
event with its own request id, so that events have the form and size of those that the site emits.
They are written by the daemon's own store, so hashes, roll-ups and counters are right, and
`logd verify` passes.
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

from benchmarks.harness.part import Advance
from benchmarks.harness.processes import Failed, Instance
from logd.batch import Batch, Producer
from logd.config import settings as configuration
from logd.config.settings import Config
from logd.errors import LogdError
from logd.maintenance.search_index import SearchIndex
from logd.storage import keyfile
from logd.storage.store import Store
from logd_wire.wire import Event, producer_seed
from webapp.classroom.model.content import Course, read_courses
from webapp.demo.history import DAYS, generate
from webapp.demo.school import PEOPLE, STUDENTS

DAY_NS = 86_400 * 10**9
MINUTE_NS = 60 * 10**9
TERM_NS = DAYS * DAY_NS
# Classes of thirty students: a dashboard requests at most 1,000 students at once.
CLASSES_MAX = 33
TERMS = 6  # of sixty days each, about a year; more events need more classes
EVENTS_PER_BATCH = 2000
# How many web processes run at a time, and how many events each logs before it is replaced.
WORKERS = 4
EVENTS_PER_WORKER = 50_000
REQUEST_ID_BYTES = 16
UID = 1000

SIZES = (10**5,)
SIZES_LONG = (10**5, 10**6, 10**7)
EVENTS_PER_STEP = 50_000  # events in a step of the progress bar while a trail is built

Report = Callable[[int], None]


@dataclass(frozen=True)
class _EventTemplate:
    """An event of the demo without its request id, which goes between `head` and `tail`."""

    type: str
    ts_ns: int
    user: int | None
    head: bytes
    tail: bytes


class History:
    """`size` events up to `now_ns`, and the events after them. The same seed gives the same bytes.

    `students` are their users, one class after the other.
    """

    def __init__(self, size: int, now_ns: int, seed: int = 1) -> None:
        self.size = size
        self.now_ns = now_ns
        self._seed = seed
        per_class = len(self._templates)
        self.classes = min(CLASSES_MAX, -(-size // (per_class * TERMS)))
        self._terms = -(-size // (per_class * self.classes))

    @property
    def span_ns(self) -> int:
        """The time from the first event to the last, about."""
        return self.size * TERM_NS // (self.classes * len(self._templates))

    @cached_property
    def courses(self) -> tuple[Course, ...]:
        """The courses of the site."""
        return read_courses()

    @cached_property
    def _templates(self) -> list[_EventTemplate]:
        templates = []
        for kind, user, ts_ns, props in generate(self.now_ns, self.courses).events:
            head, tail = msgpack.packb(props).split(props["request_id"].encode())
            number = None if user is None else int(user)
            templates.append(_EventTemplate(kind, ts_ns, number, head, tail))
        return templates

    @property
    def students(self) -> list[str]:
        """The user keys of all students, in classes of thirty."""
        return [key for number in range(self.classes) for key in self.class_of(number)]

    def class_of(self, number: int) -> list[str]:
        """Return the user keys of one class."""
        return [str(student.id + number * len(PEOPLE)) for student in STUDENTS]

    def events(self) -> Iterator[Event]:
        """Yield all events in the order of storing."""
        whole = self._terms * self.classes * len(self._templates)
        return islice(self._from_term(0), whole - self.size, whole)

    def more(self) -> Iterator[Event]:
        """Yield what the same school logs from `now_ns` on, without end."""
        return self._from_term(self._terms)

    def _from_term(self, first: int) -> Iterator[Event]:
        rng = random.Random(f"{self._seed}:{first}")
        people, classes = len(PEOPLE), range(self.classes)
        # Each class is late by a random time, so that no two do the same thing at the same time.
        late_ns = [rng.randrange(20 * MINUTE_NS) for _ in classes]
        term = first
        while True:
            since_ns = (term - self._terms + 1) * TERM_NS
            for template in self._templates:
                ids = rng.randbytes(REQUEST_ID_BYTES * self.classes).hex().encode()
                for number in classes:
                    user = template.user
                    yield Event(
                        template.type,
                        template.ts_ns + since_ns - late_ns[number],
                        None if user is None else str(user + number * people),
                        template.head + ids[32 * number : 32 * (number + 1)] + template.tail,
                    )
            term += 1


def build(
    config: Config,
    history: History,
    advance: Report = lambda _events: None,
    events_per_batch: int = EVENTS_PER_BATCH,
) -> None:
    """Store the history in an instance without a database. Calls `advance` with events stored.

    Raises a LogdError.
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
            advance(len(part))
        values = SearchIndex(store)
        while values.work():  # a daemon would have read each block soon after it was full
            pass
    finally:
        store.close()


@dataclass(frozen=True)
class Trail:
    """An instance that holds a history. Measurements add events to it."""

    instance: Instance
    history: History

    @property
    def size(self) -> str:
        """The size as tables name it: 10^5."""
        return size_label(self.history.size)

    @property
    def config(self) -> Config:
        """Load the instance's configuration."""
        return configuration.load(self.instance.config)


_built: dict[int, Trail] = {}


def building_steps(sizes: tuple[int, ...]) -> int:
    """Return the steps of the progress bar that building takes."""
    return sum(size // EVENTS_PER_STEP for size in sizes)


@contextmanager
def trail(place: Path, size: int, advance: Advance) -> Iterator[Trail]:
    """Provide a trail of that size for the length of a `with`, built in `place` once per process.

    A later part of the same run gets the same trail, with the events added to it meanwhile.
    Raises Failed.
    """
    steps = size // EVENTS_PER_STEP
    found = _built.get(size)
    if found is not None and found.instance.config.exists():
        advance(f"{size_label(size)} events, built", steps)
    else:
        directory = place / f"trail-{size}"
        made = Trail(Instance(directory), History(size, time.time_ns()))
        made.instance.command("init", str(directory))
        _build_with_progress(made, advance)
        found = _built[size] = made
    try:
        yield found
    finally:
        found.instance.remove_outboxes()


def _build_with_progress(made: Trail, advance: Advance) -> None:
    done = 0

    def count(events: int) -> None:
        nonlocal done
        before = done // EVENTS_PER_STEP
        done += events
        steps = done // EVENTS_PER_STEP - before
        advance(f"building {made.size}", steps)

    try:
        build(made.config, made.history, count)
    except LogdError as error:
        raise Failed(f"a trail of {made.size} events cannot be built: {error}") from error


def size_label(size: int) -> str:
    """Return a size as text: 10^5, or 200,000."""
    zeros = len(str(size)) - 1
    return f"10^{zeros}" if size == 10**zeros else f"{size:,}"


def size_suffix(size: int) -> str:
    """Return a size as it is in names of figures: 1e5."""
    return f"{size:.0e}".replace("e+0", "e").replace("e+", "e")


class _Workers:
    """The web processes, one event each in turn. All have ended, so none counts as lost."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._count = 0
        self._now: list[Producer] = []

    def next(self) -> Producer:
        """Return the producer of the next event, with its sequence number advanced."""
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
