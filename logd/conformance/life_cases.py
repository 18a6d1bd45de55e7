"""Cases about a producer's life: durable events, forks, lost files and locks, and its end."""

from __future__ import annotations

import os
import time
from pathlib import Path

from logd.conformance.daemon_double import Box, event_of, number_of, until
from logd.conformance.scene import TYPE, USER, Scene, expect_exactly_once
from logd.conformance.verdicts import FOLLOWING, FORKS, NotTried, expect
from logd_wire.outbox.layout import (
    REFUSAL_CAUSES,
    REFUSED_FULL,
    WORD_GIVEN_UP,
    WORD_REFUSED,
    WORD_RETIRED,
    WORD_WRITTEN,
)
from logd_wire.wire import KIND_AWAITED, unpack_props

UNKNOWN_TYPE = "durable_unknown"
SETTLED_TYPE = "durable_settled"
_LONG_MS = 8000
_SHORT_MS = 100


def _ask_durable(scene: Scene, number: int, timeout_ms: int) -> str:
    command = f"durable {TYPE} {USER} {number} {timeout_ms}"
    scene.driver.send(command)
    return command


def durable(scene: Scene) -> None:
    """An awaited event is sent with kind 2, and is stored once word 16 reaches its sequence."""
    box = scene.open_with_outbox()
    box.confirm()
    for watched in (False, True):
        scene.daemon.datagrams()
        if watched:
            box.watch(time.monotonic_ns() + 900_000_000)
        number = scene.number()
        command = _ask_durable(scene, number, _LONG_MS)
        found = until(scene.daemon.datagrams, "an awaited event came in no datagram", "Watching")
        expect(
            found[0].kind == KIND_AWAITED,
            f"an awaited event came with kind {found[0].kind}: expected 2",
            "Watching",
        )
        expect(box.numbers()[-1] == number, "an awaited event was sent, and is not in the ring")
        box.confirm()
        answer = scene.driver.answer(command)
        expect(answer == "stored", f"word 16 has reached the event, and the answer is {answer}")
        scene.count(number, True)
    scene.must_emit()
    until_flushed(scene, box)
    scene.check_counts()


def durable_without_outbox(scene: Scene) -> None:
    """An awaited event without an outbox is sent with kind 2, and its outcome is unknown."""
    scene.daemon.start()
    scene.open_client()
    number = scene.number()
    answer = scene.driver.ask(f"durable {TYPE} {USER} {number} {_SHORT_MS}")
    expect(answer == "unknown", f"nothing can confirm the event, and the answer is {answer}")
    found = scene.daemon.datagrams()
    expect(found and found[0].kind == KIND_AWAITED, "an awaited event was not sent with kind 2")


def until_flushed(scene: Scene, box: Box) -> None:
    """Expects `flush` to answer no before the confirmation and yes after it."""
    try:
        answer = scene.driver.ask(f"flush {_SHORT_MS}")
    except NotTried:
        scene.notes.append("the driver does not support `flush`")
        return
    expect(answer == "no", "flush answered yes with an event unconfirmed")
    box.confirm()
    expect(scene.driver.ask(f"flush {_LONG_MS}") == "yes", "all is confirmed; flush answered no")


def durable_unknown(scene: Scene) -> None:
    """An outcome not known in time is recorded in the outbox before the call returns."""
    box = scene.open_with_outbox()
    number = scene.number()
    answer = scene.driver.ask(f"durable {TYPE} {USER} {number} {_SHORT_MS}")
    expect(answer == "unknown", f"nothing was confirmed, and the answer is {answer}")
    records = box.read()
    expect(
        len(records) >= 2 and number_of(records[-2].payload) == number,
        f"after the event there is no `{UNKNOWN_TYPE}` that names it",
    )
    event, note = records[-2], event_of(records[-1].payload)
    expect(note.type == UNKNOWN_TYPE, f"after the event there is a `{note.type}`")
    expect(note.user == USER, f"`{UNKNOWN_TYPE}` is of user {note.user!r}, the event of {USER!r}")
    props = unpack_props(note.props)
    named = {
        "producer": f"{box.outbox.uid}-{box.outbox.producer_id:016x}",
        "sequence": event.sequence,
        "type": TYPE,
    }
    found = {name: props.get(name) for name in named}
    expect(found == named, f"`{UNKNOWN_TYPE}` names {found}, the event is {named}")
    _expect_settled(scene, box, named)
    _no_room_for_the_note(scene, box)


