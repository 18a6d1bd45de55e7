"""Hostile datagrams and outboxes are quarantined with their sender, and do no harm."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from logd_wire.outbox.layout import HEADER_BYTES, RING_BYTES_MIN, outbox_bytes
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.reader import find_record
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.query import QueryClient
from logd_wire.wire import (
    DATAGRAM_HEAD,
    datagram_head,
    decode_record,
    encode_farewell,
    encode_record,
    pack_payload,
    producer_seed,
)
from tests.support.instance import ROOT, Instance, check_streams, check_sums, emitters, until
from tests.support.namespaces import needs_users

PRODUCER = 0x1122334455667788


def datagram(
    sequence: int,
    producer_id: int = PRODUCER,
    props: object = None,
    event_type: str = "page_view",
) -> bytes:
    """One event as a client without an outbox sends it."""
    payload = pack_payload(msgpack.Packer(), event_type, 10**18 + sequence % 10**6, "7", props)  # type: ignore[arg-type] # some tests pass nonsense
    record = encode_record(producer_seed(producer_id), sequence, payload)
    return datagram_head(producer_id) + record


def sender(instance: Instance) -> socket.socket:
    """A socket that waits while the daemon's queue is full."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(instance.socket)
    return sock


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A damaged copy of `data`, or noise."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 600))
    if kind == 1:
        return data[: rng.randrange(1, len(data))]
    if kind == 2:
        return data + rng.randbytes(rng.randrange(1, 40))
    changed = bytearray(data)
    for _ in range(1 if kind == 3 else rng.randrange(2, 20)):
        changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    return bytes(changed) if bytes(changed) != data else data[:-1]


def test_10000_random_and_mutated_datagrams_cost_no_good_one(instance: Instance) -> None:
    instance.start()
    rng = random.Random(20261124)
    bad = 0
    with sender(instance) as sock:
        for sequence in range(1, 2001):
            good = datagram(sequence)
            sock.send(good)
            for _ in range(5):
                sock.send(mutate(good, rng))
                bad += 1
    assert bad == 10_000
    until(lambda: instance.status()["quarantined"] >= bad, "all bad ones are counted")
    status = instance.status()
    assert status["quarantined"] == bad
    check_sums(status, attempted=2000, accepted=2000)
    assert (status["stored"], status["lost"]) == (2000, 0)
    assert check_streams(instance.events()) == {f"{os.getuid()}-{PRODUCER:016x}": 2000}
    assert instance.stop() == 0  # it was alive
    instance.cli("verify")


def test_a_refused_event_inside_a_good_stream_uses_up_its_sequence(instance: Instance) -> None:
    instance.start()
    broken = encode_record(producer_seed(PRODUCER), 2, msgpack.packb(["Not A Type", 1, None, b""]))
    with sender(instance) as sock:
        for data in (datagram(1), datagram_head(PRODUCER) + broken, datagram(3)):
            sock.send(data)
    until(lambda: instance.status()["stored"] == 2, "the good ones are stored")
    status = instance.status()
    check_sums(status, attempted=3, accepted=3)
    assert status["quarantined_events"] == 1
    assert [event["sequence"] for event in instance.events()] == [1, 3]


def test_a_sequence_out_of_this_world_moves_no_watermark(instance: Instance) -> None:
    instance.start()
    with sender(instance) as sock:
        for producer_id, sequence in enumerate((2**63 - 1, 2**63, 2**64 - 1), start=1):
            sock.send(datagram(1, producer_id))
            sock.send(datagram(sequence, producer_id))
            sock.send(datagram(2, producer_id))
    until(lambda: instance.status()["stored"] == 6, "the good ones are stored")
    status = instance.status()
    check_sums(status, attempted=6, accepted=6)
    assert (status["quarantined"], status["lost"]) == (3, 0)


def test_a_claimed_loss_is_recorded_as_claimed_and_bounded(instance: Instance) -> None:
    instance.configure(gap_events_max=100)
    instance.start()
    with sender(instance) as sock:
        sock.send(datagram(11))  # claims ten before it
        sock.send(datagram(500))  # claims too many: refused
        sock.send(encode_farewell(PRODUCER, 20, {"outbox_full": 3}))  # claims nine behind it
    until(lambda: instance.status()["refused_by_clients"] == 3, "the farewell is stored")
    status = instance.status()
    check_sums(status, attempted=20, accepted=20)
    assert (status["stored"], status["lost"], status["quarantined"]) == (1, 19, 1)
    instance.cli("verify")


def test_absurd_claims_keep_totals_consistent(instance: Instance) -> None:
    """Farewells claim up to 2**63 - 1 events; `status` and `verify` still add up."""
    instance.start()
    with sender(instance) as sock:
        for producer_id in (1, 2, 3):
            sock.send(encode_farewell(producer_id, 0, {"malformed": 2**63 - 1, "invented": 5}))
        sock.send(datagram(2**63 - 1, producer_id=4))
    until(lambda: instance.status()["stored"] == 1, "stored")
    status = instance.status()
    assert status["refused_by_clients"] == 3 * 2**40
    assert (status["lost"], status["unknown_extent"]) == (0, 1)
    instance.stop()
    with instance.database() as connection:
        connection.execute("UPDATE producer SET boot_id = 'an earlier boot'")
    instance.start()  # books the end of producer 4, past its last possible number
    instance.cli("verify")


