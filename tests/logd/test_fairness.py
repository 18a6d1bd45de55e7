"""Fair scheduling: shares of a batch and of open files for each user."""

from __future__ import annotations

import random

from logd.batch import Batch, Producer
from logd.ingest.scheduling import (
    SHARED_EVENTS_MAX,
    SHARED_OUTBOXES_MAX,
    OpenFileQuota,
    ReadRequest,
    schedule,
)
from tests.logd.test_exact_bounds import take


def test_none_waits_long_whatever_the_others_ask() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        producers = [
            Producer(uid, number, 0) for uid in range(5) for number in range(rng.randrange(1, 12))
        ]
        greedy = {producer: rng.choice((1, 5, 1000)) for producer in producers}
        since = dict.fromkeys(producers, 0)
        room = rng.randrange(5, 15)
        for _step in range(60):
            batch = Batch(room, 10**6)
            waiting = [
                ReadRequest(producer, None, True, greedy[producer]) for producer in producers
            ]
            rng.shuffle(waiting)
            for one, share in schedule(waiting, batch):
                since[one.producer] += 1
                if share is not None:
                    since[one.producer] = 0
                    take(batch, one, share)
            assert batch.entries <= room + 5, f"seed {seed}: one more a user at most"
            # Each of five users gets at least one of its own read in each step.
            assert max(since.values()) <= 12, f"seed {seed}: {sorted(since.values())}"


def test_what_one_does_not_want_the_others_get() -> None:
    greedy, modest = Producer(1, 1, 0), Producer(2, 2, 0)
    batch = Batch(100, 10**6)
    waiting = [ReadRequest(greedy, None, True, 1000), ReadRequest(modest, None, True, 3)]
    got = {}
    for one, share in schedule(waiting, batch):
        got[one.producer.uid] = take(batch, one, share)
    assert got == {1: 97, 2: 3}


def test_where_several_users_have_outboxes_a_step_reads_less_and_each_gets_a_part() -> None:
    """One user has a thousand outboxes, with one event or many in each."""
    for asked in (1, 1000):
        crowd = [Producer(1, number, 0) for number in range(1000)]
        good = Producer(2, 1, 0)
        for _step in range(5):
            batch = Batch(20_000, 10**8)
            waiting = [ReadRequest(producer, None, True, asked) for producer in crowd]
            waiting.append(ReadRequest(good, None, True, 1))
            read = set()
            for one, share in schedule(waiting, batch, shared=True):
                if share is not None:
                    read.add(one.producer)
                    take(batch, one, share)
            assert good in read
            assert batch.entries <= SHARED_EVENTS_MAX
            assert len(read) <= SHARED_OUTBOXES_MAX


def test_where_only_one_user_has_outboxes_a_step_reads_a_whole_batch() -> None:
    batch = Batch(20_000, 10**8)
    ((_, share),) = schedule([ReadRequest(Producer(1, 1, 0), None, True, 10**6)], batch)
    assert share is not None and share.events == 20_000
    files = OpenFileQuota(40, 1000, shared=True)
    files.add(1)
    files.add(1)
    assert (files.several_users, files.others_than(1), files.others_than(2)) == (False, False, True)
    files.add(2)
    assert (files.several_users, files.others_than(1)) == (True, True)


def test_files_are_left_for_a_user_who_comes_later() -> None:
    files = OpenFileQuota(40, 1000, shared=True)
    for uid in (1, 2, 3):
        while files.has_room(uid):
            files.add(uid)
    assert [files.held(uid) for uid in (1, 2, 3)] == [20, 10, 5]
    assert files.has_room(4)
    alone = OpenFileQuota(40, 1000, shared=False)
    while alone.has_room(1):
        alone.add(1)
    assert alone.held(1) == 40, "nothing is set aside where there is only one user"
