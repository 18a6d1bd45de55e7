"""The client in a request: it never blocks, never raises, and reports what it accepted."""

from __future__ import annotations

import gc
import json
import logging
import math
import socket
import subprocess
import sys
import threading
import time
from collections import UserDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from logd_client import Client, Outcome
from logd_client.producer import Producer
from logd_client.refusals import ClientRefusals
from logd_wire.outbox.layout import parse_header
from logd_wire.paths import PathTooLong
from logd_wire.rendezvous import RENDEZVOUS_SUFFIX
from logd_wire.schema import Malformed
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, ROOT, Instance, check_streams, check_sums, until


def check_stats(client: Client, **expected: Any) -> dict[str, Any]:
    """The client's own sum, and the figures expected of it."""
    stats = client.stats()
    assert stats["attempted"] == stats["accepted"] + stats["refused"]
    assert stats["refused"] == sum(stats["refused_by_cause"].values())
    assert {name: stats[name] for name in expected} == expected
    return stats


def without_outbox(instance: Instance) -> None:
    """While no daemon runs, which would put the file back."""
    Path(instance.socket + RENDEZVOUS_SUFFIX).unlink()


def run_child(code: str, instance: Instance) -> Any:
    """Runs code with a client `c`; what it prints, from JSON."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, os, sys\nfrom logd_client import Client\n"
            f"c = Client(sys.argv[1])\n{code}",
            instance.socket,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        {"event_type": "Not Snake"},
        {"event_type": ""},
        {"event_type": None},
        {"event_type": ["list"]},
        {"event_type": "x", "user": ""},
        {"event_type": "x", "user": "u" * 256},
        {"event_type": "x", "user": "\ud800"},
        {"event_type": "x", "user": 1.5},
        {"event_type": "x", "user": 10**5000},
        {"event_type": "x", "props": [1]},
        {"event_type": "x", "user": "u" * 10**6},
        {"event_type": "x", "props": ()},
        {"event_type": "x", "props": {"a": "x" * 40_000}},
        {"event_type": "x", "props": {"a": ["é" * 20_000]}},
        {"event_type": "x", "props": {"a": [1] * 40_000}},
        {"event_type": "x", "ts_ns": -1},
        {"event_type": "x", "ts_ns": 1.5},
        {"event_type": "x", "ts_ns": 2**63},
    ],
)
def test_what_breaks_the_schema_is_refused_counted_and_never_raised(
    instance: Instance, event: dict[str, Any]
) -> None:
    with Client(instance.socket) as client:
        assert client.emit(**event) is False
        assert client.emit("page_view") is True
        check_stats(client, accepted=1, refused_by_cause={"malformed": 1})
    with Client(instance.socket, strict=True) as client:
        with pytest.raises(Malformed):
            client.emit(**event)
        check_stats(client, accepted=0, refused_by_cause={"malformed": 1})


@pytest.mark.parametrize("timeout_s", ["x", [1], 10**400, -1, math.nan, None])
def test_a_timeout_that_is_not_a_number_loses_no_event(instance: Instance, timeout_s: Any) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("x", timeout_s=timeout_s) is Outcome.UNKNOWN
        assert client.emit("x", durable=True, timeout_s=timeout_s) is False
        assert client.flush(timeout_s) is False
        check_stats(client, accepted=4)  # two are `durable_unknown`


def test_any_mapping_will_do_for_props(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("x", props=MappingProxyType({"a": 1})) is True


def test_values_without_a_form_are_marked_and_raise_with_strict(instance: Instance) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for props in (loop, {"a": object()}):
        with Client(instance.socket) as client:
            assert client.emit("x", props=props) is True
            check_stats(client, accepted=1)
        with Client(instance.socket, strict=True) as client:
            with pytest.raises(Malformed, match=r"^props\."):
                client.emit("x", props=props)
            check_stats(client, refused_by_cause={"malformed": 1})


def test_a_full_outbox_refuses_and_takes_again_when_there_is_room(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=65536) as client:
        accepted = 0
        while client.emit("page_view", props={"text": "x" * 1000}):
            accepted += 1
        stats = check_stats(client, accepted=accepted, refused_by_cause={"outbox_full": 1})
        assert accepted == pytest.approx(62, abs=4)
        assert stats["outbox"]["room_bytes"] < 1100
        assert client.flush(0.01) is False
        # The daemon is another process, so that this one's lock shows.
        instance.start()
        assert client.flush(20) is True
        assert client.emit("page_view") is True
        assert client.flush(20) is True
        stats = check_stats(client, accepted=accepted + 1, pending=0)
    status = instance.settle()
    check_sums(
        status, attempted=stats["attempted"], accepted=stats["accepted"], refused=stats["refused"]
    )


def test_refusals_are_logged_at_a_bounded_rate_by_cause(
    instance: Instance, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each cause, with the count so far; later ones when the interval is over."""

    def lines(cause: str) -> list[str]:
        found = [r.getMessage() for r in caplog.records if f"({cause}," in r.getMessage()]
        caplog.clear()
        return found

    with Client(instance.socket, outbox_bytes=65536) as client, caplog.at_level(logging.WARNING):
        for _ in range(100):
            client.emit("Bad Type")
        (first,) = lines("malformed")
        assert "malformed, 1 so far" in first
        for _ in range(2000):
            client.emit("page_view", props={"text": "x" * 1000})
        client.emit("Bad Type")
        refused = check_stats(client)["refused_by_cause"]
        assert refused["malformed"] == 101 and refused["outbox_full"] > 1900
        assert [r.getMessage().partition(" so far")[0] for r in caplog.records] == [
            "event refused (outbox_full, 1"
        ]
        caplog.clear()
        monkeypatch.setattr("logd_client.refusals.LOG_INTERVAL_S", 0.0)
        client.emit("Bad Type")
        (later,) = lines("malformed")
        assert "malformed, 102 so far" in later
        stats = check_stats(client)
        assert stats["accepted"] + stats["refused"] == 2102


