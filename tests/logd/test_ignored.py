"""Counts of what was ignored, by sender: bounded, and many senders displace no other user."""

from __future__ import annotations

from logd.ingest.ignored import SENDERS_MAX, Ignored, Tally


def test_a_user_with_processes_without_end_is_one_row_and_pushes_out_no_other() -> None:
    tally = Tally()
    for uid in range(1, 11):
        tally.add(uid, 5, count=3)
    for pid in range(1, 10_000):
        tally.add(99, pid)
    assert len(tally.counts) <= SENDERS_MAX
    assert all(tally.counts[uid, 5] == 3 for uid in range(1, 11))
    assert sum(count for (uid, _), count in tally.counts.items() if uid == 99) == 9_999
    assert tally.counts[99, None] > 9_000
    assert tally.total == 9_999 + 30


def test_users_without_end_leave_the_one_who_sent_most() -> None:
    tally = Tally()
    tally.add(7, 1, count=1000)
    for uid in range(1000, 4000):
        tally.add(uid, 1)
    assert len(tally.counts) <= SENDERS_MAX
    assert tally.counts[7, 1] == 1000


def test_the_senders_of_most_come_first_with_each_kind_in_its_column() -> None:
    ignored = Ignored()
    ignored.duplicates.add(1, 10, count=5)
    ignored.early.add(2, 20, count=2)
    ignored.farewells.add(2, 20, count=3)
    ignored.skipped.add(2, 20)
    ignored.duplicates.add(3, 30)
    assert ignored.total == 12
    assert ignored.senders(2) == [
        {
            "uid": 2,
            "pid": 20,
            "duplicates": 0,
            "early": 2,
            "farewells": 3,
            "skipped": 1,
            "closings": 0,
        },
        {
            "uid": 1,
            "pid": 10,
            "duplicates": 5,
            "early": 0,
            "farewells": 0,
            "skipped": 0,
            "closings": 0,
        },
    ]


def test_of_a_user_with_most_processes_those_that_sent_least_are_merged_half_at_a_time() -> None:
    tally = Tally()
    tally.add(1, 1, count=7)
    tally.add(2, None, count=3)
    for pid in range(1, SENDERS_MAX - 1):
        tally.add(99, pid, count=1000 - pid)  # the later ones sent less
    assert len(tally.counts) == SENDERS_MAX
    tally.add(99, 5000, count=1)
    left = {pid: count for (uid, pid), count in tally.counts.items() if uid == 99}
    merged = range(SENDERS_MAX - 2, 48, -1)  # 50 of 98
    assert left.pop(None) == sum(1000 - pid for pid in merged)
    assert left == {**{pid: 1000 - pid for pid in range(1, 49)}, 5000: 1}
    assert (tally.counts[1, 1], tally.counts[2, None]) == (7, 3)
