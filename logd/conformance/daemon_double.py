"""A test double of the daemon, which acts only when a case calls it, so that each state is exact.

It creates the outboxes' directory, binds the socket and reads what arrives, with logd's own code.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from logd.conformance.verdicts import FOLLOWING, Failed, expect
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.receiver import Receiver, bind
from logd_wire import liveness
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    REFUSAL_CAUSES,
    WORD_CONFIRMED_SEQUENCE,
    WORD_FAREWELL,
    WORD_REFUSED,
    WORD_RETIRED,
    WORD_WATCHED_UNTIL_NS,
    WORD_WRITTEN,
)
from logd_wire.outbox.reader import read_records
from logd_wire.rendezvous import default_directory, rendezvous_path
from logd_wire.schema import Malformed
from logd_wire.wire import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_HEAD,
    KIND_FAREWELL,
    Event,
    WireError,
    decode_farewell,
    decode_head,
    decode_record,
    producer_seed,
    unpack_payload,
    unpack_props,
)

DEADLINE_S = 10.0
_LOOK_INTERVAL_S = 0.001
_WORD = struct.Struct("=Q")
_WORDS = struct.Struct("=QQ")
T = TypeVar("T")


def until(
    check: Callable[[], T], message: str, page: str | None = None, deadline_s: float = DEADLINE_S
) -> T:
    """Polls until `check` returns something true, and returns it. Raises Failed at the deadline."""
    end_s = time.monotonic() + deadline_s
    while not (found := check()):
        if time.monotonic() > end_s:
            raise Failed(f"{message}, within {deadline_s:.0f} s", page)
        time.sleep(_LOOK_INTERVAL_S)
    return found


def event_of(payload: bytes) -> Event:
    """Decodes the event in a payload. Raises Failed if a daemon would quarantine it."""
    try:
        return unpack_payload(payload)
    except Malformed as error:
        raise Failed(
            f"the client accepted an event that breaks the schema: {error}", "Payload"
        ) from None


def number_of(payload: bytes) -> int:
    """Returns the property `n` of an event, which identifies the event to its case."""
    number = unpack_props(event_of(payload).props).get("n")
    expect(type(number) is int, f"props have {number!r} as `n`: expected a whole number", "Payload")
    return int(number)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its sequence, its payload and, if read from a ring, the position after it."""

    sequence: int
    payload: bytes
    end: int = 0


@dataclass(frozen=True, slots=True)
class Datagram:
    """A decoded datagram. A farewell has the last sequence and the refusals, and no records."""

    kind: int
    producer_id: int
    records: list[Record]
    pid: int
    farewell: tuple[int, dict[str, int]] | None = None


def parse_datagram(data: bytes, pid: int) -> Datagram:
    """Decodes a datagram as a daemon does. Raises Failed if the daemon would refuse it."""
    length = f"a datagram of {len(data)} bytes: the limit is {DATAGRAM_BYTES_MAX}"
    expect(len(data) <= DATAGRAM_BYTES_MAX, length, "Limits")
    try:
        kind, producer_id = decode_head(data)
        seed = producer_seed(producer_id)
        if kind == KIND_FAREWELL:
            return Datagram(kind, producer_id, [], pid, decode_farewell(data, seed))
        records, offset = [], DATAGRAM_HEAD.size
        expect(offset < len(data), "a datagram without a record", "Datagram")
        while offset < len(data):
            sequence, payload, offset = decode_record(data, offset, seed)
            records.append(Record(sequence, payload))
    except WireError as error:
        raise Failed(f"the daemon refuses a datagram: {error}", "Datagram") from None
    return Datagram(kind, producer_id, records, pid)


