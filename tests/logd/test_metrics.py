"""Metrics: names, values and what is left out, and `logd metrics`, which prints them."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from logd.runtime_stats import COMMIT_BOUNDS_S
from logd.status.metrics import MetricsSnapshot
from tests.logd.made_status import EMPTY, EVERYTHING, metrics_of, samples
from tests.logd.test_hostile import datagram, sender
from tests.support.instance import Instance, check_sums, until


def test_metrics_report_the_state_of_the_instance() -> None:
    assert EVERYTHING["logd_up", ""] == 1
    assert EVERYTHING["logd_events_stored_total", ""] == 100
    assert EVERYTHING["logd_outbox_room_seconds", ""] == 7200
    assert EVERYTHING["logd_disk_room_seconds", ""] == 30 * 86_400
    assert EVERYTHING["logd_last_turn_timestamp_seconds", ""] == 3
    assert EVERYTHING["logd_file_missing", "token"] == 1
    assert EVERYTHING["logd_file_missing", "socket"] == 0
    assert EVERYTHING["logd_files_restored_total", "socket"] == 3
    assert EVERYTHING["logd_lost_events_total", "tail unknown"] == 0
    assert EVERYTHING["logd_events_lost_claimed_total", ""] == 0
    assert ("logd_lost_events_total", "claimed") not in EVERYTHING


def test_commits_are_a_histogram_whose_buckets_hold_all_below_them() -> None:
    bucket = "logd_commit_duration_seconds_bucket"
    assert [EVERYTHING[bucket, str(bound)] for bound in COMMIT_BOUNDS_S[:3]] == [1, 3, 3]
    assert EVERYTHING[bucket, "10.0"] == 3
    assert EVERYTHING[bucket, "+Inf"] == 6 == EVERYTHING["logd_commit_duration_seconds_count", ""]
    assert EVERYTHING["logd_commit_duration_seconds_sum", ""] == 0.5


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    assert metrics_of(MetricsSnapshot(False, False, None, None)) == {
        ("logd_up", ""): 0, ("logd_stalled", ""): 0, ("logd_trail_readable", ""): 0,
    }  # fmt: skip
    names = {name for name, _ in metrics_of(MetricsSnapshot(True, True, None, EMPTY))}
    assert {
        "logd_trail_whole",
        "logd_outbox_room_seconds",
        "logd_disk_room_seconds",
    } & names == set()


def test_names_are_by_prometheus_conventions_and_labels_name_causes_only(
    instance: Instance,
) -> None:
    instance.start()
    text = instance.cli("metrics")
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"logd_[a-z_]+", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        for sample in family.samples:
            assert set(sample.labels) <= {"cause", "file", "le", "task"}, sample
    assert not re.search(r"_(ms|ns|minutes|days)\b", text)


def test_they_can_be_printed_with_the_daemon_up_stalled_and_down(instance: Instance) -> None:
    assert samples(instance.cli("metrics"))["logd_up", ""] == 0
    instance.start()
    with sender(instance) as sock:
        sock.send(b"garbage")
        for sequence in (1, 3):
            sock.send(datagram(sequence))
        until(lambda: instance.status()["stored"] == 2, "stored")
        found = samples(instance.cli("metrics"))
        assert found["logd_lost_events_total", "not received"] == 1
        assert found["logd_quarantined_total", ""] == 1
        with instance.database() as connection:
            connection.execute("BEGIN IMMEDIATE")
            sock.send(datagram(4))
            until(lambda: instance.status()["trouble"], "it has trouble")
            assert samples(instance.cli("metrics"))["logd_stalled", ""] == 1
    until(lambda: instance.status()["stored"] == 3, "stored")
    check_sums(instance.status(), attempted=4, accepted=4)
    instance.stop()
    found = samples(instance.cli("metrics"))
    assert (found["logd_up", ""], found["logd_stalled", ""]) == (0, 0)
    instance.config.key_file.write_text("f" * 64)
    assert samples(instance.cli("metrics"))["logd_trail_readable", ""] == 0
