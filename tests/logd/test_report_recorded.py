"""Reports about persons are recorded in the trail, or refused if that fails."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgpack
import pytest

from logd.batch import Batch
from logd.maintenance.event_removal import Steps
from logd.reports import event_counts, event_search
from logd.reports.registry import REPORTS
from logd.serve.access_messages import pack_request, unpack_request
from logd.serve.report_server import Reporter
from logd.storage import keyfile
from logd.storage.mentions import DEFAULT_KEYS, is_person
from logd.storage.removal_log import ERASED
from logd.storage.store import Store
from logd_wire.query import QUERY_VERSION, RESPONSE_BYTES_MAX, read_frame
from logd_wire.wire import Event, unpack_props
from tests.support.instance import Instance


class Recording:
    """Reports of a database with one event; what is recorded of who reads them."""

    def __init__(self, instance: Instance, props: bytes = b"\x81\xa4task\xa1a") -> None:
        self.config = config = instance.config
        key = keyfile.read(config.key_file)
        store = Store(config.database, key, 1, 10)
        batch, producer = Batch(10, 10**6), store.producer(1, 2)
        producer.taken = 1
        batch.add(producer, 1, Event("task_completed", 5, "7", props), 10)
        batch.add_quarantine(1, 2, "malformed", b"whose?")
        store.commit(batch, 6)
        store.close()
        self.accepts = True
        self.recorded: list[dict[str, Any]] = []

        def record(user: str | None, /, *events: Mapping[str, Any]) -> bool:
            for props in events:
                _, event = unpack_request(pack_request(1, 5, user, props))
                opened = unpack_props(event.props)
                self.recorded.append({"type": event.type, "user": event.user, "props": opened})
            return self.accepts

        self.reporter = Reporter(config, key, record)

    def ask(self, report: str, **params: Any) -> dict[str, Any]:
        request = {"v": QUERY_VERSION, "report": report, "params": params, "asked_by": "21"}
        frame = self.reporter.answer(request, 1000, 55)
        answer = read_frame(io.BytesIO(frame).read, RESPONSE_BYTES_MAX)
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a page would end early."""
    for module, name in (
        (event_search, "PAGE_S"), (event_search, "EXPORT_PAGE_S"), (event_counts, "COUNT_S")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 100.0)


@pytest.fixture
def recording(instance: Instance) -> Recording:
    return Recording(instance)


# What each is asked with, at least; and what its event has beside the question.
QUESTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "events": ({}, {"users": ["7"]}),
    "timeline": ({"user": "7"}, {}),
    "completions": ({"type": "task_completed"}, {"users": ["7"]}),
    "daily_activity": (
        {"since_day": 0, "until_day": 1, "type": "task_completed"},
        {"users": ["7"], "everyone": True},
    ),
    "score_distribution": ({"subject": "a"}, {"everyone": True}),
    "quarantine": ({}, {"everyone": True}),
    **{
        f"person_{what}": ({"user": "7"}, {})
        for what in ("events", "mentions", "readings", "totals", "rollups")
    },
    "events_export": ({"type": "task_completed"}, {"users": ["7"]}),
    "events_after": ({"after_id": 0}, {"users": ["7"]}),
    "event": ({"id": 1}, {"users": ["7"]}),
    "evidence": ({"user": "7"}, {}),
    "evidence_events": ({"user": "7", "up_to": 1}, {}),
    "event_counts": ({"by": "day"}, {"users": ["7"], "everyone": True}),
}


def test_every_report_about_persons_is_recorded() -> None:
    assert {name for name, report in REPORTS.items() if report.concern} == QUESTIONS.keys()


@pytest.mark.parametrize("report", QUESTIONS)
def test_a_report_about_persons_is_answered_only_if_its_reading_is_recorded(
    recording: Recording, report: str
) -> None:
    params, found = QUESTIONS[report]
    answer = recording.ask(report, **params)
    assert answer["ok"] is True
    (read,) = recording.recorded
    assert (read["type"], read["user"]) == ("report_read", "21")
    assert read["props"] == {
        "report": report, "params": params, "peer_uid": 1000, "peer_pid": 55, "everyone": False,
        **found,
    }  # fmt: skip
    recording.accepts = False
    assert recording.ask(report, **params) == {
        "ok": False,
        "error": "unavailable",
        "message": "the access to this report cannot be recorded now",
    }


def test_a_report_without_persons_needs_no_record(recording: Recording) -> None:
    recording.accepts = False
    assert recording.ask("summary")["ok"] is True
    assert recording.recorded == []


