"""Admission: seats and running places are shared by user, and silence holds neither."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from logd.serve.admission import Admission

ATTACKER, GOOD, LATER = 1001, 1002, 1003


@dataclass(eq=False)
class Peer:
    uid: int


def fill(admission: Admission[Peer], uid: int, count: int = 1000, *, asks: bool) -> list[Peer]:
    """Seats connections of that user until none is free, or `count`."""
    seated: list[Peer] = []
    while len(seated) < count and admission.has_room(uid):
        seated.append(Peer(uid))
        admission.seat(seated[-1])
        if asks:
            admission.ask(seated[-1])
    return seated


def test_one_user_cannot_have_all_seats_nor_can_two_or_three() -> None:
    admission: Admission[Peer] = Admission(seats_max=32, running_max=4)
    held = [len(fill(admission, uid, asks=True)) for uid in (1, 2, 3, 4, 5)]
    assert held == [16, 8, 4, 2, 1]
    assert admission.has_room(6), "one is left for a user who comes after all these"


def test_an_idle_connection_of_the_same_user_goes_for_the_next_one_the_oldest_first() -> None:
    admission: Admission[Peer] = Admission(seats_max=8, running_max=4)
    first, second, *_ = fill(admission, ATTACKER, asks=False)
    assert admission.make_room(ATTACKER) is first
    admission.ask(first)
    assert admission.make_room(ATTACKER) is second, "the first one waits for an answer"
    admission.leave(second)
    assert admission.make_room(ATTACKER) is None
    assert admission.has_room(ATTACKER)


def test_none_goes_for_a_user_whose_connections_all_wait_for_answers() -> None:
    admission: Admission[Peer] = Admission(seats_max=8, running_max=4)
    fill(admission, ATTACKER, asks=True)
    fill(admission, GOOD, 1, asks=False)
    assert admission.make_room(ATTACKER) is None
    assert not admission.has_room(ATTACKER)


def test_where_all_seats_are_taken_the_user_with_most_idle_ones_loses_one_to_a_new_user() -> None:
    admission: Admission[Peer] = Admission(seats_max=8, running_max=4)
    for uid in (1, 2, 3, 4):
        fill(admission, uid, asks=False)
    assert not admission.has_room(LATER)
    idle = admission.make_room(LATER)
    assert idle is not None
    assert idle.uid == 1
    admission.leave(idle)
    assert admission.has_room(LATER)


def started(admission: Admission[Peer]) -> list[Peer]:
    found = []
    while (peer := admission.start_next()) is not None:
        found.append(peer)
    return found


def test_heavy_questions_of_one_user_leave_running_places_for_others() -> None:
    admission: Admission[Peer] = Admission(seats_max=128, running_max=4)
    heavy = fill(admission, ATTACKER, 32, asks=True)
    running = started(admission)
    assert running == heavy[:2]
    (question,) = fill(admission, GOOD, 1, asks=True)
    assert started(admission) == [question]
    (another,) = fill(admission, LATER, 1, asks=True)
    assert started(admission) == [another]
    admission.finish(running[0])
    assert started(admission) == [], "now three users have places, and half of four is left"
    admission.finish(running[1])
    assert started(admission) == [heavy[2]]


def test_users_take_turns_and_a_users_requests_keep_their_order() -> None:
    admission: Admission[Peer] = Admission(seats_max=128, running_max=1)
    waiting = [fill(admission, uid, 3, asks=True) for uid in (1, 2, 3)]
    order = []
    while (peer := admission.start_next()) is not None:
        order.append(peer)
        admission.finish(peer)
    assert order == [waiting[user][number] for number in range(3) for user in range(3)]


def test_a_connection_is_idle_again_after_its_answer() -> None:
    admission: Admission[Peer] = Admission(seats_max=2, running_max=1)
    (peer,) = fill(admission, GOOD, asks=True)
    assert admission.start_next() is peer
    assert admission.make_room(GOOD) is None, "not while it is being answered"
    admission.finish(peer)
    assert admission.make_room(GOOD) is peer


@given(st.lists(st.tuples(st.sampled_from("casfl"), st.integers(1, 5), st.integers(0, 20))))
def test_whatever_happens_the_bounds_hold_and_a_new_user_has_a_seat_or_takes_an_idle_one(
    happenings: list[tuple[str, int, int]],
) -> None:
    admission: Admission[Peer] = Admission(seats_max=8, running_max=3)
    idle: list[Peer] = []
    waiting: list[Peer] = []
    running: list[Peer] = []
    for kind, uid, number in happenings:
        if kind == "c":
            gone = admission.make_room(uid)
            if gone is not None:
                idle.remove(gone)
                admission.leave(gone)
            if admission.has_room(uid):
                idle.append(Peer(uid))
                admission.seat(idle[-1])
        elif kind == "a" and idle:
            waiting.append(idle.pop(number % len(idle)))
            admission.ask(waiting[-1])
        elif kind == "s" and (peer := admission.start_next()) is not None:
            waiting.remove(peer)
            running.append(peer)
        elif kind == "f" and running:
            idle.append(running.pop(number % len(running)))
            admission.finish(idle[-1])
        elif kind == "l" and (leaving := idle or waiting):
            admission.leave(leaving.pop(number % len(leaving)))
        assert len(idle) + len(waiting) + len(running) <= 8
        assert len(running) <= 3
        assert max(Counter(peer.uid for peer in running).values(), default=0) <= 2
        assert admission.has_room(99) or not idle or admission.make_room(99) in idle
