"""Whom each reading of each report is about, however the question is narrowed.

A person is concerned by a figure if it differs in the same trail without that person. For each
report and question, whoever is concerned by a figure is in an event that is stored before the
answer; or the figure counts FLOOR persons at least, names none, and no parameter narrows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.batch import Batch
from logd.reports import event_counts, event_search
from logd.reports.parameters import Parameters
from logd.reports.readings import Concerned
from logd.reports.registry import REPORTS
from logd.serve.access_events import access_events
from logd.storage.mentions import DEFAULT_KEYS
from logd.storage.rollups import DAY_NS
from logd.storage.store import Store
from logd_wire.query import Answer
from logd_wire.wire import Event

FLOOR = 5
PERSONS = [f"u{number}" for number in range(1, 9)]
U = dict(enumerate(PERSONS, start=1))
GONE = "somebody"
BYTES = {person: f"\x81 words of {person}".encode() for person in PERSONS}

Stored = tuple[str, int, str | None, dict[str, Any]]  # type, day, user, properties


def events() -> Iterator[Stored]:
    for at, person in enumerate(PERSONS):
        yield "page_view", 100, person, {}
        yield "task_completed", 100, person, {"task": "common"}
        yield "quiz_submitted", 100, person, {"quiz": "common", "score": at / 10}
    for person in PERSONS[:3]:
        yield "page_view", 101, person, {}
    yield "page_view", 102, U[4], {}
    yield "page_view", 103, None, {}
    yield "task_completed", 101, U[5], {"task": "rare"}
    yield "quiz_submitted", 100, U[1], {"quiz": "rare", "score": 0.37}
    yield "quiz_submitted", 100, U[2], {"quiz": "rare", "score": 0.9}
    yield "quiz_submitted", 101, U[3], {"quiz": "single", "score": 1.0}
    yield "quiz_submitted", 101, U[3], {"quiz": "without a score"}
    yield "login_failed", 100, U[6], {}
    yield "group_graded", 100, U[1], {"users": [U[7], U[2]]}
    yield "invited", 100, None, {"deep": [{"user": U[8]}]}
    yield "report_read", 104, U[1], {"params": {"users": [U[2], U[3]]}}


def without(value: Any, person: str | None) -> Any:
    if isinstance(value, dict):
        return {key: without(item, person) for key, item in value.items()}
    if isinstance(value, list):
        return [without(item, person) for item in value]
    return GONE if value == person and value is not None else value


def trail(directory: Path, gone: str | None = None) -> Store:
    """The trail, as it would be without that person."""
    store = Store(directory / f"{gone}.db", bytes(32), 1, 100)
    producer, batch = store.producer(1000, 7), Batch(10**4, 10**8)
    for at, (kind, day, user, props) in enumerate(events()):
        if gone is None or user != gone:
            producer.taken += 1
            packed = msgpack.packb(without(props, gone))
            event = Event(kind, day * DAY_NS + at, user, packed)
            batch.add(producer, producer.taken, event, 10)
    batch.add_loss(producer, producer.taken + 1, None, "outbox gone")
    for person, data in BYTES.items():
        batch.add_quarantine(1000, 5, "malformed", b"" if person == gone else data)
    store.commit(batch, 200 * DAY_NS)
    return store


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a page would end early."""
    for module, name in (
        (event_search, "PAGE_S"), (event_search, "EXPORT_PAGE_S"), (event_counts, "COUNT_S")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 100.0)


@pytest.fixture(scope="module")
def trails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str | None, Store]]:
    directory = tmp_path_factory.mktemp("trails")
    made = {gone: trail(directory, gone) for gone in (None, *PERSONS)}
    yield made
    for store in made.values():
        store.close()


DAYS = {"since_day": 90, "until_day": 110}
GROUPS: list[list[str]] = [
    [], [U[1]], [U[4]], [U[1], U[2]], ["u9"], [U[7], "u9", "x1", "x2", "x3", "x4"], PERSONS[:5],
    PERSONS[1:], PERSONS, PERSONS + ["u9"],
]  # fmt: skip
EVENT_PAGES: list[dict[str, Any]] = [{}, {"limit": 3}, {"before_id": 12, "limit": 4}]
PAGES = [*EVENT_PAGES, {"before_id": 0}]
REMOVED = {"before_id": 10**6, "before_ns": 101 * DAY_NS}
TYPES = ["page_view", "task_completed", "quiz_submitted", "login_failed", "no_such_type"]