def test_persons_under_the_keys_of_the_configuration_are_in_the_event(instance: Instance) -> None:
    instance.configure(person_keys=["lent_to"])
    recording = Recording(instance, b"\x82\xa6lentTo\xa18\xa7student\xa19")
    assert recording.ask("events")["ok"]
    assert recording.recorded[0]["props"]["users"] == ["7", "8"]


@pytest.mark.parametrize("report", ["events", "events_export", "event_counts"])
@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ({"about": "pupil-4"}, {"about": {"user": "pupil-4"}}),
        ({"text": "pupil-4"}, {"text": {"user": "pupil-4"}}),
        ({"props": ["users=pupil-4"]}, {"props": [{"path": "users", "user": "pupil-4"}]}),
        (
            {"props": ["status=403", "view_args.user_id=pupil-4"]},
            {"props": ["status=403", {"path": "view_args.user_id", "user": "pupil-4"}]},
        ),
        ({"props": ["users.pupil-4=0.5"]}, None),
        ({"props": ["a=b.user=pupil-4"]}, {"props": [{"path": "a=b.user", "user": "pupil-4"}]}),
        ({"props": ["x.e.mail=pupil-4"]}, {"props": [{"path": "x.e.mail", "user": "pupil-4"}]}),
        ({"props": ["params.about.user=pupil-4"]}, None),
        ({"user": "pupil-4"}, {"user": "pupil-4"}),
        ({"users": ["pupil-4"]}, {"users": ["pupil-4"]}),
    ],
)
def test_whomever_a_filter_names_is_in_the_reading_though_nothing_is_found(
    recording: Recording, report: str, asked: dict[str, Any], question: dict[str, Any] | None
) -> None:
    """That nothing is there is an answer about that person; and a `forget` erases the question."""
    answer = recording.ask(report, **asked)
    assert answer["rows"] == []
    (read,) = recording.recorded
    props = read["props"]
    assert question is None or props["params"] == question
    assert "pupil-4" in DEFAULT_KEYS.persons(props)
    counted = report == "event_counts" and not asked.keys() & {"user", "users"}
    assert props["everyone"] is ("text" in asked or counted)
    erased = DEFAULT_KEYS.redact(msgpack.packb(props), is_person("pupil-4"))
    assert erased is not None and b"pupil-4" not in erased


def test_a_reading_about_a_person_is_found_by_asking_about_that_person(
    recording: Recording,
) -> None:
    """As the site's page of who looked asks."""
    config = recording.config
    recording.ask("events", about="pupil-4")
    recording.ask("events", text="pupil-4")
    recording.ask("events", props=["view_args.user_id=pupil-4"])
    store = Store(config.database, keyfile.read(config.key_file), 1, 10)
    batch, producer = Batch(10, 10**6), store.producer(1, 3)
    for number, read in enumerate(recording.recorded, start=1):
        producer.taken = number
        event = Event("report_read", 7, "21", msgpack.packb(read["props"]))
        batch.add(producer, number, event, 10)
    store.commit(batch, 8)
    store.close()
    found = recording.ask("events", about="pupil-4", type="report_read")
    assert len(found["rows"]) == 3 and found["next"] is None


def test_the_persons_of_a_filter_are_those_of_the_configurations_keys(instance: Instance) -> None:
    instance.configure(person_keys=["pupil"])
    recording = Recording(instance, props=msgpack.packb({"pupil": "x9", "student": "x8"}))
    assert len(recording.ask("events", about="x9")["rows"]) == 1
    assert recording.ask("events", about="x8")["rows"] == []


def test_an_answer_says_where_it_stopped_and_how_an_event_went(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recording.ask("events").keys() == {"ok", "rows", "next"}
    monkeypatch.setattr(event_search, "PAGE_S", 0.0)
    answer = recording.ask("events", props=["nosuch=1"])
    assert (answer["rows"], answer["searched_to_ns"]) == ([], 5)
    pages = 1
    while answer["next"] is not None:
        place = {"before_id": answer["next"], "before_ns": answer["searched_to_ns"]}
        answer = recording.ask("events", props=["nosuch=1"], **place)
        pages += 1
    assert answer == {"ok": True, "rows": [], "next": None} and 1 < pages < 5
    assert "removed" not in recording.ask("event", id=5)
    config = recording.config
    store = Store(config.database, keyfile.read(config.key_file), 1, 10)
    Steps(store).remove(ERASED, [1], {}, lambda _: None)
    store.close()
    gone = recording.ask("event", id=1)
    assert gone == {"ok": True, "rows": [], "next": None, "removed": "erased"}
