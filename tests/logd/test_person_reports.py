"""The person reports: all that `logd person` finds, in bounded pages, and every reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from logd.batch import Batch
from logd.reports import person_pages, person_reports
from logd.reports.context import Context, context_for
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.serve.access_events import access_events
from logd.storage import opening, stored_users
from logd.storage.database import Connection
from logd.storage.mentions import DEFAULT_KEYS, PersonKeys, canonical
from logd.storage.rollups import DAY_NS
from logd.storage.store import Store
from logd_wire.query import QueryClient, QueryError, Row
from logd_wire.schema import REPORT_READ
from logd_wire.wire import Event
from tests.logd import report_questions
from tests.logd import test_readings as readings
from tests.logd.test_planted_person import NAME, NUMBER, SCHOOL, SHOP, USERS, Planted, figures
from tests.logd.test_reports import Trail
from tests.support.instance import Instance, check_sums, until

ROOT = 0
BY_KEY = {"person_totals", "person_rollups"}


@pytest.fixture
def planted(instance: Instance) -> Planted:
    with open(instance.config.path, "a") as file:
        file.write(f"apps.shop = {SHOP}\napps.school = [{SCHOOL}]\n")
    return Planted(instance)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a search end often, within and between the rows that it finds."""
    monkeypatch.setattr(person_pages, "EXAMINED_MAX", 7)
    monkeypatch.setattr(person_pages, "READINGS_EXAMINED_MAX", 4)


def rows(
    connection: Connection, report: str, context: Context | None = None, **params: Any
) -> list[Row]:
    """All rows of a report, in pages as small as they can be; no page may come twice."""
    found: list[Row] = []
    if report not in BY_KEY:
        params.setdefault("limit", 3)
    positions = [None]
    while True:
        answer = REPORTS[report].run(connection, Parameters(params, context))
        found += answer.rows
        if answer.next is None:
            return found
        assert answer.next not in positions
        positions.append(answer.next)
        params["after" if report in BY_KEY else "before_id"] = answer.next


def ids(found: list[Row]) -> set[int]:
    assert len({row["id"] for row in found}) == len(found), "no row comes twice"
    return {row["id"] for row in found}


def printed(instance: Instance, *arguments: str) -> dict[str, list[Row]]:
    """The items of `logd person`, by their kind."""
    items: dict[str, list[Row]] = {}
    for line in instance.cli("person", *arguments, "--format", "jsonl").splitlines():
        item = json.loads(line)
        items.setdefault(item["kind"], []).append(item)
    return items


@pytest.mark.parametrize("person", [str(NUMBER), NAME])
@pytest.mark.usefixtures("small_pages")
def test_the_reports_have_all_that_logd_person_prints(planted: Planted, person: str) -> None:
    """In every shape and spelling in which a person can be stored, and with every item in it."""
    planted.plant(person, SHOP, stays=True)
    planted.commit(SHOP, [("8", props) for props in figures(person)], stays=True)
    (other,) = set(USERS) - {person}
    planted.plant(other, SHOP, stays=True)
    everyone = {"report": "quarantine", "params": {}, "everyone": True, "peer_uid": SHOP}
    planted.commit(ROOT, [("9", msgpack.packb(everyone))], stays=True, kind=REPORT_READ)
    told = printed(planted.instance, person)
    with closing(opening.open_for_events(planted.instance.config)) as connection:
        events = rows(connection, "person_events", user=person)
        mentions = rows(connection, "person_mentions", user=person)
        read = rows(connection, "person_readings", user=person)
        rollups = rows(connection, "person_rollups", user=person)
        totals = rows(connection, "person_totals", user=person)
    assert ids(events) == ids(told["event"]) and len(events) == 3 * len(USERS[person]) + 1
    assert ids(mentions) == ids(told["mention"]) and len(mentions) > 30
    for found, kind in ((events, "event"), (mentions, "mention")):
        shown = {row["id"]: (row["user"], json.dumps(row["props"])) for row in found}
        assert shown == {r["id"]: (r["user"], json.dumps(r["props"])) for r in told[kind]}
    others = {row["id"] for row in read if not row["named"] and not row["own"]}
    assert others == ids(told["reading"]) and len(others) == 2, "and what the other one read"
    by_others = {row["id"] for row in told["mention"] if row["type"] == REPORT_READ}
    assert {row["id"] for row in read if row["named"] and not row["own"]} == by_others != set()
    for kind in ("day", "subject"):
        names = told[kind][0].keys() - {"kind", "first_time", "last_time"}
        shown_rows = [[row[name] for name in sorted(names)] for row in told[kind]]
        made = [[r[name] for name in sorted(names)] for r in rollups if r["kind"] == kind]
        assert sorted(made, key=repr) == sorted(shown_rows, key=repr)
    assert sum(row["events"] for row in totals) == len(events)
    assert {row["user"] for row in mentions} == {None, "(another)"}
    text = json.dumps([events, mentions, [{**row, "reader": None} for row in read]])
    assert not any(json.dumps(user)[1:-1] in text for user in USERS[other])
    planted.check_sums()