def narrowed_by_users(params: dict[str, Any]) -> list[dict[str, Any]]:
    return [params, *({**params, "users": group} for group in GROUPS)]


LAST_ID = len(list(events()))
LAST_NS = [day * DAY_NS + at for at, (_, day, *_) in enumerate(events())][-1]

QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "summary": [{}],
    "event_types": [{}, {"after": "login_failed"}],
    "losses": PAGES,
    "losses_by_cause": [{}, {"after": 1}],
    "quarantine": PAGES,
    "verification": [{}],
    "trail_state": [{}],
    "removals": PAGES,
    "events_after": [
        {**kind, **page}
        for kind in ({}, {"type": "group_graded"}, {"type": "invited"}, {"type": "report_read"})
        for page in ({}, {"limit": 3}, {"after_id": 0}, {"after_id": 12, "limit": 4})
    ]
    + [{"after_id": LAST_ID, "after_ns": LAST_NS}],
    "daily_activity": [
        one
        for days in (DAYS, {"since_day": 101, "until_day": 101}, {"since_day": 1, "until_day": 2})
        for kind in ({}, *({"type": name} for name in TYPES))
        for one in narrowed_by_users({**days, **kind})
    ],
    "score_distribution": [
        one
        for subject in ({}, *({"subject": name} for name in ("common", "rare", "single", "none")))
        for more in (
            {},
            {"type": "quiz_submitted", "buckets": 100},
            {"type": "task_completed"},
            {"after": "common"},
        )
        for one in narrowed_by_users({**subject, **more})
    ],
    "completions": [
        one
        for subjects in ({}, {"subjects": ["rare"]}, {"subjects": ["single", "common", "none"]})
        for more in ({}, {"type": "quiz_submitted"}, {"after": ["common", U[3]]})
        for one in narrowed_by_users({**subjects, **more})
    ],
    "timeline": [
        {"user": user, **page} for user in (*PERSONS, "u9") for page in [*EVENT_PAGES, REMOVED]
    ],
    **{
        f"person_{what}": [{"user": user, **page} for user in (*PERSONS, "u9") for page in pages]
        for what, pages in (
            ("events", EVENT_PAGES),
            ("mentions", EVENT_PAGES),
            ("readings", [*EVENT_PAGES, {"by": "others"}, {"by": "self"}]),
            ("totals", [{}, {"after": "login_failed"}]),
            ("rollups", [{}, {"after": ["day", "page_view", "", ""]}]),
        )
    },
    "copies": PAGES,
    "events": [
        {**user, **kind, **times, **page}
        for user in ({}, {"user": U[1]}, {"user": "u9"})
        for kind in ({}, {"type": "group_graded"}, {"type": "invited"}, {"type": "report_read"})
        for times in ({}, {"since_ns": 101 * DAY_NS}, {"until_ns": 101 * DAY_NS})
        for page in [*EVENT_PAGES, REMOVED]
    ],
    "evidence": [
        {"user": user, **about, **times}
        for user in (*PERSONS, "u9")
        for about in ({}, {"items": ["task=rare", "quiz=rare"]})
        for times in ({}, {"since_ns": 101 * DAY_NS, "up_to": 15}, {"until_ns": 101 * DAY_NS})
    ],
    "evidence_events": [
        {"user": user, "up_to": 10**6, **about, **times, **page}
        for user in (*PERSONS, "u9")
        for about in ({}, {"items": ["task=rare", "quiz=rare"]})
        for times in ({}, {"since_ns": 101 * DAY_NS}, {"until_ns": 101 * DAY_NS})
        for page in ({}, {"size": 1, "limit": 3}, {"after": 12})
    ],
}


