"""Cases about datagrams: one per event, none while the daemon polls; clients without an outbox."""

from __future__ import annotations

import time
from pathlib import Path

from logd.conformance.daemon_double import Datagram, number_of, until
from logd.conformance.scene import PAD_MIN, Scene, expect_exactly_once
from logd.conformance.verdicts import NotTried, expect
from logd.ingest import inotify
from logd.ingest.receiver import queue_length
from logd_wire.outbox.layout import WATCHED_NS_MAX
from logd_wire.rendezvous import TOKEN_NAME, rendezvous_path
from logd_wire.wire import KIND_AWAITED, KIND_EVENTS, KIND_FAREWELL

_QUEUE_MAX = 20_000
_MILLISECOND_NS = 10**6
_TRIES = 200


def sequences(datagrams: list[Datagram]) -> list[int]:
    """Returns the sequences of all records in some datagrams."""
    return [record.sequence for datagram in datagrams for record in datagram.records]


def datagrams(scene: Scene) -> None:
    """Each event is sent once, as the head and the same record as in the ring."""
    box = scene.open_with_outbox()
    found = scene.daemon.datagrams()
    for pad in (0, PAD_MIN, 20_000):
        scene.must_emit(pad)
        found += scene.daemon.datagrams()
    box.read()
    expect(sequences(found) == [1, 2, 3, 4], f"4 events came in datagrams of {sequences(found)}")
    for datagram, record in zip(found, box.records, strict=True):
        expect(datagram.kind == KIND_EVENTS, f"kind {datagram.kind}: expected 0", "Datagram")
        expect(
            datagram.producer_id == box.outbox.producer_id,
            "a datagram names another producer than the outbox",
            "Datagram",
        )
        expect(
            datagram.records[0].payload == record.payload,
            f"record {record.sequence} is another one in the datagram than in the ring",
        )


def watching(scene: Scene) -> None:
    """No datagram is sent while word 18 is in the future; a time too far ahead is ignored."""
    box = scene.open_with_outbox()
    scene.daemon.datagrams()
    for _try in range(10):
        until_ns = time.monotonic_ns() + WATCHED_NS_MAX * 9 // 10
        box.watch(until_ns)
        for _ in range(3):
            scene.must_emit()
        sent = scene.daemon.datagrams()
        if time.monotonic_ns() < until_ns:
            expect(not sent, f"{len(sent)} datagrams came while word 18 was in the future")
            break
    else:
        scene.notes.append("this machine was too busy to check that nothing is sent")
    for what, until_ns in (
        ("0", 0),
        ("in the past", time.monotonic_ns() - _MILLISECOND_NS),
        ("a minute ahead, so of another clock", time.monotonic_ns() + 60 * 10**9),
        ("the highest number of 64 bits", 2**64 - 1),
    ):
        box.watch(until_ns)
        scene.must_emit()
        sent = scene.daemon.datagrams()
        expect(len(sent) == 1, f"word 18 is {what}: {len(sent)} datagrams, expected 1")
    expect_exactly_once(scene.accepted, box.numbers(), "Watching")


def queue_full(scene: Scene) -> None:
    """While the kernel's queue is full, events are accepted, and are not sent again."""
    box = scene.open_with_outbox()
    count = min(queue_length() or 0, _QUEUE_MAX) + 50
    for number in range(count):
        scene.must_emit(why="an event was refused since the daemon's queue was full")
        if number % 100 == 0:
            box.confirm()
    found = sequences(scene.daemon.datagrams())
    if len(found) > count:
        raise NotTried("this kernel's queue takes more datagrams than the case sends")
    for _ in range(5):
        scene.must_emit()
        found += sequences(scene.daemon.datagrams())
    again = len(found) - len(set(found))
    expect(not again, f"{again} events were sent twice")
    expect(found == sorted(found), "a datagram came after a later one: it was sent again")
    tail = list(range(count + 2, count + 7))
    expect(found[-5:] == tail, f"with room in the queue {found[-5:]} came: expected {tail}")
    expect_exactly_once(scene.accepted, box.numbers(), "Writing an event")


def daemon_away(scene: Scene) -> None:
    """When the daemon ends and starts again, no event is refused, and datagrams are sent again."""
    box = scene.open_with_outbox()
    scene.daemon.stop()
    for _ in range(50):
        scene.must_emit(why="an event was refused while the daemon was away")
    scene.daemon.start()

    def arrived() -> list[Datagram]:
        scene.must_emit()
        time.sleep(0.01)  # a client tries to connect at most ten times a second
        return scene.daemon.datagrams()

    until(arrived, "a daemon has bound the socket again, and no datagram came")
    expect(scene.daemon.box() is scene.daemon.boxes()[-1], "the client began another outbox")
    expect_exactly_once(scene.accepted, box.numbers(), "A client with an outbox")