def test_a_ring_made_to_look_like_records_everywhere_delays_nobody(
    instance: Instance,
) -> None:
    """Every multiple of eight in it looks like a large record: the search is bounded."""
    ring_bytes = 256 * 1024
    buffer = bytearray(outbox_bytes(ring_bytes))
    OutboxWriter(memoryview(buffer), FORGED, pid=1, now_ns=1)
    words = memoryview(buffer).cast("Q")
    words[8] = 5
    for index in range(HEADER_BYTES // 8, len(buffer) // 8):
        words[index] = 32768
    checked = 0

    def read_at(offset: int, length: int) -> bytes:
        return bytes(buffer[offset : offset + length])

    def counting(data: bytes, offset: int, seed: int) -> tuple[int, bytes, int]:
        nonlocal checked
        checked += 32768
        return decode_record(data, offset, seed)

    with pytest.MonkeyPatch.context() as context:
        context.setattr("logd_wire.outbox.reader.decode_record", counting)
        assert find_record(read_at, ring_bytes, producer_seed(FORGED), 1, 2**62) is None
    assert 0 < checked <= 4 * ring_bytes


def test_descriptors_sent_along_are_not_taken(instance: Instance) -> None:
    daemon = instance.start()
    before = len(os.listdir(f"/proc/{daemon.popen.pid}/fd"))
    with sender(instance) as sock, open(os.devnull) as file:
        for sequence in range(1, 101):
            socket.send_fds(sock, [datagram(sequence)], [file.fileno()] * 3)
    until(lambda: instance.status()["stored"] == 100, "the events are stored")
    assert len(os.listdir(f"/proc/{daemon.popen.pid}/fd")) == before


def test_the_largest_datagram_and_deep_msgpack_are_quarantined(instance: Instance) -> None:
    instance.start()
    deep = b"\x81\xa1a" * 5000 + b"\x80"
    payload = msgpack.packb(["page_view", 1, None, deep])
    with sender(instance) as sock:
        sock.send(datagram_head(PRODUCER) + b"\xff" * 200_000)
        sock.send(datagram_head(PRODUCER) + encode_record(producer_seed(PRODUCER), 1, payload))
        sock.send(b"")
        sock.send(datagram(2))
    until(lambda: instance.status()["stored"] == 1, "the good one is stored")
    status = instance.status()
    assert (status["quarantined"], status["quarantined_events"]) == (3, 1)
    check_sums(status, attempted=2, accepted=2)


FORGED = 77


def _genuine(producer_id: int = FORGED) -> bytes:
    """A whole, undamaged outbox of that producer with three events in it."""
    buffer = bytearray(outbox_bytes(RING_BYTES_MIN))
    writer = OutboxWriter(memoryview(buffer), producer_id, pid=1, now_ns=1)
    for number in range(3):
        writer.append(pack_payload(msgpack.Packer(), "forged", number, None, None))
    return bytes(buffer)


def _plant(directory: Path, kind: str, producer_id: int) -> str:
    """Puts a forged outbox of that kind into the directory; returns its name."""
    name = outbox_name(os.getuid(), producer_id)
    path, other = directory / name, directory / f".other-{producer_id}"
    genuine = _genuine(producer_id)
    if kind == "symbolic link":
        other.write_bytes(genuine)
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "hard link":
        other.write_bytes(genuine)
        os.link(other, path)
    elif kind == "another producer's":
        path.write_bytes(_genuine(producer_id + 1000))
    elif kind == "another user's":
        path.write_bytes(genuine)
        os.chown(path, 65534, 65534)
    elif kind == "too large for its ring":
        path.write_bytes(genuine + b"x")
    elif kind == "empty":
        path.touch()
    elif kind == "sparse":
        path.write_bytes(genuine[:HEADER_BYTES])
        os.truncate(path, outbox_bytes(RING_BYTES_MIN))
    elif kind == "noise":
        path.write_bytes(random.Random(1).randbytes(4096 + 65536))
    return name


@pytest.mark.parametrize(
    "kinds",
    [
        (
            "symbolic link",
            "fifo",
            "directory",
            "hard link",
            "another producer's",
            "too large for its ring",
            "empty",
            "sparse",
            "noise",
        ),
        pytest.param(("another user's",), marks=needs_users),
    ],
    ids=["of all kinds", "another user's"],
)
def test_a_forged_outbox_is_refused_once_and_harms_nobody(
    instance: Instance, kinds: tuple[str, ...]
) -> None:
    directory = instance.config.outbox_directory
    names = {kind: _plant(directory, kind, FORGED + at) for at, kind in enumerate(kinds)}
    daemon = instance.start()
    with emitters(instance, count=1, events=500) as (emitter,):
        emitter.finish()
    until(lambda: instance.status()["stored"] == 500, "its neighbour is stored")
    status = instance.status()
    check_sums(status, attempted=500 + emitter.refused, accepted=500, refused=emitter.refused)
    assert status["quarantined"] == len(kinds)
    assert sum("refused as an outbox" in line for line in daemon.lines) == 1  # of one cause
    rows = instance.cli("quarantine")
    assert [kind for kind, name in names.items() if rows.count(f'"{name}"') != 1] == []
    assert instance.events("--type", "forged") == []
    assert instance.stop() == 0


def test_a_file_named_after_no_user_is_no_outbox(instance: Instance) -> None:
    """A uid too large for the database must not end the daemon at each start."""
    for uid in ("99999999999999999999", "4294967296", "-1", "0x0"):
        path = instance.config.outbox_directory / f"{uid}-{FORGED:016x}.outbox"
        path.write_bytes(_genuine())
    instance.start()
    assert instance.status()["stored"] == 0
    assert instance.stop() == 0


def test_the_event_of_a_reading_with_long_parameters_is_cut_to_size(instance: Instance) -> None:
    """With parameters as long as a request allows, the reading is still recorded."""
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    client.ask("completions", subjects=["x" * 15_000 for _ in range(4)], asked_by="42")
    until(lambda: instance.status()["stored"] == 1, "the reading is stored")
    (event,) = instance.events("--type", "report_read")
    assert event["user"] == "42"


def test_an_outbox_cut_short_under_the_daemon_does_not_take_it_down(instance: Instance) -> None:
    """It is read with pread: a mapping would end in SIGBUS. Whether it is given up or taken for
    ended depends on what the daemon last wrote past the cut: all of it is stored.
    """
    instance.start()
    with emitters(instance, count=1, events=200) as (emitter,):
        emitter.finish()
    until(lambda: instance.status()["stored"] == 200, "stored")
    code = (
        "import os, sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
        "c.emit('page_view'); assert c.flush(10)\n"
        "os.truncate(f\"{sys.argv[2]}/{os.getuid()}-{c.stats()['producer']}.outbox\", 100)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, instance.socket, str(instance.config.outbox_directory)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    names = ("outboxes", "outboxes_unreadable")
    until(lambda: [instance.status()[name] for name in names] == [0, 0], "the outbox is removed")
    status = instance.status()
    check_sums(status, attempted=201, accepted=201)
    assert status["quarantined"] in (0, 1)
    assert status["stored"] == 201
    assert instance.stop() == 0


def start_for_all_users(instance: Instance) -> None:
    instance.configure(socket_mode="0666", many_users=True)
    instance.directory.parent.chmod(0o711)
    instance.directory.chmod(0o711)
    instance.start()


@needs_users
def test_another_user_cannot_continue_a_producers_numbers(instance: Instance) -> None:
    """Producer = (the kernel's uid, id): a stolen id is another producer, or quarantined."""
    start_for_all_users(instance)
    with sender(instance) as sock:
        sock.send(datagram(1))
    until(lambda: instance.status()["stored"] == 1, "stored")
    code = (
        "import os, socket, sys\nos.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(sys.argv[1])\n"
        "s.send(bytes.fromhex(sys.argv[2]))\n"
    )
    forged = datagram(2).hex()
    subprocess.run([sys.executable, "-c", code, instance.socket, forged], check=True, cwd="/")
    until(lambda: instance.status()["stored"] == 2, "stored as another producer's")
    producers = {event["producer"] for event in instance.events()}
    assert producers == {f"0-{PRODUCER:016x}", f"65534-{PRODUCER:016x}"}
    status = instance.status()
    assert status["lost"] == 1  # its own number 1, which it never sent
    check_sums(status, attempted=3, accepted=3)


@needs_users
def test_another_users_outbox_is_read_and_its_id_cannot_be_forged(instance: Instance) -> None:
    start_for_all_users(instance)
    code = (
        "import os, sys\nfrom logd_client import Client\n"
        "os.setgid(65534); os.setuid(65534); os.umask(0o077)\nc = Client(sys.argv[1])\n"
        "assert all(c.emit('page_view', user='other') for _ in range(50))\n"
        "assert c.flush(20), c.stats()\n"
        "print(c.stats()['producer'], flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, instance.socket],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        producer_id = int(process.stdout.readline(), 16)
        with sender(instance) as sock:
            sock.send(datagram(51, producer_id))  # as root, under the other's id
        until(lambda: instance.status()["quarantined"] == 1, "the forged one is refused")
    finally:
        process.communicate(timeout=30)
    status = instance.settle()
    check_sums(status, attempted=50, accepted=50)
    assert status["stored"] == 50
    until(lambda: instance.status()["outboxes"] == 0, "its outbox is removed by the daemon")


def test_a_datagram_of_another_version_is_refused_by_name(instance: Instance) -> None:
    instance.start()
    data = bytearray(datagram(1))
    data[3] = 2
    assert DATAGRAM_HEAD.unpack_from(data)[1] == 2
    with sender(instance) as sock:
        sock.send(bytes(data))
    until(lambda: instance.status()["quarantined"] == 1, "it is refused")
    assert instance.status()["stored"] == 0
