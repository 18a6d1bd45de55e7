"""Simulated web processes: what each was told about its events, and what its client counts."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from logd_wire.outbox.layout import (
    RING_BYTES_MIN,
    WORD_RETIRED,
    WORD_WRITTEN,
)
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.schema import Malformed
from logd_wire.wire import (
    unpack_payload,
    unpack_props,
)
from tests.simulation.truth import Violation
from tests.simulation.world import Process
from tests.support import client_parts as parts

if TYPE_CHECKING:
    from tests.simulation.client import SimClient
    from tests.simulation.outbox_file import SimOutboxFile


class SimMark:
    """A page that the kernel wipes in a child: true for the process that made it alone."""

    def __init__(self, owner: Web, asker: Web) -> None:
        self._owner = owner
        self._asker = asker

    def __getitem__(self, _index: int) -> int:
        return int(self._owner is self._asker)

    def inherited_by(self, child: Web) -> SimMark:
        """The same page as that child sees it."""
        return SimMark(self._owner, child)


class SimGeneration:
    """`logd_wire.forks.Generation` of a simulated process."""

    def __init__(self, process: Web) -> None:
        self.mark = SimMark(process, process)
        self.lock = threading.RLock()
        self.busy = False


@dataclass(eq=False)
class Web(Process):
    """A web process with one client."""

    outbox_bytes: int = RING_BYTES_MIN
    has_memory: bool = True  # else it has no outbox, as a container with its own /dev/shm
    went_without: bool = False
    appending: bytes = b""  # the payload that the next store counts
    writer_type: type[OutboxWriter] = OutboxWriter
    client: SimClient = field(init=False)
    accepted: int = 0
    writing_to: SimOutboxFile | None = None
    heard: list[bytes] = field(default_factory=list)  # payloads accepted in the present call
    timeouts: int = 0  # ordinary exceptions that signal handlers raised in it
    timeouts_in_all: int = 0
    true: int = 0
    false: int = 0
    cut: int = 0
    sends: int = 0

    @functools.cached_property
    def generation(self) -> SimGeneration:
        """What distinguishes this process from its parent."""
        return SimGeneration(self)

    def call(self, emit: Callable[[], bool]) -> bool:
        """One call of the client's, counted; a kill or a signal handler may cut it short."""
        truth = self.world.truth
        truth.calls += 1
        self.cut += 1
        truth.cut += 1
        self.heard.clear()
        self.writing_to = None
        self.timeouts = 0
        try:
            accepted = emit()
        except BaseException:
            self.excuse_unheard()
            raise
        self.cut -= 1
        truth.cut -= 1
        if accepted:
            if self.went_without and self.timeouts:
                truth.perhaps_unsent += 1
            self.true += 1
            truth.true += 1
        else:
            self.false += 1
            truth.false += 1
        return accepted

    def excuse_unheard(self) -> None:
        """Excuses the event of a call that is cut short, if its outbox is marked as retired.

        The same call would have written the event again elsewhere, before it returned. The daemon
        may be about to remove the file, or may still read the event in it.
        """
        outbox = self.writing_to
        if outbox is not None and outbox.file.word(WORD_RETIRED):
            self.world.truth.excused.add((outbox.file.key, outbox.file.word(WORD_WRITTEN)))
            self.world.truth.unmoved += 1

    def close_descriptors(self) -> None:
        """All that the application finds open, ours among them; the mapping stays."""
        self.world.trace.append((self.name, "DESCRIPTORS CLOSED"))
        producer = parts.current(self.client)
        outbox: Any = producer.outbox if producer is not None else None
        if outbox is not None:
            outbox.closed = True
            outbox.release_descriptor()

    def check_claim(self, number: int, claim: str) -> None:
        """Check that the event of that number, which the call accepted, really was.

        Without an outbox its number may be used up and the send cut short: then it is lost by
        number, and counts as accepted all the same.
        """
        if number not in map(_number, self.heard) and not (self.went_without and self.timeouts):
            raise Violation(f"{self.name}: event {number} was called {claim} and never was")

    def check_stats(self) -> None:
        """Check that the client's counts agree with its answers, and with what happened."""
        stats = self.client.stats()
        del stats["outbox"]  # its times are real ones, and no two runs have the same
        # Without an outbox a number is used up before the kernel takes it; a call that is cut short
        # in between is a loss by number.
        unsent = self.cut + self.timeouts_in_all if self.went_without else 0
        if not self.accepted <= stats["accepted"] <= self.accepted + unsent:
            raise Violation(f"{self.name}: {self.accepted} were accepted, stats say {stats}")
        if stats["attempted"] != stats["accepted"] + stats["refused"]:
            raise Violation(f"{self.name}: attempted is not accepted + refused: {stats}")
        if stats["accepted"] < self.true or stats["refused"] < self.false:
            raise Violation(f"{self.name}: true {self.true}, false {self.false}, stats {stats}")


def _number(payload: bytes) -> object:
    """The number that the run gave an event."""
    try:
        return unpack_props(unpack_payload(payload).props).get("n")
    except Malformed:
        return None