@pytest.mark.usefixtures("small_pages")
def test_an_application_is_answered_with_what_it_has_logged(planted: Planted) -> None:
    """The same id is another person in the other one; what root reads may be about both."""
    person = str(NUMBER)
    for uid in (SHOP, SCHOOL, SHOP + 10):
        planted.plant(person, uid, stays=True, reading=False)
    read = {"report": "timeline", "params": {"user": person}, "everyone": False}
    for uid in (SHOP, SCHOOL, ROOT):
        planted.commit(
            ROOT, [("8", msgpack.packb({**read, "peer_uid": uid}))], stays=True, kind=REPORT_READ
        )
    instance = planted.instance
    told = printed(instance, person, "--app", "shop")
    context = context_for(instance.config, DEFAULT_KEYS, SHOP)
    with closing(opening.open_for_events(instance.config)) as connection:
        assert ids(rows(connection, "person_events", context, user=person)) == ids(told["event"])
        mentions = ids(rows(connection, "person_mentions", context, user=person))
        assert mentions == ids(told["mention"])
        askers = [
            row["props"]["peer_uid"]
            for row in rows(connection, "person_readings", context, user=person)
        ]
        assert sorted(askers) == [ROOT, SHOP]
        for report in BY_KEY:
            assert rows(connection, report, context, user=person) == []
            assert rows(connection, report, user=person) != []
        assert context_for(instance.config, DEFAULT_KEYS, ROOT).senders is None
    planted.check_sums()


@pytest.fixture
def read_trail(directory: Path) -> Iterator[Store]:
    store = report_questions.trail(directory)
    yield store
    store.close()


def test_every_report_that_can_be_about_a_person_is_among_what_was_read(
    read_trail: Store,
) -> None:
    """However it is asked, by every question that a new report needs in report_questions.py."""
    expected: dict[str, set[int]] = {person: set() for person in report_questions.PERSONS}
    asked: dict[int, str] = {}
    number = read_trail.next_event
    batch, producer = Batch(10**6, 10**9), read_trail.producer(0, 9)
    for report, questions in report_questions.QUESTIONS.items():
        for question in questions:
            answer, concerned = readings.ask(read_trail, report, question)
            if concerned is None:
                continue
            users = {*question.get("users", ()), question.get("user")}
            about = users | readings.names_in(answer.rows) | concerned.persons
            for props in access_events(report, question, concerned, uid=5, pid=6):
                producer.taken += 1
                event = Event(REPORT_READ, 10**18, "42", msgpack.packb(props))
                batch.add(producer, producer.taken, event, 10)
                asked[number] = report
                for person in report_questions.PERSONS:
                    if concerned.everyone or person in about:
                        expected[person].add(number)
                number += 1
    read_trail.commit(batch, 10**18)
    about_persons = {name for name, report in REPORTS.items() if report.concern}
    for person in report_questions.PERSONS:
        found = rows(read_trail.connection, "person_readings", user=person, by="others", limit=200)
        by_42 = {row["id"] for row in found if row["reader"] == "42"}
        assert by_42 == expected[person]
        assert {asked[one] for one in by_42} == about_persons
        assert not any(row["own"] for row in found)


