"""Cases about the outbox: its creation, its ring up to the last byte, and clients without one."""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

from logd.conformance.daemon_double import event_of, until
from logd.conformance.scene import PAD_MIN, Scene, expect_exactly_once
from logd.conformance.verdicts import expect
from logd.ingest import inotify
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    REFUSAL_CAUSES,
    REFUSED_FULL,
    RING_BYTES_MAX,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    WORD_REFUSED,
)
from logd_wire.outbox.names import TEMPORARY_PREFIX, outbox_name
from logd_wire.rendezvous import TOKEN_NAME, rendezvous_path

_SECOND_NS = 10**9
_REFUSALS = 3
_ANOTHER_UID = 12345
_NO_WAIT_S = 0.3
_NAMED_WORDS = {0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 18, 19, *range(24, 24 + len(REFUSAL_CAUSES))}


def creating(scene: Scene) -> None:
    """A new outbox has the right name, lock, size, mode 0660, and a complete header."""
    box = scene.open_with_outbox()
    producer_id = box.outbox.producer_id
    files = scene.daemon.files()
    expect(
        files == [outbox_name(os.geteuid(), producer_id)],
        f"the directory holds {files}: expected one outbox and no temporary file",
    )
    status = os.fstat(box.outbox.fd)
    mode = stat.S_IMODE(status.st_mode)
    expect(mode == 0o660, f"the file's mode is {mode:04o}, not 0660 whatever the umask")
    expect(
        status.st_size == HEADER_BYTES + box.ring_bytes,
        f"the file has {status.st_size} bytes, its ring {box.ring_bytes}",
    )
    holder = box.holder
    scene.driver.expect_holder(holder, "the outbox")
    _expect_closed_on_exec(holder, status)
    header = box.outbox.refresh()
    expect(header.pid == holder, f"word 4 says pid {header.pid}", "Outbox")
    age_ns = time.time_ns() - header.created_ns
    expect(
        abs(age_ns) < 60 * _SECOND_NS, f"word 5 (created_ns) is {age_ns} ns before now", "Outbox"
    )
    words = struct.unpack("=512Q", box.header())
    unnamed = [index for index, word in enumerate(words) if word and index not in _NAMED_WORDS]
    expect(not unnamed, f"words {unnamed} have no name and are not zero", "Versions")


def taking_its_name(scene: Scene) -> None:
    """An outbox is created under a temporary name, and renamed when it is complete."""
    scene.daemon.make_directory()
    fd = scene.watch(scene.daemon.directory, inotify.IN_CREATE | inotify.IN_MOVED_TO)
    name = scene.open_with_outbox().path.name
    events = [(mask, os.fsdecode(found)) for mask, found in inotify.read_events(fd)]
    made = [found for mask, found in events if mask & inotify.IN_CREATE and found != TOKEN_NAME]
    temporary = TEMPORARY_PREFIX + name
    expect(made == [temporary], f"{', '.join(made)} was made, expected {temporary} alone")
    moved = [found for mask, found in events if mask & inotify.IN_MOVED_TO]
    expect(name in moved, f"the file did not get its name {name} by a rename")