# Each filter by itself and beside others: whom it names, is in no row of some answers.
SEARCHES: list[dict[str, Any]] = [
    {},
    {"types": ["group_graded", "invited"]},
    {"users": [U[1], U[4]]},
    {"users": ["u9"], "about": U[2]},
    {"about": U[7]},
    {"about": "u9"},
    {"about": U[2], "types": ["report_read"]},
    {"props": [f"users={U[7]}"]},
    {"props": [f"deep.user={U[8]}"]},
    {"props": [f"params.users={U[2]}", f"params.users={U[3]}"]},
    {"props": [f"users={U[6]}"]},
    {"props": [f"users.{U[6]}=1"]},
    {"props": ["quiz=rare", "score=0.37"]},
    {"props": ["quiz=common"], "types": ["quiz_submitted"]},
    {"text": U[7]},
    {"text": U[6]},
    {"text": "7"},
    {"text": "U"},
    {"text": "COMMON"},
    {"text": "single", "users": [U[3]]},
    {"type": "page_view", "user": U[4], "since_ns": DAY_NS, "until_ns": 102 * DAY_NS + 10**6},
    {"since_ns": 100 * DAY_NS + 3, "until_ns": 101 * DAY_NS + 99},
]
QUESTIONS["events"] += [{**one, **page} for one in SEARCHES for page in ({}, {"limit": 1})]
QUESTIONS["events_export"] = [
    {**one, **page} for one in SEARCHES for page in ({}, {"limit": 2}, REMOVED)
]
QUESTIONS["event_counts"] = [
    {**one, **by} for one in SEARCHES for by in ({}, {"by": "type"}, {"by": "day"})
]
QUESTIONS["event"] = [{"id": number} for number in (*range(1, 36), 10**6)]


class Taken(dict[str, Any]):
    """The values of a question; notes which parameters a report looks for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def pop(self, name: str, *default: Any) -> Any:
        self.names.add(name)
        return super().pop(name, *default)


def test_every_report_is_asked_with_each_of_its_parameters(
    trails: dict[str | None, Store],
) -> None:
    """So that another report, or another way to narrow one, needs its questions here."""
    assert QUESTIONS.keys() == REPORTS.keys()
    for name, report in REPORTS.items():
        parameters = Parameters({})
        parameters._values = taken = Taken(QUESTIONS[name][0])
        report.run(trails[None].connection, parameters)
        asked = {parameter for question in QUESTIONS[name] for parameter in question}
        assert taken.names == asked, name


NAMING: dict[str, set[str]] = {
    "completions": set(PERSONS),
    "events": set(PERSONS),
    "event": set(PERSONS),
    "events_export": set(PERSONS),
    "evidence_events": set(PERSONS),
    "events_after": set(PERSONS),
    "timeline": set(PERSONS),
    "person_events": set(PERSONS),
    "person_rollups": set(PERSONS),
    # Of the person in the question, who is named by others, and of readers.
    "person_mentions": {U[2], U[3], U[7], U[8]},
    "person_readings": {U[1], U[2], U[3]},
}
PAGING = {"limit", "before_id", "before_ns", "after", "after_id", "after_ns"}
# The columns that tell figures apart, and those that depend on all events before.
KEYS = {
    "daily_activity": ("day",),
    "score_distribution": ("subject",),
    "completions": ("user", "subject"),
    "event": ("ts_ns",),
    "events": ("ts_ns",),
    "events_after": ("ts_ns",),
    "events_export": ("ts_ns",),
    "event_counts": ("type", "day"),
    "timeline": ("ts_ns",),
    "evidence_events": ("ts_ns",),
    "quarantine": ("detected_ns",),
    "person_events": ("ts_ns",),
    "person_mentions": ("ts_ns",),
    "person_readings": ("ts_ns",),
    "person_totals": ("type",),
    "person_rollups": ("kind", "type", "part"),
    "copies": ("made_ns",),
}
LEFT_OUT = {"id", "sequence"}
# Random: of salts, and of each trail; or of the moment.
LEFT_OUT |= {"trail", "made_ns", "up_to", "root", "head", "statement", "leaf", "proof", "data"}


def figures(report: str, answer: Answer) -> dict[Any, list[dict[str, Any]]]:
    """The rows of an answer, by what each is a figure of."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in answer.rows:
        row = {key: value for key, value in row.items() if key not in LEFT_OUT}
        if "caveats" in row:  # without the time at which this trail began, and without sequences
            caveats = [
                caveat for caveat in map(json.loads, row["caveats"]) if caveat["kind"] != "begins"
            ]
            row["caveats"] = [{**caveat, "first": None} for caveat in caveats]
        found.setdefault(tuple(row[key] for key in KEYS.get(report, ())), []).append(row)
    return found


def unpaged(report: str, question: dict[str, Any]) -> dict[str, Any]:
    """The question for all rows: in a trail without a person, pages begin elsewhere."""
    if report in ("losses", "quarantine", "copies"):
        return question  # each has as many rows without a person
    less = {name: value for name, value in question.items() if name not in PAGING}
    is_limited = any("limit" in asked for asked in QUESTIONS[report])
    return {**less, "limit": 200} if is_limited else less


