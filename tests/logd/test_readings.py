"""Whom each reading of each report is about, however the question is narrowed.

A person is concerned by a figure if it differs in the same trail without that person. For each
report and question, whoever is concerned by a figure is in an event that is stored before the
answer; or the figure counts FLOOR persons at least, names none, and no parameter narrows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from logd.reports import event_counts, event_search
from logd.reports.parameters import Parameters
from logd.reports.readings import Concerned
from logd.reports.registry import REPORTS
from logd.serve.access_events import access_events
from logd.storage.mentions import DEFAULT_KEYS
from logd.storage.store import Store
from logd_wire.query import Answer
from tests.logd.report_questions import (
    FLOOR,
    PERSONS,
    QUESTIONS,
    U,
    trail,
)


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
