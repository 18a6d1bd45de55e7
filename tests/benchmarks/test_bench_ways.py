"""The ways of logging: which events survive their process after the call has returned True."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
from pathlib import Path
from typing import Any

import pytest
import sqlcipher3
from flask import Flask

from benchmarks.harness.event_database import (
    CIPHERS,
    EVENT_TYPE,
    JOURNALS,
    PROPS,
    Database,
    Synchronous,
    make_row,
    store,
)
from benchmarks.request import access_log, queues, site, ways
from benchmarks.request.files import FILE, JsonLines, import_lines
from benchmarks.request.ledger import LANE_EVENTS, Ledger, name_of
from benchmarks.request.queues import ProcessQueue, ThreadQueue, wait_for_writers


@pytest.mark.parametrize("keep_connection", [False, True])
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("cipher", ["plain", "raw"])
def test_an_event_written_in_the_request_is_stored(
    tmp_path: Path, cipher: str, journal: str, keep_connection: bool
) -> None:
    database = Database(tmp_path, cipher, journal)
    database.prepare()
    way = Synchronous(database, keep_connection=keep_connection)
    assert [way.log(f"0-{n}", False) for n in range(3)] == [True] * 3
    assert database.stored() == ["0-0", "0-1", "0-2"]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_only_a_file_without_a_key_is_readable_without_one(tmp_path: Path, cipher: str) -> None:
    database = Database(tmp_path, cipher, "delete")
    database.prepare()
    if cipher == "plain":
        assert Database(tmp_path, "plain").stored() == []
    else:
        with pytest.raises(sqlcipher3.DatabaseError):
            Database(tmp_path, "plain").stored()


def test_an_event_is_refused_while_the_file_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.harness.event_database.BUSY_TIMEOUT_S", 0.0)
    database = Database(tmp_path, "raw", "wal")
    database.prepare()
    way = Synchronous(database, keep_connection=True)
    other = database.open()
    other.execute("BEGIN IMMEDIATE")
    assert not way.log("0-0", False)
    other.execute("ROLLBACK")
    assert way.log("0-1", False)
    assert database.stored() == ["0-1"]


def test_a_full_queue_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "QUEUE_EVENTS_MAX", 3)
    monkeypatch.setattr(queues, "write", lambda *_: None)
    way = ThreadQueue(Database(tmp_path, "raw"), keep_connection=False)
    assert [way.log(f"0-{n}", False) for n in range(5)] == [True, True, True, False, False]


def test_a_queue_is_written_in_transactions_of_ten(tmp_path: Path) -> None:
    batches: list[int] = []

    class Ends:
        """A queue that ends after 25 events."""

        def __init__(self) -> None:
            self._rows = [make_row(f"0-{n}") for n in range(25)]

        def get(self) -> Any:
            if not self._rows:
                raise EOFError
            return self._rows.pop(0)

        get_nowait = get

    def counted(connection: Any, rows: Any) -> None:
        batches.append(len(rows))
        store(connection, rows)

    database = Database(tmp_path, "raw")
    database.prepare()
    queues.write(Ends(), database, None, counted)
    assert batches == [10, 10, 5]
    assert len(database.stored()) == 25


def _offer_and_die(directory: Path, events: int) -> None:
    way = ProcessQueue(Database(directory, "raw"))
    for number in range(events):
        assert way.log(f"0-{number}", False)
    way.queue.close()
    way.queue.join_thread()  # everything has left this process
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_child_process_stores_its_events_after_its_parent_is_killed(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path, "raw")
    database.prepare()
    parent = multiprocessing.get_context("fork").Process(target=_offer_and_die, args=(tmp_path, 50))
    parent.start()
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    assert wait_for_writers(tmp_path)
    assert len(database.stored()) == 50


def test_the_child_process_is_in_another_process_group(tmp_path: Path) -> None:
    database = Database(tmp_path, "raw")
    database.prepare()
    ProcessQueue(database)
    (child,) = queues.writers(tmp_path)
    try:
        assert os.getpgid(child) != os.getpgrp()
    finally:
        os.kill(child, signal.SIGKILL)
    assert wait_for_writers(tmp_path)


def test_a_failed_transaction_is_rolled_back(tmp_path: Path) -> None:
    database = Database(tmp_path, "raw")
    database.prepare()
    connection = database.open()
    bad: Any = (1, None, "7", "{}")
    with pytest.raises(sqlcipher3.IntegrityError):
        store(connection, [make_row("0-0"), bad])
    assert not connection.in_transaction
    assert database.stored() == []


def _start_and_be_killed(directory: Path) -> None:
    def open_without_parent(database: Database) -> Any:
        os.kill(os.getppid(), signal.SIGKILL)  # which waits for this
        return database.open()

    queues.open_retrying = open_without_parent
    ProcessQueue(Database(directory, "raw"))


def test_the_child_process_ends_when_its_parent_is_killed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "DRAIN_TIMEOUT_S", 5.0)
    Database(tmp_path, "raw").prepare()
    context = multiprocessing.get_context("fork")
    parent = context.Process(target=_start_and_be_killed, args=(tmp_path,))
    parent.start()
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    assert len(queues.writers(tmp_path)) == 1
    assert wait_for_writers(tmp_path)


def test_a_writer_ends_when_its_directory_is_removed(tmp_path: Path) -> None:
    rows: queue.Queue[Any] = queue.Queue()
    rows.put(make_row("0-0"))
    with pytest.raises(sqlcipher3.OperationalError):
        queues.write(rows, Database(tmp_path / "gone", "raw"), None)


def test_complete_lines_are_imported_and_a_torn_one_is_not(tmp_path: Path) -> None:
    way = JsonLines(tmp_path)
    assert [way.log(f"0-{n}", False) for n in range(3)] == [True] * 3
    with open(tmp_path / FILE, "ab") as file:
        file.write(b'{"ts_ns": 1, "ty')
    assert import_lines(tmp_path) == ["0-0", "0-1", "0-2"]


def test_without_a_file_nothing_is_imported(tmp_path: Path) -> None:
    assert import_lines(tmp_path) == []


def test_the_ledger_survives_the_process_that_wrote_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    pid = os.fork()
    if pid == 0:
        mine = Ledger(tmp_path)
        mine.record_answer(mine.record_call("1-0"), True)
        mine.record_answer(mine.record_call("1-1"), False)
        mine.record_call("2-5")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    outcomes = ledger.outcomes()
    assert outcomes.accepted == {"1-0"}
    assert outcomes.refused == {"1-1"}
    assert outcomes.cut == {"2-5"}


def test_an_event_beyond_the_ledger_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room"):
        Ledger(tmp_path).record_call(name_of(0, LANE_EVENTS))


def test_the_page_records_its_call_and_reports_the_time(tmp_path: Path) -> None:
    browser = site.create_app("jsonl", str(tmp_path)).test_client()
    response = browser.get(site.PAGE, headers={site.EVENT_HEADER: "3-9"})
    assert int(response.headers[site.CALL_HEADER]) > 0
    assert Ledger(tmp_path).outcomes().accepted == {"3-9"}
    assert import_lines(tmp_path) == ["3-9"]


def test_an_unknown_way_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown way of logging"):
        site.create_app("telepathy", "nowhere")


def test_one_page_in_ten_counts_as_a_quiz() -> None:
    quizzes = [site.is_quiz(name_of(2, number)) for number in range(40)]
    assert sum(quizzes) == 40 // ways.QUIZ_EVERY


def test_the_selective_way_waits_for_quizzes_only(tmp_path: Path) -> None:
    asked: list[tuple[str, bool]] = []

    class Client:
        def emit(self, event_type: str, **_: Any) -> bool:
            asked.append((event_type, False))
            return True

        def emit_durable(self, event_type: str, **_: Any) -> bool:
            asked.append((event_type, True))
            return True

    app = Flask("bare")
    app.config["ACTIVITY_LOG_CLIENT"] = lambda *_, **__: Client()
    logger = ways.WAYS["logd-selective"].make(app, tmp_path)
    with app.app_context():
        logger.log("1-0", False)
        logger.log("1-9", True)
    assert asked == [(EVENT_TYPE, False), (ways.QUIZ_TYPE, True)]


def test_the_access_log_lists_the_answered_pages(tmp_path: Path) -> None:
    assert access_log.answered(tmp_path) == []
    (tmp_path / access_log.LOG).write_text(
        '1-0 200 1.5 GET /lesson/12 0.001 id "x"\n1-1 502 1.6 GET /lesson/12 0.002 id "x"\n1-2 200'
    )
    assert access_log.answered(tmp_path) == ["1-0"]


def test_all_ways_log_the_same_event(tmp_path: Path) -> None:
    props = json.loads(make_row("1-2")[3])
    assert props == {**PROPS, "event": "1-2"}