def elsewhere(report: str, question: dict[str, Any], here: Store, store: Store) -> dict[str, Any]:
    """The question in a trail without a person, in which an event has another id."""
    if report != "event":
        return question
    row = here.connection.execute("SELECT ts_ns FROM event WHERE id = ?", (question["id"],))
    same = "SELECT max(id) FROM event WHERE ts_ns = ?"
    (number,) = store.connection.execute(same, row.fetchone() or (0,)).fetchone()
    return {"id": number or 10**6}


def ask(store: Store, report: str, question: dict[str, Any]) -> tuple[Answer, Concerned | None]:
    answer = REPORTS[report].run(store.connection, Parameters(question))
    concern = REPORTS[report].concern
    return answer, concern and concern(store.connection, question, answer, DEFAULT_KEYS.persons)


def listed(report: str, question: dict[str, Any], concerned: Concerned) -> set[str]:
    """The persons in the events of a reading."""
    return set().union(
        *map(DEFAULT_KEYS.persons, access_events(report, question, concerned, uid=1, pid=2))
    )


def names_in(value: Any) -> set[str]:
    """The persons of whom any text in the value is the id."""
    if isinstance(value, dict):
        return set().union(*map(names_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(names_in, value))
    return {value} & set(PERSONS) if isinstance(value, str) else set()


@pytest.mark.parametrize("report", sorted(REPORTS))
def test_whoever_a_figure_is_about_is_in_the_event_of_its_reading(
    trails: dict[str | None, Store], report: str
) -> None:
    for asked in QUESTIONS[report]:
        question = unpaged(report, asked)
        answer, concerned = ask(trails[None], report, question)
        without_one = {
            person: figures(
                report,
                ask(
                    trails[person],
                    report,
                    elsewhere(report, question, trails[None], trails[person]),
                )[0],
            )
            for person in PERSONS
        }
        about = {
            key: {person for person in PERSONS if without_one[person].get(key) != rows}
            for key, rows in figures(report, answer).items()
        }
        if concerned is None:
            # Of the whole trail: no parameter selects persons, subjects or days. Or no answer.
            assert set(question) <= PAGING or not answer.rows
            assert all(not some or len(some) >= FLOOR for some in about.values())
            continue
        recorded = listed(report, question, concerned)
        users = {*question.get("users", ()), question.get("user")} - {None}
        assert users <= recorded, question
        for key, some in about.items():
            if report == "quarantine":  # no one knows whose data it is
                assert concerned.everyone
            elif users or len(some) < FLOOR:
                assert some <= recorded, (question, key)
            else:
                assert some <= recorded or concerned.everyone, (question, key)


@pytest.mark.parametrize("report", sorted(REPORTS))
def test_whoever_a_page_names_is_in_the_event_of_its_reading(
    trails: dict[str | None, Store], report: str
) -> None:
    named: set[str] = set()
    for question in QUESTIONS[report]:
        answer, concerned = ask(trails[None], report, question)
        on_page = names_in(answer.rows)
        assert not on_page or concerned is not None, question
        assert concerned is None or on_page <= listed(report, question, concerned), question
        named |= on_page
    assert named == NAMING.get(report, set())


def test_a_difference_of_two_readings_leaves_no_one_out(trails: dict[str | None, Store]) -> None:
    """The class and the class without a pupil: the pupil's figures, with the pupil in an event."""
    everyone, rest = {"subject": "common", "buckets": 100}, {"users": PERSONS[1:]}
    for params in ({"users": PERSONS}, {}):
        (whole, first), (less, second) = (
            ask(trails[None], "score_distribution", {**everyone, **more}) for more in (params, rest)
        )
        scores = [row["bucket"] for row in whole.rows if row not in less.rows]
        assert scores == [0], "the first pupil's"
        assert first is not None and second is not None
        (read,) = access_events("score_distribution", params, first, uid=1, pid=2)
        assert U[1] in DEFAULT_KEYS.persons(read) or read["everyone"]
        assert not second.everyone


def test_quarantine_without_excerpts_is_about_no_one() -> None:
    """As a `forget` leaves it."""
    concern = REPORTS["quarantine"].concern
    assert concern is not None
    for excerpt, reason, everyone in (
        ("", "malformed", False), ("00", "malformed", True), ("", "malformed: of u1", True),
    ):  # fmt: skip
        answer = Answer([{"excerpt": excerpt, "reason": reason}])
        found = concern(None, {}, answer, DEFAULT_KEYS.persons)
        assert found is not None and found.everyone is everyone