def _expect_settled(scene: Scene, box: Box, named: dict[str, object]) -> None:
    """Confirms the event, and expects its outcome to be recorded before the client's next event."""
    box.confirm()
    scene.must_emit()
    note = event_of(box.read()[0].payload)
    expect(
        note.type == SETTLED_TYPE,
        f"the event is confirmed, and before the next one there is no `{SETTLED_TYPE}`",
    )
    props = unpack_props(note.props)
    found = {name: props.get(name) for name in (*named, "outcome")}
    expect(
        (note.user, found) == (USER, {**named, "outcome": "stored"}),
        f"`{SETTLED_TYPE}` is of user {note.user!r} and says {found}, the event is {named}",
    )


def _no_room_for_the_note(scene: Scene, box: Box) -> None:
    """Expects an event to be refused if the ring has no room for its `durable_unknown` record."""
    box.confirm()
    scene.must_emit()
    length = box.read()[-1].end - box.records[-2].end
    overhead = scene.record_overhead(box)
    box.confirm()
    scene.fill_to(box, box.position + box.ring_bytes - length - 16, overhead)
    word = WORD_REFUSED + REFUSAL_CAUSES.index(REFUSED_FULL)
    before = box.word(word)
    answer = scene.driver.ask(f"durable {TYPE} {USER} {scene.number()} {_SHORT_MS}")
    if len(scene.daemon.boxes()) > 1:
        scene.notes.append("the client continues in another outbox when a ring is full")
        return
    expect(
        answer == "refused",
        f"the ring has no room for a `{UNKNOWN_TYPE}` after the event, and it is {answer}",
    )
    expect(box.word(word) == before + 1, f"word {word} does not count the refused event")


def ending(scene: Scene) -> None:
    """Closing a client sets word 9, leaves the file, releases the lock and sends nothing."""
    box = scene.open_with_outbox()
    scene.daemon.datagrams()
    scene.driver.ask("close")
    expect(box.has_farewell, "word 9 is not 1 after close")
    expect(box.path.exists(), "the client removed its outbox: only the daemon does")
    expect(box.holder is None, "the lock is still held after close")
    expect(not scene.daemon.datagrams(), "a datagram came at close: word 9 is the farewell")
    expect(not scene.emit(), "an event was accepted after close")
    others = [other.numbers() for other in scene.daemon.boxes() if other is not box]
    expect(not any(others), "an event was written after close")
    code = scene.driver.finish()
    expect(code == 0, f"the driver ended with exit code {code}", "Conformance")
    expect_exactly_once(scene.accepted, box.numbers(), "Ending")


def killed(scene: Scene) -> None:
    """A killed process leaves an intact outbox, without a lock or a farewell."""
    box = scene.open_with_outbox()
    for _ in range(20):
        scene.must_emit()
    scene.driver.kill()
    expect(box.holder is None, "the lock is still held after a kill")
    expect(not box.has_farewell, "word 9 is 1, and the process was killed")
    expect_exactly_once(scene.accepted, box.numbers(), "The lock")


def forks(scene: Scene) -> None:
    """A forked child is another producer; its parent's outbox, lock and sequences are unchanged."""
    box = scene.open_with_outbox()
    scene.driver.expect_holder(box.holder, "the outbox")
    before = box.header()
    try:
        scene.driver.ask("fork 0")
    except NotTried:
        raise NotTried("the driver does not support `fork`") from None
    expect(scene.daemon.boxes() == [box], "a child that emitted nothing has an outbox")
    _check_parent(scene, box, before, "a child that emitted nothing")
    for number in (2, 3):
        child_number = scene.number()
        answer = scene.driver.ask(f"fork {child_number}")
        expect(answer == "accepted", "a child's first event was refused")
        _check_parent(scene, box, before, "a child that emitted")
        child = until(
            lambda count=number: scene.daemon.boxes()[count - 1 :],  # type: ignore[misc] # a lambda's default
            "a child's first event was accepted, and the child has no outbox of its own",
            FORKS,
        )[0]
        expect(
            child.numbers() == [child_number] and child.records[0].sequence == 1,
            f"the child's outbox holds {child.numbers()}, it emitted {child_number}",
        )
        expect(child.outbox.producer_id != box.outbox.producer_id, "a child has its parent's id")
        expect(child.outbox.header.pid != box.holder, "word 4 of a child's outbox is its parent's")
        expect(child.holder is None, "a child has ended, and its lock is held")
        scene.must_emit(why="after a fork the parent's event was refused")
        before = box.header()
    expect_exactly_once(scene.accepted, box.numbers(), FORKS)
    producers = {datagram.producer_id: datagram.pid for datagram in scene.daemon.datagrams()}
    expect(
        producers.get(box.outbox.producer_id) == box.holder,
        "a datagram of the parent's producer was not sent by the parent",
    )
    expect(len(producers) in (1, 3), f"datagrams of {len(producers)} producers came: expected 3")