def test_a_handler_that_raises_while_a_refusal_is_counted_leaves_the_way_in_open(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Abort(BaseException):
        pass

    def interrupted(*_: object) -> None:
        raise Abort

    with Client(instance.socket) as client:
        with monkeypatch.context() as context:
            context.setattr(parts.refusals(client), "count", interrupted)
            with pytest.raises(Abort):
                client.emit("Bad Type")
        assert client.emit("page_view") is True


def test_an_event_cut_short_after_it_was_accepted_does_not_vouch_for_the_next(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_datagram: bytes) -> bool:
        raise KeyboardInterrupt

    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug of ours")

    with Client(instance.socket) as client:
        assert client.emit("page_view")
        with monkeypatch.context() as context:
            context.setattr(parts.producer(client), "send", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.emit("page_view")
        with monkeypatch.context() as context:
            context.setattr("logd_client.emitter.event_payload", broken)
            assert client.emit("page_view") is False
        check_stats(client, accepted=2, refused_by_cause={"internal_error": 1})


def test_a_closed_client_does_not_claim_that_all_is_on_the_disk(instance: Instance) -> None:
    client = Client(instance.socket)
    client.emit("page_view")
    client.close()
    assert client.flush(0.01) is False


def test_a_client_that_found_no_outbox_asks_again_and_keeps_its_counts(instance: Instance) -> None:
    """The daemon may come up after its clients; from then on nothing is lost any more."""
    hidden = Path(instance.socket + RENDEZVOUS_SUFFIX).rename(instance.directory / "hidden")
    with Client(instance.socket) as client:
        assert client.emit("page_view") is False
        parts.producer(client).retry_outbox_after_s = math.inf
        hidden.rename(instance.socket + RENDEZVOUS_SUFFIX)
        instance.start()
        until(lambda: client.emit("page_view"), "the daemon is there")
        until(lambda: instance.status()["stored"] == 1, "stored")  # nothing else keeps it
        assert client.stats()["outbox"]["reason"] is not None
        parts.producer(client).retry_outbox_after_s = 0.0
        assert client.emit("page_view")
        assert client.stats()["outbox"]["reason"] is None
        instance.kill()
        assert client.emit("page_view"), "kept, without a daemon"
        stats = check_stats(client, accepted=3, pending=2)
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=stats["attempted"], accepted=3, refused=stats["refused"])
    assert (status["stored"], status["lost"]) == (3, 0)


def test_a_client_without_an_outbox_asks_soon_at_first_and_then_less_often(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon puts back within a second what was removed under it; asking costs system calls."""
    now_s = start_s = time.monotonic()
    clock = parts.by_clock(lambda: now_s)
    with Client(instance.socket, outbox_directory=NO_DIRECTORY, environment=clock) as client:
        client.emit("page_view")
        producer = parts.producer(client)
        asked = []
        make = parts.producers(client).make

        def made() -> Producer:
            asked.append(round(now_s - start_s, 3))
            return make()

        monkeypatch.setattr(parts.producers(client), "make", made)
        for tenths in range(200):
            now_s = start_s + tenths / 10 + 0.001
            client.emit("page_view")
        assert asked == [0.501, 1.501, 3.501, 7.501, 12.501, 17.501]
        parts.use_default_directory(client)
        now_s = producer.retry_outbox_after_s
        client.emit("page_view")
        assert client.stats()["outbox"]["reason"] is None
        monkeypatch.undo()


def test_a_client_whose_outbox_was_removed_continues_with_another_and_counts_both(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no daemon there, what was in the removed file is lost: the ledger has it by number."""
    monkeypatch.setattr("logd_client.formers.REMOVED_WAIT_S", 0.2)
    monkeypatch.setattr("logd_client.client.REMOVED_WAIT_S", 0.2)
    with Client(instance.socket, outbox_bytes=65536) as client:
        assert client.emit("page_view")
        for path in instance.config.outbox_directory.glob("*.outbox"):
            path.unlink()
        parts.producer(client).compare_due_s = 0.0
        accepted = 1
        while client.emit("page_view"):
            accepted += 1
        assert accepted > 300, "the other outbox is filled"
        instance.start()
        assert client.flush(20) is False
        stats = check_stats(client, accepted=accepted, confirmed=accepted - 1, pending=1)
        assert len(list(instance.config.outbox_directory.glob("*.outbox"))) == 1
    until(lambda: instance.status()["lost"] == 1, "its farewell is booked")
    status = instance.settle()
    assert status["stored"] == accepted - 1
    check_sums(status, attempted=stats["attempted"], accepted=accepted, refused=stats["refused"])


def test_stats_can_be_asked_of_an_outbox_that_nothing_is_written_to_yet(
    instance: Instance,
) -> None:
    """Its producer followed another, so events were accepted, but none in this one."""
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        producers = parts.producers(client)
        producers.replace_producer(parts.producer(client), producers.make())
        assert client.stats()["outbox"]["room_s"] is None
        check_stats(client, accepted=1, refused_by_cause={}, pending=1)


def test_a_closed_client_refuses_and_keeps_its_counts(instance: Instance) -> None:
    client = Client(instance.socket)
    assert client.emit("page_view")
    client.close()
    client.close()
    assert client.emit("page_view") is False
    check_stats(client, accepted=1, refused_by_cause={"closed": 1}, pending=1)


def test_a_socket_path_too_long_is_reported_with_its_length() -> None:
    with pytest.raises(PathTooLong, match="has 200 bytes"):
        Client("/" + "x" * 199)


# -- the daemon away -----------------------------------------------------------------------------


def test_a_client_outlives_its_daemon_and_finds_the_next_one(instance: Instance) -> None:
    """A refused socket stays refused for ever; the client takes another."""
    with Client(instance.socket) as client:
        for _ in range(3):
            instance.start()
            assert client.emit("page_view")
            assert client.flush(20)
            instance.kill()
            assert client.emit("page_view")
        instance.start()
        assert client.flush(20)
        check_stats(client, accepted=6, refused=0, pending=0)
    check_sums(instance.settle(), attempted=6, accepted=6)
    check_streams(instance.events())


def test_without_an_outbox_only_what_the_kernel_took_is_accepted(instance: Instance) -> None:
    without_outbox(instance)
    with Client(instance.socket) as client:
        assert client.emit("page_view") is False  # no daemon
        check_stats(client, accepted=0, refused_by_cause={"undelivered": 1})
        assert "logd.sock.outboxes" in client.stats()["outbox"]["reason"]
        assert client.flush(0.01) is True  # nothing is accepted, so nothing is missing
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        for _ in range(5):
            until(lambda: client.emit("page_view"), "a place in the queue")
        stats = check_stats(client, accepted=5)
        assert client.flush(0.01) is False  # no confirmation can come
    until(lambda: instance.status()["stored"] == 5, "stored")
    check_sums(
        instance.status(), attempted=stats["attempted"], accepted=5, refused=stats["refused"]
    )


def test_a_signal_handler_that_raises_after_a_send_uses_no_sequence_twice(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an outbox: the kernel has it, the call is cut short, and the next has its own."""
    without_outbox(instance)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(instance.socket)
        with Client(instance.socket) as client:
            assert client.emit("page_view")
            producer = parts.producer(client)
            send = producer.send

            def interrupted(datagram: bytes) -> bool:
                send(datagram)
                raise KeyboardInterrupt

            monkeypatch.setattr(producer, "send", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.emit("page_view")
            monkeypatch.undo()
            assert client.emit("page_view")
        numbers = [int.from_bytes(receiver.recv(1000)[24:32], "little") for _ in range(3)]
        assert numbers == [1, 2, 3]


def test_one_system_call_sends_and_nothing_is_sent_again(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full: every event is accepted all the same, each sent exactly once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(instance.socket)
        with Client(instance.socket) as client:
            client.emit("page_view")
            producer = parts.producer(client)
            assert producer.socket is not None
            sends: list[bytes] = []

            real = producer.socket

            class Counting:
                fileno = real.fileno
                close = real.close

                def send(self, data: bytes, flags: int) -> int:
                    assert flags & socket.MSG_DONTWAIT
                    sends.append(data)
                    raise BlockingIOError

            monkeypatch.setattr(producer, "socket", Counting())
            assert all(client.emit("page_view") for _ in range(50))
            assert len(sends) == len(set(sends)) == 50
            check_stats(client, accepted=51, refused=0)


# -- durable -------------------------------------------------------------------------------------


def test_durable_is_true_when_it_is_on_the_disk(instance: Instance) -> None:
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("quiz_submitted", durable=True, timeout_s=20) is True
        instance.kill()
        assert instance.status()["stored"] == 1
        assert client.emit_durable("Bad Type") is Outcome.REFUSED
        assert client.emit("quiz_submitted", durable=True, timeout_s=0.01) is False


def test_an_unknown_outcome_is_settled_by_a_later_event(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=0) is Outcome.UNKNOWN
        assert client.stats()["unsettled"] == 1
        instance.start()
        assert client.flush(20)
        assert client.emit("page_view")
        assert client.flush(20)
        stats = check_stats(client, accepted=4, unsettled=0)
    check_sums(instance.settle(), attempted=stats["attempted"], accepted=4)
    events = instance.events()
    assert [event["type"] for event in events] == [
        "quiz_submitted", "durable_unknown", "durable_settled", "page_view",
    ]  # fmt: skip
    assert events[2]["user"] == "7"
    assert events[2]["props"] == {
        "producer": events[0]["producer"], "sequence": 1, "type": "quiz_submitted",
        "outcome": "stored",
    }  # fmt: skip


def test_without_an_outbox_durability_stays_unknown(instance: Instance) -> None:
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit_durable("page_view", timeout_s=0.01) is Outcome.UNKNOWN


# -- threads and forks ---------------------------------------------------------------------------


def test_threads_share_a_client_and_every_event_has_its_own_number(instance: Instance) -> None:
    instance.start()
    with Client(instance.socket) as client:
        results: list[int] = []

        def work(name: str) -> None:
            results.append(sum(client.emit("page_view", user=name) for _ in range(2000)))

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(30)
        stats = check_stats(client, accepted=sum(results), pending=0)
    status = instance.settle()
    check_sums(status, attempted=16_000, accepted=stats["accepted"], refused=stats["refused"])
    assert sum(check_streams(instance.events()).values()) == 16_000


def test_a_fork_in_the_middle_of_an_emit_splits_into_two_clean_producers(
    instance: Instance,
) -> None:
    """A signal handler forks while the main thread is anywhere inside emit, a hundred times."""
    instance.start()
    accepted = run_child(
        "c = Client(sys.argv[1], outbox_bytes=3 * 65536)\n"  # of one ring, so of one producer
        "import signal\nchildren = []\n"
        "def handler(*_):\n"
        "    if in_child: return\n"  # forked just before the loop sets the timer, it sets one too
        "    pid = os.fork()\n"
        "    if pid: children.append(pid)\n"
        "    else: globals()['in_child'] = True\n"
        "in_child = False\nsignal.signal(signal.SIGALRM, handler)\n"
        "total = 0\n"
        "while len(children) < 100 and not in_child:\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.0002)\n"
        "    for _ in range(100):\n"
        "        total += c.emit('page_view', user='parent')\n"
        "        if in_child: break\n"
        "if in_child:\n"
        "    assert c.emit('page_view', user='child')\n"
        "    assert c.stats()['accepted'] <= 2, c.stats()\n"
        "    os._exit(0)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "codes = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in children]\n"
        "assert codes == [0] * len(codes), codes\n"
        "assert c.flush(30)\nprint(json.dumps([total, c.stats()['accepted'], len(children)]))\n",
        instance,
    )
    total, by_stats, children = accepted
    assert total == by_stats
    status = instance.settle()
    streams = check_streams(instance.events())
    assert status["lost"] == 0
    assert max(streams.values()) == total
    assert status["stored"] == sum(streams.values())
    # A child that was forked inside an emit may have that one refused, and emits one of its own.
    assert all(1 <= n <= 2 for n in streams.values() if n != total)
    assert len(streams) == children + 1


def test_a_child_that_never_emits_touches_nothing(instance: Instance) -> None:
    files = run_child(
        "c.emit('page_view')\npid = os.fork()\n"
        "if pid == 0: sys.exit(0)\n"
        "os.waitpid(pid, 0)\nassert c.emit('page_view')\n"
        f"print(json.dumps(os.listdir({str(instance.config.outbox_directory)!r})))\n",
        instance,
    )
    assert len(files) == 2  # the token, and one outbox
    assert instance.status()["pending"] == 2


def test_a_child_that_python_did_not_fork_writes_no_farewell_for_its_parent(
    instance: Instance,
) -> None:
    """A C library may fork past Python's hooks; its child still runs what Python runs at exit."""
    farewells = run_child(
        "import ctypes, logd_client.client\nfrom logd_wire.outbox.layout import WORD_FAREWELL\n"
        "c.emit('page_view')\npid = ctypes.CDLL(None).fork()\n"
        "if pid == 0:\n    logd_client.client._end_clients()\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nwords = c._producers.current.outbox.writer._words\n"
        "before = words[WORD_FAREWELL]\nassert c.emit('page_view')\n"
        "print(json.dumps(before))\n",
        instance,
    )
    assert farewells == 0
    assert instance.status()["pending"] == 2


def test_a_refusal_in_a_signal_handler_while_an_outbox_is_made_is_reported(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new producer is the current one by then, and reports nothing yet."""
    report_all = ClientRefusals.report_all

    def interrupted(self: ClientRefusals, producer: Producer) -> None:
        assert client.emit("login") is False
        report_all(self, producer)

    monkeypatch.setattr(ClientRefusals, "report_all", interrupted)
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert parts.outbox(client).writer.refusals == {"reentered": 1}
        check_stats(client, accepted=1, refused_by_cause={"reentered": 1})


def test_a_client_that_is_dropped_is_closed_at_once(instance: Instance) -> None:
    """Not when garbage is collected: none of its parts refers to it."""
    client = Client(instance.socket)
    assert client.emit("page_view")
    outbox = parts.outbox(client)
    gc.disable()
    try:
        del client
        assert not outbox.intact(), "its descriptor is closed, and the lock released"
    finally:
        gc.enable()
    page = outbox._path.read_bytes()
    assert parse_header(page, len(page)).farewell


def test_an_emit_from_a_finaliser_inside_an_emit_is_refused(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage collection may run anywhere, with any object's __del__."""

    class Emitting:
        def __del__(self) -> None:
            emitted.append(client.emit("login"))

    def collected(producer: Any, payload: bytes, awaited: bool) -> int:
        Emitting()
        return write(producer, payload, awaited)

    emitted: list[bool] = []
    with Client(instance.socket) as client:
        write = parts.session(client).write
        monkeypatch.setattr(parts.session(client), "write", collected)
        assert client.emit("page_view") is True
        assert emitted == [False]
        check_stats(client, accepted=1, refused_by_cause={"reentered": 1})


def test_values_that_emit_while_they_are_read_stop_nothing(instance: Instance) -> None:
    """The caller's code runs before the guard is taken; also in the middle of packing."""

    class Emitting(UserDict[str, int]):
        def __getitem__(self, key: str) -> int:
            assert client.emit("login", props={"n": 1}) is True
            return super().__getitem__(key)

    with Client(instance.socket) as client:
        assert client.emit("page_view", props=Emitting(a=1, b=2)) is True
        assert client.emit("page_view", props={"within": Emitting(a=1)}) is True
        check_stats(client, accepted=5)


def test_room_is_reported_in_seconds_at_the_present_rate(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.stats()["outbox"] == {"reason": None}
        for _ in range(100):
            client.emit("page_view")
        outbox = client.stats()["outbox"]
        assert outbox["used_bytes"] + outbox["room_bytes"] == 8 * 1024 * 1024
        assert outbox["room_s"] > 0
        assert client.stats()["outbox"]["room_s"] is None  # none since the last call
