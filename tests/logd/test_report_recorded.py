"""Reports about persons are recorded in the trail, or refused if that fails."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest

from logd.batch import Batch
from logd.reports.registry import REPORTS
from logd.serve.access_messages import pack_request, unpack_request
from logd.serve.report_server import Reporter
from logd.storage import keyfile
from logd.storage.store import Store
from logd_wire.query import QUERY_VERSION, RESPONSE_BYTES_MAX, read_frame
from logd_wire.wire import Event, unpack_props
from tests.support.instance import Instance


class Recording:
    """Reports of a database with one event; what is recorded of who reads them."""

    def __init__(self, instance: Instance, props: bytes = b"\x81\xa4task\xa1a") -> None:
        config = instance.config
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
