"""Whose turn it is: shares of a batch and of open files, without any of either."""

from __future__ import annotations

import random

from logd.batch import Batch, Producer
from logd.fairness import Files, Waiting, in_turn
from shared.wire import Event


def test_none_waits_long_whatever_the_others_ask() -> None:
    """Room for few, asked for by many that never have enough: everybody gets a turn in time."""
    for seed in range(30):
        rng = random.Random(seed)
        producers = [
            Producer(uid, number, 0) for uid in range(5) for number in range(rng.randrange(1, 12))
        ]
        greedy = {producer: rng.choice((1, 5, 1000)) for producer in producers}
        since = dict.fromkeys(producers, 0)
        room = rng.randrange(5, 15)
        for _turn in range(60):
            batch = Batch(room, 10**6)
            waiting = [Waiting(producer, None, True, greedy[producer]) for producer in producers]
            rng.shuffle(waiting)
            for one, share in in_turn(waiting, batch):
                since[one.producer] += 1
                if share is not None:
                    since[one.producer] = 0
                    for number in range(min(share.events, one.events)):
                        batch.add(one.producer, number, Event("page_view", 1, None, b""), 1)
            assert batch.entries <= room + 5, f"seed {seed}: one more a user at most"
            # Each of five users gets at least one of its own read in each turn.
            assert max(since.values()) <= 12, f"seed {seed}: {sorted(since.values())}"


def test_what_one_does_not_want_the_others_get() -> None:
    greedy, modest = Producer(1, 1, 0), Producer(2, 2, 0)
    batch = Batch(100, 10**6)
    waiting = [Waiting(greedy, None, True, 1000), Waiting(modest, None, True, 3)]
    got = {}
    for one, share in in_turn(waiting, batch):
        assert share is not None
        got[one.producer.uid] = count = min(share.events, one.events)
        for number in range(count):
            batch.add(one.producer, number, Event("page_view", 1, None, b""), 1)
    assert got == {1: 97, 2: 3}


def test_files_are_left_for_a_user_who_comes_later() -> None:
    files = Files(40, 1000, shared=True)
    for uid in (1, 2, 3):
        while files.room_for(uid):
            files.add(uid)
    assert [files.held(uid) for uid in (1, 2, 3)] == [20, 10, 5]
    assert files.room_for(4)
    alone = Files(40, 1000, shared=False)
    while alone.room_for(1):
        alone.add(1)
    assert alone.held(1) == 40, "nothing is set aside where there is only one user"