@pytest.mark.parametrize("by", ["others", "self", "anyone"])
def test_a_persons_own_readings_are_apart_from_those_of_others(trail: Trail, by: str) -> None:
    for reader in ("1", "2", None, "1.0"):
        trail.put((REPORT_READ, reader, 1, {"report": "timeline", "params": {"user": "1"}}))
    trail.put((REPORT_READ, "1", 1, {"report": "timeline", "params": {"user": "2"}}))
    found = rows(trail.store.connection, "person_readings", user="1", by=by)
    own = {row["reader"]: row["own"] for row in found}
    others, self = {"2": False, None: False}, {"1": True, "1.0": True}
    assert own == {"others": others, "self": self, "anyone": others | self}[by]
    assert len(found) == len(own), "and none of what is not about the person"


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db")
    yield made
    made.store.close()


def test_who_reads_by_is_one_of_three(trail: Trail) -> None:
    with pytest.raises(QueryError, match="others"):
        trail.ask("person_readings", user="1", by="root")


def test_a_page_examines_a_bounded_number_of_events(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[bytes] = []

    def note(_keys: PersonKeys, props: bytes) -> bool:
        examined.append(props)
        return False

    monkeypatch.setattr(PersonKeys, "may_name", note)
    monkeypatch.setattr(person_pages, "EXAMINED_MAX", 10)
    monkeypatch.setattr(person_pages, "may_have", lambda _user: lambda _props: True)
    trail.put(*(("graded", "8", day, {}) for day in range(25)))
    pages = list(trail.pages("person_mentions", user="1"))
    assert [(len(page.rows), page.next) for page in pages] == [(0, 16), (0, 6), (0, None)]
    assert len(examined) == 25
    monkeypatch.setattr(person_pages, "EXAMINED_BYTES_MAX", 4)
    assert len(list(trail.pages("person_mentions", user="1"))) == 5, "one byte each"
    monkeypatch.setattr(person_pages, "EXAMINED_MAX", 10_000)
    monkeypatch.setattr(person_pages, "EXAMINED_BYTES_MAX", 10**6)
    trail.put(*(("graded", "8", day, {}) for day in range(1000)))
    monkeypatch.setattr(person_pages, "SEARCH_S_MAX", -1)
    assert len(list(trail.pages("person_mentions", user="1"))) == 5, "256 events each"


def test_a_page_of_readings_examines_a_bounded_number(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_pages, "READINGS_EXAMINED_MAX", 10)
    read = {"report": "timeline", "params": {"user": "2"}, "everyone": False}
    trail.put(*((REPORT_READ, "8", day, read) for day in range(25)))
    pages = list(trail.pages("person_readings", user="1"))
    assert [(len(page.rows), page.next) for page in pages] == [(0, 16), (0, 6), (0, None)]


def test_rows_that_are_long_make_shorter_pages(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_reports, "PROPS_BYTES_MAX", 2000)
    trail.put(*(("note", "1", day, {"text": "x" * 900}) for day in range(7)))
    pages = [[row["id"] for row in page.rows] for page in trail.pages("person_events", user="1")]
    assert pages == [[7, 6], [5, 4], [3, 2], [1]]


def test_the_period_in_force_is_told_for_each_type(trail: Trail) -> None:
    trail.put(("login", "1", 3, {}), ("page_view", "1", 4, {}), ("page_view", "1", 9, {}))
    trail.put(("request_refused", "1", 5, {}), ("page_view", "2", 50, {}))
    found = rows(
        trail.store.connection, "person_totals", Context(retention={"page_view": 7}), user="1"
    )
    assert [tuple(row.values()) for row in found] == [
        ("login", 1, 3, 3, None), ("page_view", 2, 4, 9, 7), ("request_refused", 1, 5, 5, 7),
    ]  # fmt: skip


def test_more_spellings_than_a_statement_takes_are_refused(trail: Trail) -> None:
    many = person_reports.SPELLINGS_MAX
    trail.store.connection.execute("INSERT INTO event_type (name) VALUES ('login')")
    trail.store.connection.executemany(
        "INSERT INTO rollup_day VALUES (1, 1, ?, 1)",
        [(f"7.{'0' * n}",) for n in range(1, many + 2)],
    )
    for report in ("person_events", "person_totals", "person_rollups"):
        with pytest.raises(QueryError, match="logd person"):
            trail.ask(report, user="7")


USER = st.text(st.sampled_from("70.-eK;é\u0301\u212a\u037e\u1fef"), min_size=1, max_size=5)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(st.sets(USER, max_size=12), USER, st.integers(1, 4))
@example({"\u212a", "K", "k"}, "K", 1)
@example({"\u212a1"}, "K1", 1)
@example({"7", "7.0", "7.00", "7.", "70", "07.0"}, "7.0", 1)
@example({"e\u0301", "é", "e"}, "é", 1)
def test_all_spellings_of_an_id_are_found_and_no_other(
    trail: Trail, users: set[str], wanted: str, page_rows: int
) -> None:
    connection = trail.store.connection
    connection.execute("DELETE FROM rollup_day")
    connection.execute("INSERT OR IGNORE INTO event_type (id, name) VALUES (1, 'login')")
    connection.executemany(
        "INSERT INTO rollup_day VALUES (1, ?, ?, 3)", [(day, u) for u in users for day in (1, 2)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_users, "PAGE_ROWS", page_rows)
        found = stored_users.spellings(connection, wanted)
    assert found == {user: 6 for user in users if canonical(user) == canonical(wanted)}


def test_what_a_command_reads_about_a_person_is_among_the_readings(instance: Instance) -> None:
    """Before it prints anything, also while a daemon runs; the daemon stores the event."""
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    instance.cli("person", "7.0", "--format", "jsonl")
    instance.cli("export", "-o", str(instance.directory / "all.jsonl"))

    def read() -> list[tuple[str, Any, bool]]:
        answer = client.ask("person_readings", user="7", by="others", asked_by="7")
        return [(row["type"], row["props"].get("report"), row["named"]) for row in answer.rows]

    wanted = {("trail_export_started", None, False), (REPORT_READ, "logd person", True)}
    until(lambda: set(read()) == wanted, "both are among the readings")
    (event,) = (e for e in instance.events() if e["props"].get("report") == "logd person")
    assert (event["user"], event["props"]["params"]) == (None, {"user": "7.0"})
    assert client.ask("person_readings", user="8", by="others").rows[0]["named"] is False
    check_sums(instance.status(), attempted=0, accepted=0)
    instance.stop()
    instance.cli("verify")


def test_logd_person_prints_nothing_if_its_reading_cannot_be_recorded(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = instance.open_store()
    batch, producer = Batch(10, 10**6), store.producer(1000, 7)
    producer.taken, producer.ended = 1, True
    batch.add(producer, 1, Event("login", DAY_NS, "7", b"\x80"), 1)
    store.commit(batch, 5 * DAY_NS)
    store.close()
    monkeypatch.setattr("logd.storage.database.BUSY_TIMEOUT_MS", 50, raising=False)
    with instance.database() as connection:
        connection.execute("BEGIN IMMEDIATE")
        out = instance.cli("person", "7", code=75)
        assert "login" not in out
        connection.execute("ROLLBACK")
    assert "login" in instance.cli("person", "7")
