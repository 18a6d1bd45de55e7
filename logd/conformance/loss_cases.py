"""Cases about outboxes that a client loses, and about the events in them."""

from __future__ import annotations

import errno
import os
import time

from logd.conformance.daemon_double import Box, Datagram, until
from logd.conformance.life_cases import descriptors, lose_descriptors
from logd.conformance.scene import Scene, expect_exactly_once
from logd.conformance.verdicts import FOLLOWING, NotTried, expect
from logd_wire.outbox.layout import WORD_GIVEN_UP, WORD_RETIRED
from logd_wire.wire import KIND_FAREWELL

# Seconds in which a client checks its former outboxes, which it does ten times a second.
_LOOKS_S = 0.4
_GIVEN_UP_MAX = 3


def _until_followed(scene: Scene, box: Box, what: str) -> Box:
    """Emits until the client has an outbox other than `box`; every event must be accepted."""

    def successor() -> list[Box]:
        scene.must_emit(why=f"an event was refused after {what}")
        return [other for other in scene.daemon.boxes() if other is not box][-1:]

    return until(successor, f"{what}, and the client does not follow", FOLLOWING)[0]


def _emit_for_some_looks(scene: Scene) -> list[Datagram]:
    """Emits for _LOOKS_S seconds; reads all datagrams, since the kernel's queue is short."""
    found: list[Datagram] = []
    end_s = time.monotonic() + _LOOKS_S
    while time.monotonic() < end_s:
        scene.must_emit()
        found += scene.daemon.datagrams()
        time.sleep(0.01)
    return found


def descriptors_closed(scene: Scene) -> None:
    """If the application closes every descriptor, the client notices without a daemon."""
    box = scene.open_with_outbox()
    decoy, pid, opened = lose_descriptors(scene, box)
    successor = _until_followed(scene, box, "the outbox's descriptor names another file")
    scene.driver.expect_holder(successor.holder, "the outbox that follows")
    left = descriptors(pid, decoy)
    expect(left == opened, f"{opened - left} descriptors of the application's were closed")
    expect(not decoy.read_bytes(), "a file of the application's was written to")
    expect_exactly_once(scene.accepted, box.numbers() + successor.numbers(), FOLLOWING)


def linked(scene: Scene) -> None:
    """If a program links to the outbox, no daemon reads it: the client makes another."""
    box = scene.open_with_outbox()
    try:
        os.link(box.path, scene.directory / "link")
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM):
            raise
        raise NotTried("the outboxes are on another file system than the case") from None
    successor = _until_followed(scene, box, "the outbox has two names (st_nlink is 2)")
    (scene.directory / "link").unlink()
    expect_exactly_once(scene.accepted, box.numbers() + successor.numbers(), FOLLOWING)
    scene.check_counts()


def removed_full(scene: Scene) -> None:
    """The client notices that a full outbox was removed while wake-ups are suppressed."""
    box = scene.open_with_outbox()
    overhead = scene.record_overhead(box)
    box.watch(time.monotonic_ns() + 900_000_000)
    scene.fill_to(box, box.ring_bytes, overhead)
    box.watch(0)
    if len(scene.daemon.boxes()) > 1:
        scene.notes.append("the client continued in another outbox before the ring was full")
    box.unlink()
    for _ in range(3):
        scene.must_emit(why="the full outbox has no name any more, and an event was refused")
    found = [number for other in scene.daemon.boxes() for number in other.numbers()]
    expect_exactly_once(scene.accepted, found, FOLLOWING)


def removed_unread(scene: Scene) -> None:
    """After an unread outbox is removed, one farewell has its last sequence and refusals."""
    box = scene.open_with_outbox()
    scene.emit(200_000)  # too large, so it is refused as malformed
    for _ in range(2):
        scene.must_emit()
    scene.daemon.datagrams()
    box.unlink()
    successor = _until_followed(scene, box, "the outbox has no name any more")
    _expect_one_farewell(box, scene.daemon.datagrams() + _emit_for_some_looks(scene))
    expect_exactly_once(scene.accepted, box.numbers() + successor.numbers(), FOLLOWING)
    expect(
        successor.refused() == 0,
        f"the outbox that follows counts {successor.refused()} refusals: the one before has "
        "reported them",
        "A client with an outbox",
    )


def _expect_one_farewell(box: Box, found: list[Datagram]) -> None:
    ended = [
        datagram.farewell
        for datagram in found
        if datagram.kind == KIND_FAREWELL and datagram.producer_id == box.outbox.producer_id
    ]
    expect(len(ended) == 1, f"{len(ended)} farewells came for the outbox that was lost, expected 1")
    assert ended[0] is not None
    last, refused = ended[0]
    box.read()
    expect(
        last == len(box.records),
        f"the farewell names {last} as the last event, it was {len(box.records)}",
        "Farewell",
    )
    expect(
        sum(refused.values()) == box.refused(),
        f"the farewell counts {refused}, words 24 to 29 count {box.refused()} refusals",
        "Farewell",
    )


def retired_with_more(scene: Scene) -> None:
    """If an outbox is retired and removed with two events unconfirmed, neither is written again."""
    box = scene.open_with_outbox()
    for _ in range(3):
        scene.must_emit()
    box.confirm(2)
    box.set_word(WORD_RETIRED, 1)
    box.unlink()
    successor = _until_followed(scene, box, "the daemon has retired the outbox")
    _emit_for_some_looks(scene)
    again = sorted(set(box.numbers()) & set(successor.numbers()))
    expect(not again, f"events {again} of the outbox that was left were written again")
    expect_exactly_once(scene.accepted, box.numbers() + successor.numbers(), FOLLOWING)


def retired_with_its_name(scene: Scene) -> None:
    """If a retired outbox's file exists, a daemon will read it: the client repeats nothing."""
    box = scene.open_with_outbox()
    scene.must_emit()
    box.confirm(1)
    box.set_word(WORD_RETIRED, 1)
    successor = _until_followed(scene, box, "the daemon has retired the outbox")
    sent = _emit_for_some_looks(scene)
    expect_exactly_once(scene.accepted, box.numbers() + successor.numbers(), FOLLOWING)
    ended = [datagram for datagram in sent if datagram.kind == KIND_FAREWELL]
    expect(not ended, "a farewell came for an outbox that a daemon will read")


def given_up_each_time(scene: Scene) -> None:
    """If the daemon gives up one outbox after another, the client makes no more after the third."""
    box = scene.open_with_outbox()
    for _ in range(_GIVEN_UP_MAX - 1):
        box.set_word(WORD_GIVEN_UP, 1)
        box = _until_followed(scene, box, "the outbox was given up")
        scene.daemon.datagrams()
    box.set_word(WORD_GIVEN_UP, 1)
    for _ in range(5):
        scene.must_emit(why="an event was refused after the outbox was given up")
    made = len(scene.daemon.boxes())
    expect(
        made == _GIVEN_UP_MAX,
        f"{made} outboxes were made, of which {_GIVEN_UP_MAX} were refused unread: "
        f"expected {_GIVEN_UP_MAX}",
    )
    answer = scene.driver.ask("outbox")
    expect(answer == "no", f"no outbox is left, and the answer to `outbox` is {answer}")
    sent = sum(len(datagram.records) for datagram in scene.daemon.datagrams())
    expect(sent == 5, f"5 events came in {sent} records: without an outbox each one is sent")
