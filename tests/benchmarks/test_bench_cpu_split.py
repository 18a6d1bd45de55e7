"""The CPU time of a daemon by step: names, attribution and samples."""

from __future__ import annotations

import time

import pytest

from benchmarks.ingest import cpu_split
from benchmarks.ingest.results import cpu
from tests.benchmarks.ingest_samples import results_of_a_run


def test_every_function_that_the_split_names_exists() -> None:
    missing = cpu_split.missing_names()
    assert not missing, f"cpu_split.STEPS names what the daemon no longer has: {', '.join(missing)}"
    names = ["logd.storage.store:commit", "logd.storage.store:no_such", "logd.nowhere"]
    assert cpu_split.missing_names(names) == names[1:]


def test_time_is_charged_to_the_innermost_listed_function() -> None:
    def step(*frames: str) -> str:
        return cpu_split.step_of((module, name) for module, name in map(str.split, frames))

    assert (
        step(
            "logd.storage.merkle root",
            "logd.storage.store _event_rows",
            "logd.storage.store commit",
        )
        == "hash"
    )
    assert (
        step(
            "logd.storage.store _insert",
            "logd.storage.store commit",
            "logd.ingest.delivery _commit",
        )
        == "insert"
    )
    assert step("logd.storage.store commit", "logd.ingest.delivery _commit") == "commit"
    assert step("logd_wire.wire decode_record", "logd.ingest.ordering datagram") == "receive"
    assert step("logd_wire.wire unpack_payload", "logd.ingest.ordering _take") == "decode"
    assert step("msgpack.fallback unpack", "logd.service run") == cpu_split.OTHER


def test_the_samples_add_up_to_the_cpu_time() -> None:
    before_ns = time.thread_time_ns()
    with cpu_split.sampling() as sampler:
        while time.thread_time_ns() - before_ns < 400_000_000:
            pass
    assert set(sampler.by_step) == {cpu_split.OTHER}
    # On a busy machine signals are late, and one that arrives while another is pending is dropped.
    assert 100_000_000 < sampler.by_step[cpu_split.OTHER] < 600_000_000


def test_the_daemons_time_is_split_in_the_sampled_proportions() -> None:
    times = cpu(results_of_a_run())
    assert times.way["insert"] == pytest.approx(6.0)
    assert times.way["decode"] == pytest.approx(3.0)
    assert times.way["send"] == 5.0
    assert sum(times.way.values()) == pytest.approx(15.0)
    assert times.parts == pytest.approx({"send": 2.0, "receive": 4.0, "insert": 4.0})
    assert times.over_parts == pytest.approx(1.5)
