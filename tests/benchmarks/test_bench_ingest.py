"""Ingest against a bare insert: what is compared, and that no sum is off unsaid."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner

from benchmarks.harness import slow_flush
from benchmarks.harness.emitter import Emitted, Load, drive
from benchmarks.harness.events import events
from benchmarks.harness.part import Part, Tell, command
from benchmarks.harness.processes import Failed, Instance, temporary_directory
from benchmarks.harness.sums import Sums
from benchmarks.harness.targets import TARGETS
from benchmarks.ingest import bulk, cpu_split
from benchmarks.ingest import measure as ingest
from benchmarks.ingest import text as ingest_text
from benchmarks.ingest.earlier_queue import Commits, Queued
from benchmarks.ingest.raw_datagrams import Raw
from benchmarks.ingest.results import Results, cpu, figures, problems, rows
from benchmarks.ingest.run import (
    ALL,
    EMITTING,
    HELD_UP,
    Batch,
    Ingested,
    Window,
    flat_out,
    window_of,
    wrong,
)
from logd.config import settings as configuration
from logd.storage import keyfile, store
from logd_wire.schema import check_event_type, check_props, check_user

SECOND_NS = 10**9
TINY = ingest.Size(
    events=4000, rounds=1, other_rounds=1, raw_events=500, queue_s=0.5, producers=(2,)
)
SUMS = Sums(attempted=1100, accepted=1000, refused=100, stored=1000)
DAEMON = Ingested(
    producers=4,
    flush_ms=0,
    window=Window(HELD_UP, 2, 9, 800, 0.01),
    sums=SUMS,
    commits=10,
    emitter_cpu_us=5.0,
    daemon_cpu_us=10.0,
    core_share=0.9,
    call_p50_ns=4000,
    peak_bytes=64 * 1024 * 1024 + 1,
)
BARE = bulk.Inserted(800, 800, commits=8, checkpoints=3, seconds=0.005, cpu_s=800 * 4e-6)
RAW = Raw(sent=100, received=100, bytes=190, send_cpu_s=2e-4, receive_cpu_s=4e-4)
QUEUE = Queued(
    attempted=30, accepted=20, refused=10, stored=15, pending=5, transactions=2, events_s=100.0
)


def measured(**changes: Any) -> Results:
    sampled = replace(DAEMON, split={"insert": 600, "decode": 300, cpu_split.OTHER: 100})
    body: dict[str, Any] = {
        "pairs": [(DAEMON, BARE), (replace(DAEMON, producers=64), BARE)],
        "raws": [RAW],
        "sampled": [sampled],
        "slow": [replace(DAEMON, flush_ms=80, window=Window(HELD_UP, 2, 9, 800, 0.02))],
        "queues": {("new", "NORMAL"): [replace(QUEUE, events_s=8.0)], ("kept", "FULL"): [QUEUE]},
    }
    return Results(**{**body, **changes})


@pytest.mark.long(minutes=1)
def test_a_tiny_run_measures_every_cell_and_its_sums_are_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest, "QUEUES", (("kept", "FULL"),))
    told: list[int] = []
    with temporary_directory(None) as place:
        part = ingest.measure(place, TINY, lambda _now, done: told.append(done))
    assert part.problems == []
    kinds = Counter(row["kind"] for row in part.rows)
    slow = not part.missing
    assert kinds == {"logd": 2 + slow, "bulk": 1, "raw": 1, **({"queue": 1} if slow else {})}
    assert all(row["stored"] > 0 for row in part.rows)
    assert all(row["stored"] == 4002 for row in part.rows if row["kind"] == "logd")
    assert [row["verified"] for row in part.rows if "verified" in row].count(True) == 1
    assert part.figures["ingest.resident_mib"] > 1
    assert sum(told) == TINY.steps


def test_the_steps_told_of_are_those_of_the_plan() -> None:
    # Three rounds of the figures' cell; 1 and 64 producers, sampled, slow, three queues once.
    assert ingest.steps(long=False) == 3 + 2 + 2 + 3
    assert ingest.steps(long=True) == 3 * (1 + 2 + 2 + 3)


def test_without_a_compiler_the_slow_disk_is_missing_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_compiler(_directory: Path, _ms: int) -> dict[str, str]:
        raise slow_flush.NoCompiler("no C compiler")

    monkeypatch.setattr(slow_flush, "environment", no_compiler)
    results, told = Results(), []
    ingest._slow(results, tmp_path / "slow", TINY, lambda _now, done: told.append(done))
    assert results.missing == ["80 ms flushes: no C compiler"]
    assert sum(told) == 1 + len(ingest.QUEUES)
    part = ingest_text.part(measured(slow=[], queues={}, missing=results.missing))
    assert not any("slow_flush" in name for name in part.figures)
    assert part.missing == results.missing


def test_a_failure_is_one_line() -> None:
    def fail(place: Path, long: bool, tell: Tell) -> Part:
        raise Failed("logd: exit code 3")

    result = CliRunner().invoke(command(lambda _long: 1, fail, "A part.", "More of it."), [])
    assert result.exit_code == 1
    assert "Error: logd: exit code 3" in result.output
    assert "Traceback" not in result.output


# -- the events ----------------------------------------------------------------------------------


def test_events_are_such_as_a_site_logs_and_no_two_are_the_same() -> None:
    packer = msgpack.Packer()
    seen, types = set(), Counter[str]()
    for event_type, user, props in itertools.islice(events(1), 3000):
        check_event_type(event_type)
        check_user(user)
        check_props(props)
        seen.add(packer.pack(props))
        types[event_type] += 1
    assert len(seen) == 3000
    assert set(types) == {"page_view", "task_completed", "quiz_submitted"}
    assert types["page_view"] > 2000


def test_events_of_a_seed_can_be_repeated_and_each_process_has_its_own() -> None:
    def some(seed: int) -> list[str]:
        return [repr(event) for event in itertools.islice(events(seed), 50)]

    assert some(1) == some(1)
    assert not set(some(1)) & set(some(2))


def test_a_refused_event_is_offered_again_and_the_first_refusal_is_noted() -> None:
    offered: list[str] = []

    def call(_event_type: str, *, user: str, props: dict[str, Any]) -> bool:
        offered.append(props["request_id"])
        return len(offered) != 2

    load = Load(emitters=1, events=3, refused_wait_s=0.0)
    driven = drive(call, load, 0, time.monotonic())
    assert len(driven.calls_ns) == 3
    assert offered[1] == offered[2]
    assert len(set(offered)) == 3
    assert driven.full_ns is not None


def test_the_outboxes_of_all_emitters_hold_the_same() -> None:
    assert {flat_out(count, 1).outbox_bytes * count for count in (1, 4, 64)} == {8 * 1024 * 1024}


# -- the window ----------------------------------------------------------------------------------


def emitter(full_s: float | None, emitted_s: float, started_s: float = 0.0) -> Emitted:
    return Emitted(
        calls_ns=array("Q", [1]),
        attempted=1,
        accepted=1,
        refused=0,
        started_s=0.0,
        confirmed_s=25.0,
        flushed=True,
        cpu_s=0.0,
        started_ns=int(started_s * SECOND_NS),
        full_ns=None if full_s is None else int(full_s * SECOND_NS),
        emitted_ns=int(emitted_s * SECOND_NS),
    )


TRAIL: list[Batch] = [(number, number * SECOND_NS, 100) for number in range(1, 21)]


def test_events_are_counted_while_full_outboxes_hold_the_emitters_up() -> None:
    emitted = [emitter(5.5, 12.0), emitter(6.5, 12.5), emitter(7.0, 18.0)]
    # From the first that was held up until half of them are done; the last batch is not in it.
    assert window_of(TRAIL, emitted) == Window(HELD_UP, 6, 11, 600, 6.0)
    assert window_of(TRAIL, emitted).events_s == 100.0


def test_where_no_outbox_was_full_for_long_it_is_while_they_emitted_or_all_of_it() -> None:
    assert window_of(TRAIL, [emitter(11.5, 13.0, started_s=3.0)]).when == EMITTING
    assert window_of(TRAIL, [emitter(None, 13.0, started_s=3.0)]) == Window(
        EMITTING, 3, 12, 1000, 10.0
    )
    assert window_of(TRAIL, [emitter(None, 1.5)]) == Window(ALL, 1, 20, 2000, 25.0)
    assert window_of(TRAIL[:1], [emitter(None, 1.5)]) == Window(ALL, 1, 1, 100, 25.0)
    with pytest.raises(Failed, match="no batch at all"):
        window_of(TRAIL, [emitter(None, 99.0, started_s=98.0)])


# -- the bare insert -----------------------------------------------------------------------------


def test_the_bare_database_is_made_as_the_daemons() -> None:
    with temporary_directory(None) as place, Instance(place / "i") as instance:
        config = configuration.load(instance.config)
        key = keyfile.read(config.key_file)
        made = store.Store(config.database, key, 1, 10, config.cache_bytes_max)
        bare = bulk.create(place / "bulk.db", config.cache_bytes_max)
        names = ["page_size", "cache_size", "journal_mode", "synchronous", "foreign_keys"]
        names += ["wal_autocheckpoint", "cipher_page_size", "kdf_iter", "cipher_use_hmac"]
        try:
            for query in [f"PRAGMA {name}" for name in names] + ["SELECT sql FROM sqlite_schema"]:
                theirs = made._connection.execute(query).fetchall()
                assert bare.execute(query).fetchall() == theirs, query
        finally:
            made.close()
            bare.close()


@pytest.mark.parametrize("count", [1, 19, 2221])
def test_the_bare_insert_stores_the_very_rows_in_as_many_transactions(
    tmp_path: Path, count: int
) -> None:
    producer = (1, 0, "00", 0, 1, 0, "boot", 1, 0, 0)
    made = [(n, 1, n, n, 1, "7" if n % 2 else None, b"\x80", b"s" * 16) for n in range(count)]
    trail = bulk.Trail(
        {"producer": [producer], "event_type": [(1, "page_view", 20, 0)]}, [made[:10], made[10:]]
    )
    with contextlib.closing(bulk.create(tmp_path / "bulk.db", 1024 * 1024)) as bare:
        inserted = bulk.measure(trail, bare)
        assert bare.execute("SELECT * FROM event ORDER BY id").fetchall() == made
    assert (inserted.events, inserted.stored, inserted.commits) == (count, count, 2)


def test_it_makes_checkpoints_where_the_store_does(tmp_path: Path) -> None:
    assert bulk.CHECKPOINT_PAGES == store._CHECKPOINT_PAGES
    assert bulk.ROWS_PER_STATEMENT == store._ROWS_PER_STATEMENT
    with contextlib.closing(bulk.create(tmp_path / "bulk.db", 1024 * 1024)) as bare:
        bare.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        bare.execute("CREATE TABLE filler (bytes BLOB)")
        assert not bulk.checkpoint(bare)
        bare.execute("INSERT INTO filler VALUES (zeroblob(?))", (4096 * bulk.CHECKPOINT_PAGES,))
        assert bulk.checkpoint(bare)


# -- the queue of the earlier design -------------------------------------------------------------


def test_the_queues_rate_is_that_between_its_first_and_last_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored: list[object] = []
    commits = Commits(lambda _connection, rows: stored.extend(rows))
    assert commits.events_s() == 0.0
    clock_s = iter([10.0, 11.0, 14.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock_s))
    for transaction in ([1] * 10, [2] * 10, [3] * 6):
        commits(None, transaction)
    assert (commits.events, commits.count, len(stored)) == (26, 3, 26)
    assert commits.events_s() == 4.0


# -- where the time goes -------------------------------------------------------------------------


def test_every_function_that_the_split_names_is_there() -> None:
    gone = cpu_split.gone()
    assert not gone, f"cpu_split.STEPS names what the daemon has no more: {', '.join(gone)}"
    names = ["logd.storage.store:commit", "logd.storage.store:no_such", "logd.nowhere"]
    assert cpu_split.gone(names) == names[1:]


def test_the_innermost_function_that_is_listed_takes_the_time() -> None:
    def step(*frames: str) -> str:
        return cpu_split.step_of((module, name) for module, name in map(str.split, frames))

    assert (
        step(
            "logd.storage.hash_chain leaf",
            "logd.storage.store _event_rows",
            "logd.storage.store commit",
        )
        == "hash"
    )
    assert (
        step(
            "logd.storage.store _insert",
            "logd.storage.store commit",
            "logd.ingest.delivery commit",
        )
        == "insert"
    )
    assert step("logd.storage.store commit", "logd.ingest.delivery commit") == "commit"
    assert step("logd_wire.wire decode_record", "logd.ingest.ordering take_datagram") == "receive"
    assert step("logd_wire.wire unpack_payload", "logd.ingest.ordering _take") == "decode"
    assert step("msgpack.fallback unpack", "logd.service run") == cpu_split.OTHER


def test_the_samples_are_of_processor_time_and_all_of_it() -> None:
    before_ns = time.thread_time_ns()
    with cpu_split.sampling() as sampler:
        while time.thread_time_ns() - before_ns < 400_000_000:
            pass
    assert set(sampler.by_step) == {cpu_split.OTHER}
    # A busy machine is late with signals, and drops those that come while one waits.
    assert 100_000_000 < sampler.by_step[cpu_split.OTHER] < 600_000_000


def test_the_daemons_time_is_split_as_its_samples_were() -> None:
    times = cpu(measured())
    assert times.way["insert"] == pytest.approx(6.0)
    assert times.way["decode"] == pytest.approx(3.0)
    assert times.way["send"] == 5.0
    assert sum(times.way.values()) == pytest.approx(15.0)
    assert times.parts == pytest.approx({"send": 2.0, "receive": 4.0, "insert": 4.0})
    assert times.over_parts == pytest.approx(1.5)


# -- figures, sums and text ----------------------------------------------------------------------


def test_the_figures_are_medians_of_the_ratios_in_each_round() -> None:
    fast = replace(DAEMON, window=Window(HELD_UP, 2, 9, 800, 0.005))
    slow_bare = replace(BARE, seconds=0.01)
    # 80,000/s against 160,000/s; 160,000/s against 80,000/s; 80,000/s against 80,000/s.
    pairs = [(DAEMON, BARE), (fast, slow_bare), (DAEMON, slow_bare)]
    found = figures(measured(pairs=pairs))
    assert found["ingest.over_bulk_insert"] == pytest.approx(1.0)
    assert found["ingest.events_s"] == pytest.approx(80_000)
    assert found["ingest.bulk_events_s"] == pytest.approx(80_000)
    assert found["ingest.slow_flush_events_s"] == pytest.approx(40_000)
    assert found["ingest.slow_flush_over_queue"] == pytest.approx(400)
    assert found["ingest.resident_mib"] == 64.1  # a byte over is over


def test_the_figures_that_targets_need_are_there() -> None:
    needed = {one.figure for one in TARGETS if one.part == "ingest"}
    assert needed <= set(figures(measured()))


def test_every_wrong_sum_is_said_with_whose_it_is() -> None:
    assert problems(measured()) == []
    lossy = replace(DAEMON, problems=["2 lost"])
    found = problems(
        measured(
            pairs=[(lossy, replace(BARE, stored=799)), (DAEMON, replace(BARE, events=8, stored=8))],
            raws=[replace(RAW, received=99)],
            slow=[replace(DAEMON, flush_ms=80, problems=["1 pending"])],
            queues={("kept", "FULL"): [replace(QUEUE, stored=14)]},
        )
    )
    assert [text.partition(":")[0] for text in found] == [
        *("logd, 4 producers", "logd, 4 producers, flushes + 80 ms"),
        *("bare insert, 4 producers", "bare insert, 4 producers"),
        *("queue, kept FULL", "raw datagrams"),
    ]


def test_what_a_daemon_has_not_stored_is_a_problem() -> None:
    state = {"stored": 1, "quarantined": 0, "pending": 0, "lost": 0}
    assert wrong([emitter(None, 1.0)], state) == []
    assert "accepted 1 != stored 0" in wrong([emitter(None, 1.0)], {**state, "stored": 0})[0]
    assert wrong([emitter(None, 1.0)], {**state, "stored": 0, "lost": 1}) == ["1 lost"]
    late = replace(emitter(None, 1.0), flushed=False)
    assert "did not see all of its events confirmed" in wrong([late], state)[0]


def test_every_row_has_its_sums() -> None:
    found = rows(measured())
    assert len(found) == 2 * 2 + 1 + 1 + 2 + 1
    for row in found:
        assert {"attempted", "accepted", "refused", "stored", "pending", "lost"} <= set(row)
    json.dumps(found)


def test_the_text_says_what_the_figures_are() -> None:
    text = " ".join(ingest_text.part(measured()).text.split())
    assert "With 4 producers logd stores 0.50 x the events" in text
    assert "the same 800 rows in the same transactions, which made 3 checkpoints" in text
    assert "An event takes 15 us of processor time in emitter and daemon, 1.50 x" in text
    assert "Of the daemon's part insert and decode take 90%" in text
    assert "stores 40,000 events/s with 4 producers, 400 x those" in text
    assert "WRONG" not in text
    off = measured(pairs=[(replace(DAEMON, problems=["2 lost"]), BARE)])
    assert ingest_text.stored(off).count("WRONG") == 1


def test_runs_whose_outboxes_were_not_full_are_said() -> None:
    assert "not so in" not in ingest_text.part(measured()).text
    emitting = replace(DAEMON, window=replace(DAEMON.window, when=EMITTING))
    text = " ".join(
        ingest_text.part(measured(pairs=[(emitting, BARE), (DAEMON, BARE)])).text.split()
    )
    assert "not so in 1 of 2 runs" in text


def test_a_daemon_that_waited_for_a_processor_is_said() -> None:
    assert "of a core only" not in ingest_text.part(measured()).text
    starved = replace(DAEMON, core_share=0.4)
    text = " ".join(ingest_text.part(measured(pairs=[(starved, BARE)])).text.split())
    assert "logd had 40% of a core only" in text


def test_the_pictures_hold_their_figures() -> None:
    pictures = {one.name: one.svg.decode() for one in ingest_text.part(measured()).plots}
    assert set(pictures) == {"ingest-events", "ingest-cpu"}
    assert "80,000" in pictures["ingest-events"]
    for name in ("send", "insert", "decode", "rest"):
        assert name in pictures["ingest-cpu"]
