"""`ingest`: a tiny run, the window that is counted, the bare insert and the earlier queue."""

from __future__ import annotations

import contextlib
import time
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.harness.emitter import Emitted
from benchmarks.harness.part import Advance, Part, command
from benchmarks.harness.processes import Failed, Instance, temporary_directory
from benchmarks.ingest import bulk, tables
from benchmarks.ingest import measure as ingest
from benchmarks.ingest.earlier_queue import Commits
from benchmarks.ingest.results import Results
from benchmarks.ingest.run import (
    ALL,
    EMITTING,
    HELD_UP,
    Batch,
    Window,
    find_problems,
    window_of,
)
from logd.config import settings as configuration
from logd.storage import keyfile, row_writer, store, wal
from tests.benchmarks.ingest_samples import results_of_a_run

SECOND_NS = 10**9
TINY = ingest.Size(
    events=4000, rounds=1, other_rounds=1, raw_events=500, queue_s=0.5, producers=(2,)
)


@pytest.mark.long(minutes=0.2)
def test_a_tiny_run_measures_every_cell_and_its_sums_are_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest, "QUEUES", (("kept", "FULL"),))
    steps: list[int] = []
    with temporary_directory(None) as place:
        part = ingest.measure(place, TINY, lambda _now, done: steps.append(done))
    assert part.problems == []
    kinds = Counter(row["kind"] for row in part.rows)
    slow = not part.missing
    assert kinds == {"logd": 2 + slow, "bulk": 1, "raw": 1, **({"queue": 1} if slow else {})}
    assert all(row["stored"] > 0 for row in part.rows)
    assert all(row["stored"] == 4002 for row in part.rows if row["kind"] == "logd")
    assert [row["verified"] for row in part.rows if "verified" in row].count(True) == 1
    assert part.figures["ingest.resident_mib"] > 1
    assert sum(steps) == TINY.steps


def test_the_number_of_steps_matches_the_plan() -> None:
    # Three rounds with 4 producers; once each: 1 and 64 producers, sampled, slow, three queues.
    assert ingest.steps(long=False) == 3 + 2 + 2 + 3
    assert ingest.steps(long=True) == 3 * (1 + 2 + 2 + 3)


def test_without_a_compiler_slow_flushes_are_reported_as_missing(
    tmp_path: Path, no_compiler: None
) -> None:
    results, steps = Results(), []
    ingest.measure_slow(results, tmp_path / "slow", TINY, lambda _now, done: steps.append(done))
    assert results.missing == ["80 ms flushes: no C compiler"]
    assert sum(steps) == 1 + len(ingest.QUEUES)
    part = tables.part(results_of_a_run(slow=[], queues={}, missing=results.missing))
    assert not any("slow_flush" in name for name in part.figures)
    assert part.missing == results.missing


def test_a_failure_is_one_line() -> None:
    def fail(place: Path, long: bool, advance: Advance) -> Part:
        raise Failed("logd: exit code 3")

    result = CliRunner().invoke(command(lambda _long: 1, fail, "A part.", "More of it."), [])
    assert result.exit_code == 1
    assert "Error: logd: exit code 3" in result.output
    assert "Traceback" not in result.output


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
    # From the first full outbox until half of the emitters are done, without the last batch.
    assert window_of(TRAIL, emitted) == Window(HELD_UP, 6, 11, 600, 6.0)
    assert window_of(TRAIL, emitted).events_s == 100.0


def test_without_full_outboxes_the_window_is_the_emission_or_the_whole_run() -> None:
    assert window_of(TRAIL, [emitter(11.5, 13.0, started_s=3.0)]).when == EMITTING
    assert window_of(TRAIL, [emitter(None, 13.0, started_s=3.0)]) == Window(
        EMITTING, 3, 12, 1000, 10.0
    )
    assert window_of(TRAIL, [emitter(None, 1.5)]) == Window(ALL, 1, 20, 2000, 25.0)
    assert window_of(TRAIL[:1], [emitter(None, 1.5)]) == Window(ALL, 1, 1, 100, 25.0)
    with pytest.raises(Failed, match="no batch at all"):
        window_of(TRAIL, [emitter(None, 99.0, started_s=98.0)])


def test_the_bare_database_has_the_daemons_settings() -> None:
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
def test_the_bare_insert_stores_the_same_rows_in_the_same_transactions(
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


def test_the_bare_insert_checkpoints_as_the_store_does(tmp_path: Path) -> None:
    assert bulk.CHECKPOINT_PAGES == wal.CHECKPOINT_PAGES
    assert bulk.ROWS_PER_STATEMENT == row_writer.ROWS_PER_STATEMENT
    with contextlib.closing(bulk.create(tmp_path / "bulk.db", 1024 * 1024)) as bare:
        bare.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        bare.execute("CREATE TABLE filler (bytes BLOB)")
        assert not bulk.checkpoint(bare)
        bare.execute("INSERT INTO filler VALUES (zeroblob(?))", (4096 * bulk.CHECKPOINT_PAGES,))
        assert bulk.checkpoint(bare)


def test_the_queues_rate_counts_from_its_first_to_its_last_transaction(
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


def test_an_event_that_is_not_stored_is_a_problem() -> None:
    state = {"stored": 1, "quarantined": 0, "pending": 0, "lost": 0}
    assert find_problems([emitter(None, 1.0)], state) == []
    (problem,) = find_problems([emitter(None, 1.0)], {**state, "stored": 0})
    assert "accepted 1 != stored 0" in problem
    assert find_problems([emitter(None, 1.0)], {**state, "stored": 0, "lost": 1}) == ["1 lost"]
    late = replace(emitter(None, 1.0), flushed=False)
    assert "did not see all of its events confirmed" in find_problems([late], state)[0]
