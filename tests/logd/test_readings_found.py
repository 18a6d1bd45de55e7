"""What is recorded of readings is found by those whom they are about, and erased with them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from logd.batch import Batch
from logd.serve.access_requests import ACCESS_TIMEOUT_S
from logd.storage.rollups import DAY_NS
from logd_wire.query import QueryClient
from logd_wire.schema import USER_BYTES_MAX
from logd_wire.wire import Event
from tests.support.instance import Instance, check_streams, check_sums

MEMBERS = 5000
CLASS = [f"{number:0{USER_BYTES_MAX}}" for number in range(MEMBERS)]
SCORE = {"quiz": "hiv-test", "score": 0.37}
EVENTS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("quiz_submitted", "7", SCORE),
    ("quiz_submitted", "8", SCORE),
    *(("quiz_submitted", str(number), {"quiz": "maths", "score": 0.5}) for number in range(5, 15)),
    ("login_failed", "7", {}),
    ("group_graded", "8", {"users": ["7", "9"]}),
]


def fill(instance: Instance, events: list[tuple[str, str | None, dict[str, Any]]]) -> None:
    store = instance.open_store()
    producer, batch = store.producer(1000, 7), Batch(10**6, 10**9)
    for kind, user, props in events:
        producer.taken += 1
        event = Event(kind, DAY_NS + producer.taken, user, msgpack.packb(props))
        batch.add(producer, producer.taken, event, 1)
    batch.add_quarantine(33, 20, "malformed", b"\x94\xa4Note 7 told the counsellor")
    producer.ended = True
    store.commit(batch, 5 * DAY_NS)
    store.close()


@pytest.fixture
def reader(instance: Instance) -> Iterator[QueryClient]:
    fill(instance, EVENTS)
    instance.start()
    yield QueryClient(str(instance.config.query_socket), timeout_s=20)
    check_sums(instance.status(), attempted=len(EVENTS), accepted=len(EVENTS))
    instance.stop()
    instance.cli("verify")


def found(instance: Instance, user: str) -> list[tuple[str, str]]:
    """The kinds and reports of the readings that `logd person` lists."""
    lines = instance.cli("person", user, "--format", "jsonl").splitlines()
    items = [json.loads(line) for line in lines]
    read = [item for item in items if item.get("type") == "report_read" and "props" in item]
    (end,) = (item for item in items if item["kind"] == "end")
    assert end["reading"] == sum(item["kind"] == "reading" for item in items)
    return [(item["kind"], item["props"]["report"]) for item in read]


def test_a_person_finds_every_reading_that_was_about_them(
    instance: Instance, reader: QueryClient
) -> None:
    days = {"since_day": 0, "until_day": 3}
    crowd = ["7", "x1", "x2", "x3", "x4", "x5"]
    reader.ask("score_distribution", users=["7"], buckets=100, asked_by="42")
    reader.ask("daily_activity", **days, users=crowd, type="login_failed", asked_by="42")
    reader.ask("completions", type="quiz_submitted", users=crowd, asked_by="42")
    narrowed = ["score_distribution", "daily_activity", "completions"]
    assert found(instance, "7") == [("mention", report) for report in narrowed]
    assert found(instance, "5") == []
    reader.ask("score_distribution", subject="hiv-test", asked_by="42")
    reader.ask("daily_activity", **days, type="login_failed", asked_by="42")
    reader.ask("events", type="group_graded", asked_by="42")
    assert found(instance, "7")[3:] == [
        ("mention", "score_distribution"), ("mention", "daily_activity"), ("mention", "events"),
    ]  # fmt: skip
    assert found(instance, "9") == [
        ("mention", "events"), ("reading", "score_distribution"), ("reading", "daily_activity"),
    ]  # fmt: skip
    reader.ask("score_distribution", subject="maths", asked_by="42")
    reader.ask("quarantine", asked_by="7")
    for user in ("8", "9", "nobody"):
        assert found(instance, user)[-2:] == [
            ("reading", "score_distribution"), ("reading", "quarantine"),
        ]  # fmt: skip
    assert found(instance, "7")[0] == ("event", "quarantine"), "the reader's own"


def test_what_a_person_is_handed_names_no_other_and_not_a_thousand_times(
    instance: Instance, reader: QueryClient
) -> None:
    reader.ask("completions", users=["7", *CLASS[:200]], asked_by="secret")
    text = instance.cli("person", "7", "--format", "jsonl")
    (line,) = (line for line in text.splitlines() if "report_read" in line)
    item = json.loads(line)
    assert item["user"] == "(another)"
    assert item["props"]["params"] == {"users": ["7", "(another)"]}
    assert CLASS[1] not in text and "secret" not in text
    assert "readings that may be about this person" in instance.cli("person", "7")


def test_readings_of_an_earlier_version_that_do_not_list_their_members_are_found(
    instance: Instance,
) -> None:
    old = [
        {"report": "completions", "params": {"users": "6 of them"}},
        {"report": "completions", "params": {"type": "quiz_submitted"}},
        {"report": "completions", "params": {"users": ["8"]}},
        {"report": "timeline", "params": {"user": "8"}},
    ]
    fill(instance, [("report_read", "42", props) for props in old])
    assert found(instance, "7") == [("reading", "completions")] * 2
    assert [kind for kind, _ in found(instance, "8")] == [
        "mention",
        "mention",
        "reading",
        "reading",
    ]


def test_whom_readings_name_is_erased_from_them_and_they_stay(
    instance: Instance, reader: QueryClient
) -> None:
    reader.ask("completions", type="quiz_submitted", users=["7", "8", *CLASS[:200]], asked_by="42")
    reader.ask("score_distribution", subject="hiv-test", asked_by="42")
    reader.ask("timeline", user="7", asked_by="42")
    reader.ask("timeline", user="8", asked_by="7")
    erased = json.loads(instance.cli("forget", "--yes", "--json", "7"))
    assert (erased["events"], erased["redacted"]) == (4, 4)
    read = instance.events("--type", "report_read")
    assert [event["props"]["report"] for event in read] == [
        "completions", "completions", "score_distribution", "timeline",
    ]  # fmt: skip
    asked = [user for event in read[:2] for user in event["props"]["params"]["users"]]
    assert sorted(asked) == sorted(["(erased)", "8", *CLASS[:200]])
    assert read[2]["props"]["users"] == ["(erased)", "8"]
    assert read[3]["props"]["params"] == {"user": "(erased)"}
    assert ("mention", "timeline") not in found(instance, "7")
    assert found(instance, "7") == [("reading", "score_distribution")]


def test_a_class_of_5000_of_the_longest_ids_is_recorded_whole_in_time(instance: Instance) -> None:
    fill(instance, [("quiz_submitted", user, SCORE) for user in CLASS])
    instance.start(loads_reports=True)
    reader = QueryClient(str(instance.config.query_socket), timeout_s=20)
    reader.ask("summary")  # it is loaded
    start_s = time.monotonic()
    answer = reader.ask("completions", type="quiz_submitted", subjects=["hiv-test"], asked_by="42")
    assert time.monotonic() - start_s < 2 + ACCESS_TIMEOUT_S
    assert [row["user"] for row in answer.rows] == CLASS
    read = instance.events("--type", "report_read")
    assert [user for event in read for user in event["props"]["users"]] == CLASS
    assert {event["props"]["parts"] for event in read} == {len(read)}
    for user in (CLASS[0], CLASS[-1]):
        assert found(instance, user) == [("mention", "completions")]
    status = instance.status()
    check_sums(status, attempted=MEMBERS, accepted=MEMBERS)
    check_streams(instance.events())
    assert status["own"] == len(read)
    instance.stop()
    instance.cli("verify")
