"""The Python client's driver with a fault in it, named by its argument."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any
from zlib import crc32

import logd_client.client
import logd_client.clock
import logd_client.environment
import logd_client.outbox_file
import logd_client.producer
import logd_client.succession
from logd.conformance.verdicts import FOLLOWING, FORKS
from logd_client import Client, conformance_driver
from logd_client.descriptors import Identity
from logd_client.durable import UnresolvedEvents
from logd_client.former_producers import Former
from logd_client.outbox_file import OutboxFile
from logd_client.producer import Producer
from logd_client.session import ProducerSession
from logd_client.tracker import DurableTracker
from logd_wire import forks, liveness
from logd_wire.outbox import writer
from logd_wire.outbox.layout import WORD_CONFIRMED_POSITION
from logd_wire.outbox.writer import OutboxWriter

Patch = Callable[[], None]


def put(owner: Any, name: str, value: Any) -> None:
    """Puts a faulty part in the place of a good one."""
    assert hasattr(owner, name)
    setattr(owner, name, value)


def wrong_crc_seed() -> None:
    put(writer, "producer_seed", lambda number: crc32(number.to_bytes(8, "big")))


def lock_by_flock() -> None:
    def hold(fd: int, mark: forks.Mark = (1,)) -> bool:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return True

    put(liveness, "acquire", hold)


def lock_of_the_open_file() -> None:
    def hold(fd: int, mark: forks.Mark = (1,)) -> bool:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(fd, 37, asked)  # F_OFD_SETLK, <linux/fcntl.h>
        return True

    put(liveness, "acquire", hold)


def sparse_file() -> None:
    put(os, "posix_fallocate", lambda fd, _offset, length: os.ftruncate(fd, length))


def mode_by_umask() -> None:
    put(os, "fchmod", lambda _fd, _mode: None)


def full_ring_off_by_one() -> None:
    reclaim = OutboxWriter._reclaim

    def off_by_one(self: OutboxWriter, position: int, position_next: int) -> bool:
        return reclaim(self, position, position_next) or position_next <= self._position_max + 8

    put(OutboxWriter, "_reclaim", off_by_one)


def believes_any_position() -> None:
    def believe(self: OutboxWriter, _position: int, position_next: int) -> bool:
        confirmed = int(self._words[WORD_CONFIRMED_POSITION])
        return position_next <= confirmed + self._ring_bytes

    put(OutboxWriter, "_reclaim", believe)


def sends_while_watched() -> None:
    put(OutboxWriter, "suppresses_wakeups", lambda _self, _now_ns: False)


def believes_any_promise() -> None:
    def suppresses_wakeups(self: OutboxWriter, now_ns: int) -> bool:
        return bool(now_ns < self._words[18])

    put(OutboxWriter, "suppresses_wakeups", suppresses_wakeups)


def sends_again_after_eagain() -> None:
    send = Producer.send
    refused: list[bytes] = []

    def send_again(self: Producer, datagram: bytes) -> bool:
        if refused and send(self, refused[0]):
            del refused[0]
        if send(self, datagram):
            return True
        refused.append(datagram)
        return False

    put(Producer, "send", send_again)


def ignores_a_lost_outbox() -> None:
    for word in ("retired", "left_by_daemon"):
        put(OutboxWriter, word, property(lambda _self: False))
    put(Identity, "matches", lambda _self, _fd: True)
    put(OutboxFile, "removed", lambda _self: False)


def forgets_the_event_behind_the_last_look() -> None:
    put(Former, "unread", lambda _self: None)


def child_continues_its_parents_producer() -> None:
    class Nothing(weakref.WeakSet[Any]):
        def add(self, item: Any) -> None:
            """Keeps the client from the hooks at the end of the process."""

    put(logd_client.client, "_clients", Nothing())
    put(forks, "_new_mark", lambda: bytearray(b"\1"))
    put(forks, "_current", forks.Generation())


def removes_its_outbox() -> None:
    close = OutboxFile.close

    def close_and_remove(self: OutboxFile) -> None:
        self._path.unlink(missing_ok=True)
        close(self)

    put(OutboxFile, "close", close_and_remove)


def numbers_what_the_kernel_refused() -> None:
    send = Producer.send

    def use_up(self: Producer, datagram: bytes) -> bool:
        sent = send(self, datagram)
        if not sent and self.outbox is None:
            self.sequence_sent += 1
        return sent

    put(Producer, "send", use_up)
    only = ProducerSession._send_only

    def send_only(self: ProducerSession, producer: Producer, payload: bytes, awaited: bool) -> int:
        sequence = only(self, producer, payload, awaited)
        if not sequence:
            producer.sequence_sent += 1
        return sequence

    put(ProducerSession, "_send_only", send_only)


def unknown_without_a_note() -> None:
    def nothing(_self: DurableTracker, event: Any) -> None:
        event.unknown_recorded = True

    put(DurableTracker, "_record_unknown", nothing)


def makes_outboxes_however_many_are_refused() -> None:
    put(logd_client.succession, "REFUSED_OUTBOXES_MAX", 10**9)


def makes_it_under_another_name() -> None:
    put(logd_client.outbox_file, "TEMPORARY_PREFIX", "new-")


def asks_for_an_outbox_at_each_event() -> None:
    put(logd_client.producer, "OUTBOX_RETRY_FIRST_S", 0.0)


def says_no_farewell_for_what_it_left() -> None:
    put(Producer, "send_farewell", lambda _self, _refused: True)


def writes_again_though_more_is_unread() -> None:
    append = OutboxWriter.append
    last: dict[OutboxWriter, bytes] = {}

    def keep(self: OutboxWriter, payload: bytes) -> bytes | None:
        last[self] = payload
        return append(self, payload)

    put(OutboxWriter, "append", keep)
    put(OutboxWriter, "only_unconfirmed", lambda self: last.get(self))


def ignores_other_links() -> None:
    put(Identity, "matches", lambda self, fd: self.names(os.fstat(fd)))


def ignores_what_a_descriptor_names() -> None:
    put(Identity, "matches", lambda _self, fd: os.fstat(fd).st_nlink > 0)


def never_settles() -> None:
    put(UnresolvedEvents, "next_note", lambda _self: None)


def takes_seconds_for_nanoseconds() -> None:
    clock = logd_client.clock.SYSTEM_CLOCK._replace(time_ns=lambda: int(time.time()))
    environment = logd_client.environment.Environment(clock=clock)
    put(conformance_driver, "Client", partial(Client, environment=environment))


def waits_for_room() -> None:
    reclaim = OutboxWriter._reclaim

    def wait(self: OutboxWriter, position: int, position_next: int) -> bool:
        there = reclaim(self, position, position_next)
        if not there:
            time.sleep(0.5)
        return there

    put(OutboxWriter, "_reclaim", wait)


# Each fault, the case that finds it, and the part of the page that the case names.
FAULTS: list[tuple[Patch, str, str]] = [
    (wrong_crc_seed, "records", "Record"),
    (lock_by_flock, "creating", "The lock"),
    (lock_of_the_open_file, "creating", "The lock"),
    (sparse_file, "creating", "Outbox"),
    (mode_by_umask, "creating", "Creating"),
    (full_ring_off_by_one, "full", "Writing an event"),
    (believes_any_position, "full", "Writing an event"),
    (sends_while_watched, "watching", "Watching"),
    (believes_any_promise, "watching", "Watching"),
    (sends_again_after_eagain, "queue-full", "Writing an event"),
    (ignores_a_lost_outbox, "retired", FOLLOWING),
    (forgets_the_event_behind_the_last_look, "retired", FOLLOWING),
    (ignores_a_lost_outbox, "lock-lost", FOLLOWING),
    (child_continues_its_parents_producer, "forks", FORKS),
    (removes_its_outbox, "ending", "Ending"),
    (numbers_what_the_kernel_refused, "no-outbox", "A client without an outbox"),
    (unknown_without_a_note, "durable-unknown", "Durable events"),
    (never_settles, "durable-unknown", "Durable events"),
    (makes_outboxes_however_many_are_refused, "given-up-each-time", FOLLOWING),
    (makes_it_under_another_name, "taking-its-name", "Creating"),
    (asks_for_an_outbox_at_each_event, "outbox-retries", "Rendezvous"),
    (says_no_farewell_for_what_it_left, "removed-unread", FOLLOWING),
    (writes_again_though_more_is_unread, "retired-with-more", FOLLOWING),
    (ignores_other_links, "linked", FOLLOWING),
    (ignores_what_a_descriptor_names, "descriptors-closed", FOLLOWING),
    (takes_seconds_for_nanoseconds, "records", "Payload"),
    (waits_for_room, "full", "Writing an event"),
]

if __name__ == "__main__":
    {patch.__name__: patch for patch, _case, _page in FAULTS}[sys.argv[1]]()
    conformance_driver.main()