def _expect_closed_on_exec(pid: int | None, outbox: os.stat_result) -> None:
    """Expects that a program started by the client's process inherits neither outbox nor socket."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            status = entry.stat()
            info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
        except OSError:
            continue  # the descriptor was closed meanwhile
        flags = int(info.split("flags:")[1].split()[0], 8)
        is_outbox = (status.st_dev, status.st_ino) == (outbox.st_dev, outbox.st_ino)
        if is_outbox or stat.S_ISSOCK(status.st_mode):
            what = "the outbox" if is_outbox else "a socket"
            expect(flags & os.O_CLOEXEC, f"{what} is not closed on exec (O_CLOEXEC)")


def ring_sizes(scene: Scene) -> None:
    """Rings may have the smallest and largest size, and one that is not a multiple of eight."""
    for number, asked in enumerate((RING_BYTES_MIN, RING_BYTES_MAX, 100_001), start=1):
        if asked > _free_bytes(scene):
            scene.notes.append(f"there is no memory for a ring of {asked} bytes")
            continue
        if number == 1:
            scene.open_with_outbox(asked)
        else:
            scene.reopen_client(asked)
            scene.must_emit()
        box = scene.daemon.boxes()[-1]
        expect(
            box.ring_bytes <= max(asked, RING_BYTES_MIN),
            f"asked for a ring of {asked} bytes the client made one of {box.ring_bytes}",
        )
        if box.ring_bytes < asked & -8:
            scene.notes.append(f"asked for a ring of {asked} bytes, it began with {box.ring_bytes}")
        expect(len(box.numbers()) == 1, "the event is not in the ring")


def _free_bytes(scene: Scene) -> int:
    """Returns how many bytes outboxes may still take of their file system, less a margin."""
    status = os.statvfs(scene.daemon.directory.parent)
    return status.f_bavail * status.f_frsize - RING_BYTES_MIN


def records(scene: Scene) -> None:
    """The ring holds the events that were emitted: in order, numbered from 1, with a valid CRC."""
    box = scene.open_with_outbox()
    for pad in (0, 1, 2, 3, 4, 5, 6, 7, 30, 31, 32, 255, 256, 1000):
        scene.must_emit(pad)
    expect_exactly_once(scene.accepted, box.numbers(), "Record")
    expect(box.numbers() == scene.accepted, "events are not in the order of their calls")
    age_ns = time.time_ns() - event_of(box.records[-1].payload).ts_ns
    expect(abs(age_ns) < 60 * _SECOND_NS, f"an event's ts_ns is {age_ns} ns before now", "Payload")
    scene.check_counts()


def wrap(scene: Scene) -> None:
    """Records wrap around the ring's end: within the payload, within the head, exactly there."""
    box = scene.open_with_outbox()
    overhead = scene.record_overhead(box)
    ring = box.ring_bytes
    for turn, before in enumerate((8, 16, 24, PAD_MIN, 0), start=1):
        box.confirm()
        scene.fill_to(box, turn * ring - before, overhead)
        box.confirm()
        scene.must_emit(PAD_MIN + 10, f"a record that begins {before} bytes before the ring's end")
        box.read()
    expect_exactly_once(scene.accepted, box.numbers(), "The ring")


def full(scene: Scene) -> None:
    """The ring takes events up to its last byte, then refuses until a confirmation frees space."""
    box = scene.open_with_outbox()
    overhead = scene.record_overhead(box)
    ring, word = box.ring_bytes, WORD_REFUSED + REFUSAL_CAUSES.index(REFUSED_FULL)
    left = 1024
    scene.fill_to(box, ring - left, overhead)
    accepted = scene.emit(left + 8 - overhead)
    if scene.daemon.files() != [box.path.name]:
        scene.notes.append("the client continues in another outbox when a ring is full")
        return
    expect(not accepted, f"a ring with {left} bytes of room took a record of {left + 8}")
    scene.must_emit(left - overhead, f"a ring with {left} bytes refused a record of {left}")
    box.read()
    expect(not scene.emit(), "a full ring took one more event")
    _expect_no_wait(scene)
    counted, refused = box.word(word), 2 + _REFUSALS
    expect(counted == refused, f"{refused} were refused, but word {word} counts {counted}")
    _impossible_position(scene, ring)
    box.confirm(2)
    free = box.records[1].end
    expect(
        not scene.emit(free + 8 - overhead),
        f"{free} bytes are free, and a record of {free + 8} was accepted: it overwrites what is not"
        " confirmed",
    )
    scene.must_emit(free - overhead, f"{free} bytes are free, and a record of them was refused")
    box.read()
    expect(not scene.emit(), "a ring that is full again took one more event")
    box.confirm()
    scene.must_emit(PAD_MIN, "all is confirmed, and an event was refused")
    expect_exactly_once(scene.accepted, box.numbers(), "Writing an event")
    scene.check_counts()


def _expect_no_wait(scene: Scene) -> None:
    """Expects a full ring to refuse at once: the shortest of several calls counts."""
    took_s = []
    for _ in range(_REFUSALS):
        begun_s = time.monotonic()
        scene.emit()
        took_s.append(time.monotonic() - begun_s)
    expect(min(took_s) < _NO_WAIT_S, f"a full ring refuses an event after {min(took_s):.2f} s")