@dataclass(eq=False)
class Box:
    """A client's outbox, held open and read as a daemon reads it."""

    outbox: OpenOutbox
    path: Path
    position: int = 0  # position of the next record
    records: list[Record] = field(default_factory=list)  # all records that were read so far

    def word(self, index: int) -> int:
        """Returns the value of one of the header's words."""
        return int(_WORD.unpack(os.pread(self.outbox.fd, 8, index * 8))[0])

    def set_word(self, index: int, value: int) -> None:
        """Writes one of the header's words that are the daemon's."""
        os.pwrite(self.outbox.fd, _WORD.pack(value), index * 8)

    def read(self) -> list[Record]:
        """Reads the records written since the last call, and returns them."""
        before = len(self.records)
        try:
            header = self.outbox.refresh()
        except WireError as error:
            raise Failed(f"the daemon refuses the outbox: {error}", "Outbox") from None
        seed, after = producer_seed(self.outbox.producer_id), before
        while after < header.written:
            page = read_records(
                self.outbox.read_at, header.ring_bytes, seed, self.position, after, after + 1, 1
            )
            if page.damage is not None:
                raise Failed(
                    f"word 8 counts {header.written} records, but number {after + 1} at position "
                    f"{self.position} does not read: {page.damage}",
                    "Record",
                )
            after, self.position = after + 1, page.position
            self.records.append(Record(after, page.payloads[0], self.position))
        return self.records[before:]

    def numbers(self) -> list[int]:
        """Returns the numbers of all events that were written to this outbox."""
        self.read()
        return [number_of(record.payload) for record in self.records]

    def confirm(self, sequence: int | None = None) -> None:
        """Confirms all events up to that sequence, by default all that are written."""
        self.read()
        records = self.records[:sequence]
        if records:
            words = _WORDS.pack(records[-1].sequence, records[-1].end)
            os.pwrite(self.outbox.fd, words, WORD_CONFIRMED_SEQUENCE * 8)

    def watch(self, until_ns: int) -> None:
        """Suppresses wake-ups until `until_ns`, on the monotonic clock."""
        self.set_word(WORD_WATCHED_UNTIL_NS, until_ns)

    def retire(self) -> None:
        """Retires the producer, as a daemon does once everything written is confirmed."""
        self.confirm()
        self.watch(0)
        self.set_word(WORD_RETIRED, 1)
        expect(self.word(WORD_WRITTEN) == len(self.records), "written to between two commands")
        self.unlink()

    def unlink(self) -> None:
        """Removes the outbox's file, as the daemon does, or a program that cleans up."""
        expect(self.path.exists(), "the client removed its outbox: only the daemon does", "Ending")
        self.path.unlink()

    @property
    def holder(self) -> int | None:
        """The pid of the process that holds the outbox's lock; None if there is none."""
        return liveness.lock_holder(self.outbox.fd)

    def refused(self) -> int:
        """Returns the number of events that the producer counts as refused, for any cause."""
        return sum(self.word(WORD_REFUSED + index) for index in range(len(REFUSAL_CAUSES)))

    @property
    def has_farewell(self) -> bool:
        """Whether word 9 announces the producer's end."""
        return self.word(WORD_FAREWELL) == 1

    @property
    def ring_bytes(self) -> int:
        """The size of the ring."""
        return self.outbox.header.ring_bytes

    def header(self) -> bytes:
        """Returns the header page."""
        return os.pread(self.outbox.fd, HEADER_BYTES, 0)


class DaemonDouble:
    """A stand-in for the daemon on one socket; `start` and `stop` simulate its start and kill."""

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "logd.sock")
        self._outboxes = OutboxDirectory(Path(default_directory(self.socket)))
        self._receiver: Receiver | None = None
        self._boxes: dict[str, Box] = {}

    @property
    def directory(self) -> Path:
        """The directory of the outboxes."""
        return self._outboxes.path

    def make_directory(self) -> None:
        """Creates the outboxes' directory with its token, and the rendezvous file."""
        self._outboxes.prepare(self.socket)

    def start(self) -> None:
        """Binds the socket, and removes a stale one before."""
        self._receiver = Receiver(bind(Path(self.socket), socket.SOCK_DGRAM, 0o660))

    def stop(self) -> None:
        """Closes the socket and leaves its file, as a kill does; queued datagrams are lost."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    def datagrams(self) -> list[Datagram]:
        """Returns the decoded datagrams that have arrived since the last call."""
        assert self._receiver is not None
        return [parse_datagram(data, pid) for data, _uid, pid, _cut in self._receiver.datagrams()]

    def boxes(self) -> list[Box]:
        """Opens new outboxes; returns all so far, oldest first, including removed ones."""
        new = []
        for name, uid, producer_id in self._outboxes.names():
            if name in self._boxes:
                continue
            try:
                opened = self._outboxes.open(name, uid, producer_id)
            except WireError as error:
                raise Failed(f"the daemon refuses the outbox {name}: {error}", "Outbox") from None
            if opened is not None:
                new.append(Box(opened, self.directory / name))
        new.sort(key=lambda box: box.outbox.header.created_ns)
        self._boxes.update((box.path.name, box) for box in new)
        return list(self._boxes.values())

    def box(self, number: int = 1) -> Box:
        """Waits until the client has made its `number`-th outbox, and returns it."""
        return until(
            lambda: self.boxes()[number - 1 :],
            "the client has no outbox" if number == 1 else "the client has no further outbox",
            "Creating" if number == 1 else FOLLOWING,
        )[0]

    def files(self) -> list[str]:
        """Returns the names of the files in the outboxes' directory, without the token."""
        return sorted(entry.name for entry in self.directory.iterdir() if entry.name != "token")

    def close(self) -> None:
        """Closes all descriptors, and removes the outboxes' directory."""
        self.stop()
        for box in self._boxes.values():
            os.close(box.outbox.fd)
        self._outboxes.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        Path(rendezvous_path(self.socket)).unlink(missing_ok=True)
