"""`logd person`: all that is held about one person, and nothing of another."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from logd.batch import Batch
from logd.storage.rollups import DAY_NS
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.wire import Event
from tests.support.instance import Instance

PERSON = "anna\x1b[2J"
EVENTS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("page_view", PERSON, {"route": "/"}),
    ("page_view", "secret-bob", {"route": "/"}),
    ("task_completed", PERSON, {"task": 3}),
    ("quiz_submitted", PERSON, {"quiz": "q", "score": 0.5}),
    ("quiz_submitted", PERSON, {"quiz": "q", "score": 0.25}),
    ("report_read", "secret-bob", {"report": "timeline", "params": {"user": PERSON}}),
    ("report_read", None, {"params": {"users": [PERSON, "secret-carl"]}}),
    ("report_read", PERSON, {"params": {"user": "secret-dora"}}),
    ("report_read", "secret-bob", {"params": {"user": "secret-carl"}, "route": PERSON}),
]


def fill(instance: Instance, events: list[tuple[str, str | None, dict[str, Any]]]) -> None:
    store = instance.open_store()
    producer = store.producer(1000, 7)
    producer.ended = True
    batch = Batch(10**6, 10**9)
    for kind, user, props in events:
        producer.taken += 1
        event = Event(kind, DAY_NS + producer.taken, user, msgpack.packb(props))
        batch.add(producer, producer.taken, event, 1)
    batch.add_quarantine(33, 20, "malformed", b"whose?")
    store.commit(batch, 5 * DAY_NS)
    store.close()


@pytest.fixture
def stored(instance: Instance) -> Instance:
    fill(instance, EVENTS)
    return instance


def items(instance: Instance, user: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in instance.cli("person", user, "--format", "jsonl").splitlines()
    ]


def of_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in found if item["kind"] == kind]


def test_events_mentions_and_sums_of_a_person_are_found(stored: Instance) -> None:
    found = items(stored, PERSON)
    assert found[0]["kind"] == "person" and found[0]["user"] == PERSON
    assert [item["id"] for item in of_kind(found, "event")] == [1, 3, 4, 5, 8]
    assert [item["id"] for item in of_kind(found, "mention")] == [6, 7]
    assert [(day["type"], day["day"], day["events"]) for day in of_kind(found, "day")] == [
        ("page_view", 1, 1), ("quiz_submitted", 1, 2), ("report_read", 1, 1),
        ("task_completed", 1, 1),
    ]  # fmt: skip
    quiz, task = of_kind(found, "subject")
    assert (quiz["subject"], quiz["last_value"], quiz["best_value"]) == ("q", 0.25, 0.5)
    assert (task["subject"], task["events"]) == ("3", 1)
    assert found[-1] == {
        "kind": "end", "event": 5, "mention": 2, "reading": 0, "day": 4, "subject": 2, "copy": 0,
    }  # fmt: skip


def test_what_is_handed_over_names_nobody_else(stored: Instance) -> None:
    for form in ("table", "jsonl"):
        assert "secret" not in stored.cli("person", PERSON, "--format", form)
    mention, of_nobody = of_kind(items(stored, PERSON), "mention")
    assert mention["user"] == "(another)"
    assert mention["props"] == {"report": "timeline", "params": {"user": PERSON}}
    assert of_nobody["user"] is None
    assert of_nobody["props"] == {"params": {"users": [PERSON, "(another)"]}}


def test_what_cannot_be_attributed_and_what_is_elsewhere_is_listed(stored: Instance) -> None:
    notes = {item["about"]: item["text"] for item in of_kind(items(stored, PERSON), "note")}
    assert set(notes) == {"quarantine", "outboxes", "texts", "copies", "site"}
    assert "1 refused datagrams" in notes["quarantine"]
    assert "0 events" in notes["outboxes"]


def test_people_get_headings_and_no_control_characters(stored: Instance) -> None:
    text = stored.cli("person", PERSON)
    assert all(line.isprintable() for line in text.splitlines())
    assert "5 events, 2 mentions, 6 roll-ups, 0 copies known" in text
    for heading in ("Stored about", "Events\n", "Events of others", "Roll-ups", "Notes", "Total"):
        assert heading in text


def test_of_an_unknown_user_nothing_is_held(stored: Instance) -> None:
    found = items(stored, "nobody")
    assert {item["kind"] for item in found} == {"person", "note", "end"}
    assert found[-1]["event"] == 0


def test_copies_are_listed_where_the_trail_knows_of_them(stored: Instance) -> None:
    with stored.database() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS copy (id INTEGER PRIMARY KEY, kind TEXT NOT NULL,"
            " made_ns INTEGER NOT NULL, expires_ns INTEGER, place TEXT NOT NULL)"
        )
        connection.execute("INSERT INTO copy VALUES (1, 'backup', 1, NULL, '/b/1')")
        connection.execute("INSERT INTO copy VALUES (2, 'export', 2, 3, '/e/2')")
    began = "1970-01-01T00:00:00.00000000"
    assert of_kind(items(stored, PERSON), "copy") == [
        {"kind": "copy", "copy": "backup", "made_ns": 1, "expires_ns": None, "place": "/b/1",
         "made_time": f"{began}1Z", "expires_time": None},
        {"kind": "copy", "copy": "export", "made_ns": 2, "expires_ns": 3, "place": "/e/2",
         "made_time": f"{began}2Z", "expires_time": f"{began}3Z"},
    ]  # fmt: skip
    assert "/e/2" in stored.cli("person", PERSON)


def test_mentions_are_found_in_every_block_of_events(instance: Instance) -> None:
    """Also at its first and its last event; a whole number is a user's decimal text."""
    view: tuple[str, str | None, dict[str, Any]] = ("page_view", "x", {"route": "/"})
    many = [view] * (2 * BLOCK_EVENTS + 10)
    places = [1, BLOCK_EVENTS, BLOCK_EVENTS + 1, 2 * BLOCK_EVENTS, len(many)]
    for place in places:
        many[place - 1] = ("page_view", "x", {"deep": [{"login": 7}]})
    fill(instance, many)
    assert [item["id"] for item in of_kind(items(instance, "7"), "mention")] == places


