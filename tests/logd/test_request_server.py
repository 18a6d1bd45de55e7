"""The request server with hostile peers: silent, slow, not reading, many; each is bounded.

Its steps one at a time (`served.py`); answers come from real threads.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.serve.request_server import (
    ACCEPT_PAUSE_S,
    ANSWER_TIMEOUT_S,
    BUG_LOG_INTERVAL_S,
    REQUEST_TIMEOUT_S,
    WAIT_TIMEOUT_S,
)
from logd.serve.usage import PUBLISH_INTERVAL_S
from tests.logd.served import ATTACKER, FORBIDDEN, GOOD, LARGE, RUNNING_MAX, SEATS_MAX, Served


@pytest.fixture
def served(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    made = Served(directory, monkeypatch)
    yield made
    made.close()


def test_a_connection_asks_any_number_of_times_and_each_answer_is_its_own(served: Served) -> None:
    sock = served.connect(GOOD)
    for line in (b"one\n", b"two\n"):
        sock.send(line)
        assert served.answer(sock) == line.upper()
    sock.send(b"three\nfour\nbye\nfive\n")  # not waiting for the answers
    answers = b""
    while part := served.answer(sock):
        answers += part
    assert answers == b"THREE\nFOUR\nBYE\n"


def test_a_peer_that_has_sent_all_it_will_gets_its_answer(served: Served) -> None:
    sock = served.connect(GOOD, b"wait\n")
    sock.shutdown(socket.SHUT_WR)
    served.step()
    served.service.go_on.set()
    assert served.answer(sock) == b"WAIT\n"
    assert served.answer(sock) == b""


def test_a_peer_that_says_nothing_is_let_go_after_a_second(served: Served) -> None:
    silent = served.connect(GOOD)
    served.after(REQUEST_TIMEOUT_S - 0.01)
    assert served.heard(silent) is None
    served.after(0.02)
    assert served.heard(silent) == b""


def test_the_second_is_for_the_whole_request_however_it_trickles_in(served: Served) -> None:
    slow = served.connect(GOOD)
    for _ in range(9):
        slow.send(b"x")
        served.after(REQUEST_TIMEOUT_S / 10)
        assert served.heard(slow) is None
    slow.send(b"x")
    served.after(REQUEST_TIMEOUT_S / 10)
    assert served.answer(slow) == b"bad_request: no complete request within 1 s\n"
    assert served.answer(slow) == b""


def test_a_connection_that_stays_has_a_second_for_each_further_request(served: Served) -> None:
    sock = served.connect(GOOD, b"one\n")
    assert served.answer(sock) == b"ONE\n"
    served.after(REQUEST_TIMEOUT_S + 0.01)
    assert served.heard(sock) == b""


def test_a_peer_that_does_not_read_its_answer_is_let_go_and_holds_up_no_other_user(
    served: Served,
) -> None:
    deaf = served.connect(ATTACKER, b"large\n")
    served.step_until(lambda: served.heard(deaf, 1), "its answer begins")
    served.after(ANSWER_TIMEOUT_S / 2)
    later = served.connect(ATTACKER, b"later\n")
    assert served.ask(GOOD, b"hello\n") == b"HELLO\n"
    assert served.service.asked == [b"large\n", b"hello\n"], "unread, it has its place still"
    part = 1
    while part < LARGE // 8:  # a little of it, now and then, is not enough
        part += len(served.answer(deaf))
    served.after(ANSWER_TIMEOUT_S / 2)
    assert served.answer(later) == b"LATER\n"
    while came := served.answer(deaf):
        part += len(came)
    assert part < LARGE, "cut off"


def test_silent_connections_keep_no_user_from_an_answer(served: Served) -> None:
    """Four times as many as there are seats, and the same user asks; then another one does."""
    silent = [served.connect(ATTACKER) for _ in range(4 * SEATS_MAX)]
    assert served.ask(ATTACKER, b"one\n") == b"ONE\n"
    assert served.ask(GOOD, b"two\n") == b"TWO\n"
    heard = [served.heard(sock) for sock in silent]
    assert heard.count(None) < SEATS_MAX
    assert all(text is None or text.startswith(b"busy: ") for text in heard)


def test_a_full_backlog_is_taken_at_once_and_none_in_it_keeps_others_out(served: Served) -> None:
    served.uid = ATTACKER
    for _ in range(64):
        served.connect_unnoticed()
    served.step()
    assert served.ask(ATTACKER, b"one\n") == b"ONE\n"


def test_one_users_questions_wait_in_order_and_leave_places_for_others(served: Served) -> None:
    heavy = [served.connect(ATTACKER, b"wait\n") for _ in range(SEATS_MAX // 2)]
    served.step_until(lambda: served.service.asked, "one is being answered")
    assert served.ask(GOOD, b"hello\n") == b"HELLO\n"
    assert served.service.asked == [b"wait\n", b"hello\n"], "one of the attacker's at a time"
    one_more = served.connect(ATTACKER, b"late\n")
    said = served.answer(one_more)
    assert said.startswith(b"busy: user id 1001 has as many requests open as it may have")
    assert b"ask again, fewer at a time" in said
    served.service.go_on.set()
    assert [served.answer(sock) for sock in heavy] == [b"WAIT\n"] * len(heavy)


def test_who_waits_too_long_for_its_turn_hears_busy(served: Served) -> None:
    first, second = (served.connect(ATTACKER, b"wait\n") for _ in range(2))
    served.after(WAIT_TIMEOUT_S)
    said = served.answer(second)
    assert said.startswith(b"busy: the running reports leave no place for user id 1001: wait")
    served.service.go_on.set()
    assert served.answer(first) == b"WAIT\n", "what runs is not timed by this"


def test_who_has_hung_up_while_waiting_is_not_answered(served: Served) -> None:
    first, second = (served.connect(ATTACKER, line) for line in (b"wait\n", b"gone\n"))
    second.close()
    served.step()
    served.service.go_on.set()
    assert served.answer(first) == b"WAIT\n"
    assert served.ask(ATTACKER, b"next\n") == b"NEXT\n"
    assert b"gone\n" not in served.service.asked


def test_who_has_hung_up_while_answered_leaves_its_place(served: Served) -> None:
    for _ in range(3 * SEATS_MAX):
        served.connect(ATTACKER, b"large\n").close()
    served.step_until(lambda: served.ask(ATTACKER, b"one\n") == b"ONE\n", "its turn comes")


def test_who_may_not_ask_hears_so_and_takes_no_running_place(served: Served) -> None:
    sock = served.connect(FORBIDDEN)
    assert served.heard(sock) is None, "not before it has asked: it may not be listening yet"
    sock.send(b"one\n")
    assert served.answer(sock) == b"forbidden\n"
    assert served.answer(sock) == b""
    assert served.service.asked == []


def test_a_listener_that_another_process_has_made_waiting_holds_nothing_up(served: Served) -> None:
    """systemd clears that flag of the socket whenever it hands it to a service."""
    served.ask(GOOD, b"one\n")
    served.listener_waits()
    turning = threading.Thread(target=served.step)
    served.connect_unnoticed(b"two\n")
    turning.start()
    turning.join(10)
    waits = turning.is_alive()
    if waits:
        served.connect_unnoticed()  # lets it go
        turning.join(10)
    assert not waits


def test_without_a_free_descriptor_it_waits_and_accepts_later(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = socket.socket.accept

    def refuses(_sock: socket.socket) -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "accept", refuses)
    sock = served.connect(GOOD, b"one\n")
    monkeypatch.setattr(socket.socket, "accept", accept)
    assert served.heard(sock) is None
    served.after(ACCEPT_PAUSE_S)
    assert served.answer(sock) == b"ONE\n"


def test_a_connection_that_went_before_it_was_accepted_costs_only_itself(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = socket.socket.accept
    fails = itertools.chain([True], itertools.repeat(False))

    def aborted_once(sock: socket.socket) -> object:
        if next(fails):
            raise OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", aborted_once)
    assert served.ask(GOOD, b"one\n") == b"ONE\n"


def test_without_a_free_thread_the_answer_is_busy(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        sock = served.connect(GOOD, b"one\n")
        start_s = time.monotonic()
        served.server.run_once(20)
        assert time.monotonic() - start_s < 20, "woken for it, with nothing else to happen"
        assert served.answer(sock).startswith(b"busy: no answer could be made now")
    assert served.ask(GOOD, b"two\n") == b"TWO\n"


def test_who_asks_and_who_holds_connections_is_published_once_a_second(served: Served) -> None:
    for _ in range(SEATS_MAX // 2 + 2):  # two of them are displaced
        served.connect(ATTACKER)
    assert served.ask(GOOD, b"one\n") == b"ONE\n"
    served.after(PUBLISH_INTERVAL_S)
    heavy = [served.connect(ATTACKER, b"wait\n") for _ in range(SEATS_MAX // 2)]
    served.connect(ATTACKER, b"late\n")
    served.now_s += 3
    served.service.go_on.set()
    for sock in heavy:
        served.answer(sock)
    before = len(served.published)
    served.after(PUBLISH_INTERVAL_S)
    assert len(served.published) == before + 1
    attacker, good = served.published[-1]
    assert (attacker["uid"], attacker["questions"], attacker["put_off"]) == (ATTACKER, 4, 1)
    assert attacker["let_go"] == SEATS_MAX + 2, "and who has not asked again after its answer"
    assert attacker["running_s"] >= 3
    assert (good["uid"], good["questions"], good["running_s"]) == (GOOD, 1, 0)
    served.ask(GOOD, b"two\n")
    assert len(served.published) == before + 1, "not twice within a second"
    served.after(PUBLISH_INTERVAL_S - 0.01)
    served.after(0.01)
    assert len(served.published) == before + 2


def test_a_mistake_in_an_answer_costs_that_answer_and_is_logged_once_a_minute(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(RUNNING_MAX + 1):
        assert served.ask(GOOD, b"mistake\n").startswith(b"busy: no answer could be made now")
    assert served.ask(GOOD, b"two\n") == b"TWO\n"
    assert len(caplog.records) == 1
    assert "a mistake, made by a test" in caplog.text
    served.after(BUG_LOG_INTERVAL_S)
    served.ask(GOOD, b"mistake\n")
    assert len(caplog.records) == 2


def test_what_happened_to_a_connection_is_not_taken_for_the_next_one_of_its_number(
    served: Served,
) -> None:
    """A new connection takes the descriptor of one that has just gone."""
    served.service.go_on.set()
    first, *_ = [served.connect(ATTACKER) for _ in range(SEATS_MAX // 2)]
    first.close()
    served.connect_unnoticed()
    assert served.ask(ATTACKER, b"wait\n") == b"WAIT\n"


def test_it_ends_with_its_lifeline_whatever_is_under_way(served: Served) -> None:
    served.connect(ATTACKER)
    served.connect(ATTACKER, b"wait\n")
    read_fd, write_fd = os.pipe()
    try:
        thread = threading.Thread(target=served.server.serve, args=(read_fd,), daemon=True)
        thread.start()
        os.close(write_fd)
        thread.join(60)
        assert not thread.is_alive()
    finally:
        with contextlib.suppress(OSError):
            os.close(read_fd)