def room(scene: Scene) -> None:
    """A client with 1 MiB takes at least half of it without a daemon, in one outbox or several."""
    scene.open_with_outbox(1024 * 1024)
    for _ in range(64):
        scene.must_emit(8000, "of 1 MiB less than the half is written, and an event was refused")
    boxes = scene.daemon.boxes()
    if len(boxes) > 1:
        scene.notes.append(f"the client continued in {len(boxes)} outboxes, one after the other")
    found = [number for box in boxes for number in box.numbers()]
    expect_exactly_once(scene.accepted, found, "Writing an event")
    expect(found == scene.accepted, "events are not in the order of their calls", "Record")
    scene.driver.expect_holder(boxes[-1].holder, "the last outbox")
    for box in boxes[:-1]:
        expect(box.holder is None, "the lock of an outbox that was left is still held", "The lock")
    scene.check_counts()


def _impossible_position(scene: Scene, ring: int) -> None:
    """Expects a confirmed position past the end of what is written to free nothing."""
    box = scene.daemon.box()
    for position in (ring + 8, 2 * ring, 2**62, 2**64 - 8):
        box.set_word(WORD_CONFIRMED_POSITION, position)
        expect(
            not scene.emit(),
            f"word 17 is {position}, past all that is written ({ring}), and an event was accepted:"
            " it overwrites what is not confirmed",
        )
    box.set_word(WORD_CONFIRMED_POSITION, 0)


def rendezvous(scene: Scene) -> None:
    """A directory that is not the daemon's is not used: no file, wrong token, a link, a pipe."""
    daemon = scene.daemon
    daemon.make_directory()
    daemon.start()
    scene.open_client()
    scene.need_outbox()
    path, token = Path(rendezvous_path(daemon.socket)), daemon.directory / TOKEN_NAME
    good, good_token = path.read_text(), token.read_text()
    link = scene.directory / "link"
    link.symlink_to(daemon.directory)

    def put(text: str) -> None:
        path.unlink(missing_ok=True)
        path.write_text(text)

    def put_pipe() -> None:
        path.unlink()
        os.mkfifo(path)

    def put_token(text: str) -> None:
        put(good)
        token.unlink()
        token.write_text(text)

    def link_token() -> None:
        token.unlink()
        other = scene.directory / "token"
        other.write_text(good_token)
        token.symlink_to(other)

    def another_user() -> None:
        put_token(good_token)
        os.chown(daemon.directory, _ANOTHER_UID, -1)

    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("no rendezvous file", path.unlink),
        ("an empty rendezvous file", lambda: put("")),
        ("a pipe in place of the rendezvous file", put_pipe),
        ("an invalid token", lambda: put(good.replace("token=", "token=x"))),
        ("a missing directory", lambda: put(good.replace("logd-", "logd-no-"))),
        (
            "a symbolic link to the directory",
            lambda: put(good.replace(str(daemon.directory), str(link))),
        ),
        ("another token in the directory", lambda: put_token("0" * 32 + "\n")),
        ("a symbolic link in place of the token", link_token),
        *((("a directory of another user", another_user),) if not os.geteuid() else ()),
    )
    if os.geteuid():
        scene.notes.append("a directory of another user: only root can make one")
    for what, step in steps:
        step()
        before = set(daemon.files())
        scene.reopen_client()
        scene.emit()
        made = set(daemon.files()) - before
        expect(not made, f"{what}: the client made an outbox all the same ({', '.join(made)})")
    os.chown(daemon.directory, os.geteuid(), -1)
    put_token(good_token)
    put(good + "later=1\nmore\n")
    scene.reopen_client()
    scene.must_emit(why="an event was refused with unknown lines in the rendezvous file")
    until(
        lambda: set(daemon.files()) - before,
        "with unknown lines in the rendezvous file the client has no outbox",
    )


def socket_link(scene: Scene) -> None:
    """A symbolic link to the socket works like the socket."""
    scene.daemon.make_directory()
    scene.daemon.start()
    (scene.directory / "links").mkdir()
    link = scene.directory / "links" / "there.sock"
    link.symlink_to(scene.daemon.socket)
    scene.start_driver()
    scene.driver.ask(f"open {link} {RING_BYTES_MIN}")
    scene.need_outbox()
    scene.must_emit()
    expect(scene.daemon.box().numbers() == scene.accepted, "the event is not in the ring")
    expect(scene.daemon.datagrams(), "no datagram came through the link", "Datagram")