def test_a_name_that_is_no_text_is_refused(stored: Instance) -> None:
    assert "not valid text" in stored.cli("query", "--user", "\udcff", code=2)
    assert "not valid text" in stored.cli("person", "\udcff", code=2)


def test_an_id_with_control_characters_is_shown_escaped_found_and_erased_by_that(
    instance: Instance,
) -> None:
    """No command line can pass NUL; an older client has logged such users."""
    user, shown = "a\0b\\c\x85", r"a\x00b\\c\u0085"
    read: dict[str, Any] = {"report": "timeline", "params": {"user": user}}
    fill(instance, [("login", user, {}), ("login", "ab", {}), ("report_read", "ab", read)])
    listed = instance.cli("query")
    assert r"a\x00b\c\x85" in listed
    assert all(line.isprintable() for line in listed.splitlines())
    found = json.loads(
        instance.cli("person", "--escaped", shown, "--format", "jsonl").split("\n")[-2]
    )
    assert (found["event"], found["mention"]) == (1, 1)
    assert "is not an escape" in instance.cli("forget", "--yes", "--escaped", r"a\q", code=2)
    erased = json.loads(instance.cli("forget", "--yes", "--json", "--escaped", shown))
    assert (erased["events"], erased["redacted"]) == (1, 1 + 1), "and of what person has recorded"
    assert instance.cli("query", "--type", "login", "--format", "jsonl").count("\n") == 1
    instance.cli("verify")


def test_an_id_is_found_by_the_pair_of_escapes_that_json_has_for_one_character(
    instance: Instance,
) -> None:
    """As a locale without the character shows it, too."""
    user = "\N{GRINNING FACE}\U000e0001"
    fill(instance, [("login", user, {}), ("login", "7", {"student": user})])
    for shown in (r"\ud83d\ude00\udb40\udc01", r"\U0001f600\U000e0001"):
        found = instance.cli("person", "--escaped", shown, "--format", "jsonl").split("\n")[-2]
        assert (json.loads(found)["event"], json.loads(found)["mention"]) == (1, 1)
    for half in (r"\ud83d", r"a\ude00\ud83d"):
        out = instance.cli("forget", "--yes", "--escaped", half, code=2)
        assert "half of a pair of escapes" in out
    instance.cli("forget", "--yes", "--escaped", shown)
    assert instance.cli("query", "--user", user, "--format", "jsonl") == ""


def test_an_id_in_another_unicode_spelling_is_the_same_person(instance: Instance) -> None:
    """The same text, from another keyboard: Unicode defines both as equal."""
    composed, decomposed = "jos\u00e9@example.org", "jose\u0301@example.org"
    fill(instance, [("login", composed, {}), ("login", decomposed, {}), ("login", "jose", {})])
    found = items(instance, decomposed)
    assert found[0]["spellings"] == [decomposed, composed]
    assert [item["user"] for item in of_kind(found, "event")] == [composed, decomposed]
    assert of_kind(found, "day")[0]["events"] == of_kind(found, "day")[1]["events"] == 1
    shown = r"jose\u0301@example.org"
    would = instance.cli("forget", "--dry-run", composed)
    assert "would erase: 2 events" in would and f"'{shown}' (1 events)" in would
    erased = json.loads(instance.cli("forget", "--yes", "--json", composed))
    assert (erased["events"], erased["other_spellings"]) == (2, {decomposed: 1})
    assert [event["user"] for event in instance.events("--type", "login")] == ["jose"]
    instance.cli("verify")