def _check_parent(scene: Scene, box: Box, before: bytes, who: str) -> None:
    expect(box.path.exists(), f"{who} removed its parent's outbox")
    expect(not box.has_farewell, f"{who} sent its parent's farewell (word 9)")
    expect(box.holder is not None, f"{who} freed its parent's lock", "The lock")
    scene.driver.expect_holder(box.holder, "the parent's outbox")
    expect(box.header() == before, f"{who} wrote to its parent's header")


def lock_lost(scene: Scene) -> None:
    """If the application closes every descriptor, the client continues as another producer."""
    box = scene.open_with_outbox()
    decoy, pid, opened = lose_descriptors(scene, box)
    # A daemon reads all that is written, and then considers the producer ended.
    box.retire()
    successor = _follow(scene, box, box.numbers())
    scene.driver.expect_holder(successor.holder, "the outbox that follows")
    left = descriptors(pid, decoy)
    expect(left == opened, f"{opened - left} descriptors of the application's were closed")
    written = decoy.read_bytes()
    expect(
        not written,
        f"{len(written)} bytes were written to a file of the application's, which has the number "
        "of a descriptor that it closed",
    )


def lose_descriptors(scene: Scene, box: Box) -> tuple[Path, int | None, int]:
    """Has the client close all its descriptors, after which a decoy file has their numbers.

    Returns the decoy, the process, and the number of its descriptors that name the decoy.
    """
    decoy = scene.directory / "decoy"
    decoy.write_bytes(b"")
    scene.driver.expect_holder(box.holder, "the outbox")
    pid = box.holder
    scene.driver.ask(f"closefds {decoy}")
    expect(box.holder is None, "closefds left the lock", "Conformance")
    return decoy, pid, descriptors(pid, decoy)


def descriptors(pid: int | None, file: Path) -> int:
    """Returns how many descriptors of the process name the file."""
    names = [os.path.realpath(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return names.count(str(file))


def removed(scene: Scene) -> None:
    """After a program has removed the file, the client makes another; the daemon reads the rest."""
    box = scene.open_with_outbox()
    box.unlink()

    def followed() -> bool:
        scene.emit()
        return len(scene.daemon.boxes()) > 1

    until(followed, "the outbox has no name any more, and the client does not follow")
    successor = scene.daemon.box(2)
    scene.must_emit()
    found = box.numbers() + successor.numbers()
    expect_exactly_once(scene.accepted, found, FOLLOWING)
    scene.check_counts()


def retired(scene: Scene) -> None:
    """An event written after its outbox was retired and removed is moved to the next one."""
    box = scene.open_with_outbox()
    read: list[int] = []
    # After a watched event a client does not check before it writes. In one of the
    # other rounds a client that checks its descriptors every 5 ms is between two checks.
    for watched in (False, True, False):
        box.watch(time.monotonic_ns() + 900_000_000 if watched else 0)
        scene.must_emit()
        box.retire()
        read += box.numbers()
        box = _follow(scene, box, read)


def given_up(scene: Scene) -> None:
    """If the daemon gives up an outbox (word 20), the client makes another and repeats nothing."""
    box = scene.open_with_outbox()
    for _ in range(3):
        scene.must_emit()
    box.set_word(WORD_GIVEN_UP, 1)
    read = box.numbers()
    for _ in range(5):
        scene.must_emit(why="an event was refused after the outbox was given up")
    successor = scene.daemon.boxes()[-1]
    expect(successor is not box, "5 events after word 20 became 1 the client has no other outbox")
    expect(box.numbers() == read, "an event was written to an outbox that was given up (word 20)")
    expect_exactly_once(scene.accepted, read + successor.numbers(), FOLLOWING)
    scene.check_counts()


def _follow(scene: Scene, box: Box, read: list[int]) -> Box:
    """Expects a client to continue after its outbox was read and retired: none is lost or twice.

    `read` has the numbers of all events read so far. Returns the new outbox.
    """
    written = len(box.records)
    for _ in range(5):
        scene.must_emit(why="an event was refused after the outbox was lost")
    successor = scene.daemon.boxes()[-1]
    expect(
        successor is not box,
        "5 events after the daemon has retired its outbox (word 19) and removed it, the client has "
        "no other",
        FOLLOWING,
    )
    behind = box.word(WORD_WRITTEN) - written
    expect(
        behind <= 1,
        f"{behind} events were written to an outbox that the daemon has retired (word 19)",
        FOLLOWING,
    )
    expect_exactly_once(scene.accepted, read + successor.numbers(), FOLLOWING)
    expect(box.word(WORD_RETIRED) == 1, "word 19 is the daemon's", "Outbox")
    sent = [
        number_of(record.payload)
        for datagram in scene.daemon.datagrams()
        if datagram.producer_id == box.outbox.producer_id
        for record in datagram.records
    ]
    expect(
        set(sent) <= set(read),
        "an event was sent as the old producer's, and written again as the new one's",
        FOLLOWING,
    )
    scene.check_counts()
    return successor