def outbox_later(scene: Scene) -> None:
    """A client that starts before its daemon gets an outbox once the directory exists."""
    scene.open_client()
    scene.need_outbox()
    for _ in range(3):
        scene.emit()
    expect(not scene.accepted, "an event was accepted with neither daemon nor outbox")
    scene.daemon.make_directory()
    scene.daemon.start()

    def has_outbox() -> object:
        scene.emit()
        time.sleep(0.05)
        return scene.daemon.boxes()

    until(has_outbox, "the outboxes' directory is there, and the client still has no outbox")
    box = scene.daemon.box()
    scene.must_emit()
    by_datagram: dict[int, int] = {}
    reported = box.refused()
    for datagram in scene.daemon.datagrams():
        reported += sum(datagram.farewell[1].values()) if datagram.farewell else 0
        for record in datagram.records:
            if datagram.producer_id != box.outbox.producer_id:
                by_datagram[number_of(record.payload)] = record.sequence
    found = [*by_datagram, *box.numbers()]
    expect(
        len(found) == len(set(found)), "an event is in the outbox and was sent without one as well"
    )
    expect(set(box.numbers()) <= set(scene.accepted), "an event that was refused is in the outbox")
    expect(scene.accepted[-1] in box.numbers(), "the last event is not in the outbox")
    expect(
        reported == scene.refused,
        f"{scene.refused} events were refused; words 24 to 29 and farewells count {reported}",
        "Outbox",
    )


def outbox_retries(scene: Scene) -> None:
    """A client without an outbox tries to get one at intervals, and not at each event."""
    daemon = scene.daemon
    daemon.make_directory()
    daemon.start()
    (daemon.directory / TOKEN_NAME).write_text("0" * 32 + "\n")
    fd = scene.watch(scene.directory, inotify.IN_OPEN)
    scene.open_client()
    scene.need_outbox()
    asked, name = 0, Path(rendezvous_path(daemon.socket)).name.encode()
    for _ in range(_TRIES):
        scene.must_emit()
        daemon.datagrams()
        # Notifications are read after each event,
        # since the kernel merges unread ones that are equal.
        asked += any(found == name for _mask, found in inotify.read_events(fd))
    expect(
        asked < _TRIES // 4,
        f"{asked} of {_TRIES} events without an outbox asked for one: at first that is tried again "
        "after 0.5 s",
    )


def no_outbox(scene: Scene) -> None:
    """Without an outbox only events that the kernel took use up a sequence; a farewell names it."""
    scene.daemon.start()
    scene.open_client()
    found: list[Datagram] = []
    for _ in range(20):
        scene.must_emit(why="an event was refused with a daemon there")
        found += scene.daemon.datagrams()
    while scene.emit():
        expect(len(scene.accepted) < 10_000, "the kernel's queue never filled")
    for _ in range(3):
        scene.emit()
    found += scene.daemon.datagrams()
    scene.must_emit(why="the queue has room again, and an event was refused")
    found += scene.daemon.datagrams()
    scene.daemon.stop()
    while scene.emit():
        expect(len(scene.accepted) < 10_000, "an event was accepted with the daemon's socket gone")
    scene.daemon.start()

    def accepted() -> bool:
        time.sleep(0.01)
        return scene.emit()

    until(accepted, "a daemon has bound the socket again, and events are still refused")
    scene.must_emit()
    found += scene.daemon.datagrams()
    _check_stream(scene, found)
    scene.check_counts()
    scene.driver.ask("close")
    _check_farewell(scene, scene.daemon.datagrams())


def _check_stream(scene: Scene, found: list[Datagram]) -> None:
    numbers = sequences(found)
    expect(
        numbers == list(range(1, len(scene.accepted) + 1)),
        f"{len(scene.accepted)} events were accepted, and came with the sequences {numbers[:3]} "
        f"... {numbers[-3:]} ({len(numbers)}): what the kernel refuses uses up no number",
    )
    heard = [number_of(record.payload) for datagram in found for record in datagram.records]
    expect_exactly_once(scene.accepted, heard, "A client without an outbox")
    kinds = {datagram.kind for datagram in found}
    expect(kinds <= {KIND_EVENTS, KIND_AWAITED}, f"events came with kinds {kinds}", "Datagram")


def _check_farewell(scene: Scene, found: list[Datagram]) -> None:
    kinds = [datagram.kind for datagram in found]
    expect(kinds == [KIND_FAREWELL], f"at close datagrams of kinds {kinds} came", "Farewell")
    farewell = found[0].farewell
    assert farewell is not None
    sequence, refused = farewell
    expect(
        sequence == len(scene.accepted),
        f"the farewell names {sequence} as the last event, it was {len(scene.accepted)}",
        "Farewell",
    )
    expect(
        sum(refused.values()) == scene.refused,
        f"the farewell counts {refused}, {scene.refused} events were refused",
        "Farewell",
    )
