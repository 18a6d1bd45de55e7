"""The surroundings of one case: a socket, a daemon double, the driver, and counts of events."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from logd.conformance.daemon_double import Box, DaemonDouble
from logd.conformance.driver import Driver
from logd.conformance.driver_protocol import hexadecimal
from logd.conformance.verdicts import Failed, NotTried, expect
from logd.ingest import inotify
from logd_wire.outbox.layout import RING_BYTES_MIN

_IN_MEMORY = "/dev/shm"  # noqa: S108 - memory is the point
TYPE = "conformance_tried"
USER = "7"
# Numbers of events have five packed bytes each,
# so that records with the same padding are equally long.
FIRST_NUMBER = 100_000
# Between these paddings, a record's length is its padding plus a constant.
PAD_MIN = 300
PAD_MAX = 30_000


def temporary_directory() -> Path:
    """Creates a directory in memory, with a short path."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="logd-conformance-", dir=parent))


class Scene:
    """The surroundings that a case uses. `close` closes and removes them."""

    def __init__(
        self, command: Sequence[str], rounds: int, progress: Callable[[str], None]
    ) -> None:
        self.command = command
        self.rounds = rounds
        self.progress = progress
        self.notes: list[str] = []
        self.accepted: list[int] = []
        self.refused = 0
        self.directory = temporary_directory()
        self._cleanup = contextlib.ExitStack()
        self._cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._errors: IO[bytes] = self._cleanup.enter_context(
            tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 - closed with the rest
        )
        self.daemon = DaemonDouble(self.directory)
        self._cleanup.callback(self.daemon.close)
        self._next_number = FIRST_NUMBER

    def close(self) -> None:
        """Ends the driver and removes the files of the case."""
        self._cleanup.close()

    # -- the client --------------------------------------------------------------------------------

    def start_driver(self) -> Driver:
        """Starts a new process of the driver, without a client."""
        self.driver = Driver(self.command, self._errors)
        self._cleanup.callback(self.driver.close)
        return self.driver

    def open_client(self, ring_bytes: int = RING_BYTES_MIN) -> Driver:
        """Starts a new process of the driver, with a client of this scene's socket."""
        driver = self.start_driver()
        driver.ask(f"open {self.daemon.socket} {ring_bytes}")
        return driver

    def reopen_client(self, ring_bytes: int = RING_BYTES_MIN) -> None:
        """Closes the client and opens another one in the same process."""
        self.driver.ask("close")
        self.driver.ask(f"open {self.daemon.socket} {ring_bytes}")

    def open_with_outbox(self, ring_bytes: int = RING_BYTES_MIN) -> Box:
        """Starts the double and a client with an outbox, whose first event is accepted."""
        self.daemon.make_directory()
        self.daemon.start()
        self.open_client(ring_bytes)
        self.need_outbox()
        expect(self.emit(), "the first event was refused", "A client with an outbox")
        return self.daemon.box()

    def open_with_any(self) -> Box | None:
        """Opens a client; returns its outbox, or None for a client that never has one."""
        try:
            return self.open_with_outbox()
        except NotTried:
            expect(self.emit(), "the first event was refused", "A client without an outbox")
            self.daemon.datagrams()
            return None

    def watch(self, directory: Path, mask: int) -> int:
        """Returns an inotify descriptor for a directory, to be read with `logd.ingest.inotify`."""
        try:
            fd = inotify.watch(directory, mask)
        except OSError as error:
            raise NotTried(f"inotify: {error.strerror}") from None
        self._cleanup.callback(os.close, fd)
        return fd

    def need_outbox(self) -> None:
        """Raises NotTried if the client never has an outbox."""
        try:
            self.driver.ask("outbox")
        except NotTried:
            raise NotTried("a client without an outbox") from None

    def number(self) -> int:
        """Returns the next event's number."""
        self._next_number += 1
        return self._next_number

    def emit(self, pad: int = 0, event_type: str = TYPE) -> bool:
        """Emits one event; returns whether it was accepted."""
        number = self.number()
        return self.count(
            number, self.driver.ask(f"emit {event_type} {USER} {number} {pad}") == "accepted"
        )

    def count(self, number: int, accepted: bool) -> bool:
        """Counts the event with the given number as accepted or refused."""
        if accepted:
            self.accepted.append(number)
        else:
            self.refused += 1
        return accepted

    def must_emit(self, pad: int = 0, why: str = "an event was refused") -> int:
        """Emits one event that must be accepted; returns its number."""
        expect(self.emit(pad), why)
        return self.accepted[-1]

    def event(self, event_type: bytes, user: bytes | None, props: bytes) -> bool:
        """Emits an event of the given bytes; returns whether it was accepted. Raises NotTried."""
        words = (hexadecimal(event_type), hexadecimal(user), hexadecimal(props))
        return self.driver.ask(f"event {' '.join(words)}") == "accepted"

    def check_counts(self) -> None:
        """Raises Failed if the client's own counts, if it has any, differ from its answers."""
        try:
            words = self.driver.ask("stats").split()
        except NotTried:
            return
        attempted, accepted, refused = map(int, words)
        page = "Conformance"
        expect(
            attempted == accepted + refused,
            f"the client counts {attempted} attempted, but {accepted} accepted + {refused} refused",
            page,
        )
        expect(
            (accepted, refused) == (len(self.accepted), self.refused),
            f"the client counts {accepted} accepted and {refused} refused, but answered "
            f"{len(self.accepted)} and {self.refused}",
            page,
        )

    # -- the ring ----------------------------------------------------------------------------------

    def record_overhead(self, box: Box) -> int:
        """Returns a record's bytes less its padding, for paddings from PAD_MIN to PAD_MAX."""
        self.must_emit(PAD_MIN)
        box.read()
        return 16 + len(box.records[-1].payload) - PAD_MIN

    def fill_to(self, box: Box, position: int, overhead: int) -> None:
        """Emits events until the next record would begin at that position; all must be accepted."""
        while (left := position - box.position) > 0:
            if left <= PAD_MAX + overhead:
                pad = left - overhead
            else:
                pad = min(PAD_MAX, (left - overhead) // 2)
            if pad < PAD_MIN:
                raise AssertionError(f"no record is as short as {left} bytes")
            self.must_emit(pad, f"an event was refused with {left} bytes of room left")
            box.read()


@contextlib.contextmanager
def scene(command: Sequence[str], rounds: int, progress: Callable[[str], None]) -> Iterator[Scene]:
    """Creates a scene for a `with` block, and closes it at the end."""
    made = Scene(command, rounds, progress)
    try:
        yield made
    finally:
        made.close()


def missing_and_twice(expected: Sequence[int], found: Sequence[int]) -> str:
    """Returns which events are missing or were found twice; an empty text if none."""
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    twice = len(found) - len(set(found))
    problems = []
    if missing:
        problems.append(f"{len(missing)} accepted events are missing (the first is {missing[0]})")
    if twice:
        problems.append(f"{twice} events are there twice")
    if extra:
        problems.append(f"{len(extra)} events are there that were not accepted")
    return "; ".join(problems)


def expect_exactly_once(expected: Sequence[int], found: Sequence[int], page: str) -> None:
    """Raises Failed unless every accepted event was found once, and no other."""
    problem = missing_and_twice(expected, found)
    if problem:
        raise Failed(f"of {len(expected)} accepted events: {problem}", page)
