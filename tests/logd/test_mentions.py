"""Where events name persons: one definition for access, erasure and late events."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import msgpack
import pytest

from logd.storage import mentions as mentions_module
from logd.storage.mentions import (
    ANOTHER,
    DEFAULT_KEYS,
    ERASED,
    OWN_KEYS,
    PersonKeys,
    canonical,
    is_person,
)
from logd_wire.schema import SUBJECTS
from logd_wire.wire import unpack_props

NFC, NFD = (unicodedata.normalize(form, "jos\u00e9@school") for form in ("NFC", "NFD"))

# What is named, and what is left of it once user 7 is erased.
MENTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"user": "7"}, {"user": ERASED}),
    ({"user": 7, "n": 7}, {"user": ERASED, "n": 7}),
    ({"user": 7.0}, {"user": ERASED}),
    ({"user": "7.0"}, {"user": ERASED}),
    ({"users": ["3", "7", 7, 7.0, 3.0]}, {"users": ["3", ERASED, ERASED, ERASED, 3.0]}),
    ({"users": [["7"], [[7]]]}, {"users": [[ERASED], [[ERASED]]]}),
    ({"users": "7"}, {"users": ERASED}),
    ({"user": ["7", 8]}, {"user": [ERASED, 8]}),
    ({"report": "r", "params": {"user": "7", "n": 7}},
     {"report": "r", "params": {"user": ERASED, "n": 7}}),
    ({"a": [{"b": {"login": 7}}]}, {"a": [{"b": {"login": ERASED}}]}),
    ({"actor": "7", "switched_to": "8"}, {"actor": ERASED, "switched_to": "8"}),
    ({"actor": "8", "switched_to": "7"}, {"actor": "8", "switched_to": ERASED}),
    # keys of maps
    ({"users": {"7": 0.5, "8": 7}}, {"users": {ERASED: 0.5, "8": 7}}),
    ({"users": {"7.0": 1, "7": 2}}, {"users": {ERASED: 1, f"{ERASED} 2": 2}}),
    ({"users": {ERASED: 1, "7": 2}}, {"users": {ERASED: 1, f"{ERASED} 2": 2}}),
    ({"user": {"7": {"score": 7}}}, {"user": {ERASED: {"score": 7}}}),
    ({"users": [{"7": 7}, {"8": 7}]}, {"users": [{ERASED: 7}, {"8": 7}]}),
    ({"students": {"name": 1, "7": 2}}, {"students": {"name": 1, ERASED: 2}}),
    # maps that describe a person
    ({"user": {"id": "7", "score": 7}}, {"user": {"id": ERASED, "score": 7}}),
    ({"users": [{"id": 7, "score": 7}, {"id": 8, "score": 7}]},
     {"users": [{"id": ERASED, "score": 7}, {"id": 8, "score": 7}]}),
    ({"user": {"id": 8, "teacher": {"id": 7}}}, {"user": {"id": 8, "teacher": {"id": ERASED}}}),
    ({"User": {"Id": 7, "Score": 7}}, {"User": {"Id": ERASED, "Score": 7}}),
    ({"user": {"_id": "7", "8": 7}}, {"user": {"_id": ERASED, "8": 7}}),
    # groups
    ({"students": {"red": ["7", "8"], "blue": [7]}},
     {"students": {"red": [ERASED, "8"], "blue": [7]}}),
    # keys in other spellings, with `id`, in the plural
    *(({key: "7"}, {key: ERASED}) for key in (
        "User", "userId", "USER_ID", "user-id", "username", "student", "students", "student_id",
        "studentIds", "Pupil", "teacher", "owner", "author", "email", "account", "person_id",
        "switchedTo", "member", "created_by", "grantedBy",
    )),
    *(({key: [7, "8"]}, {key: [ERASED, "8"]}) for key in ("user_ids", "members", "logins")),
]  # fmt: skip

NO_MENTIONS: list[dict[str, Any]] = [
    {},
    {"task": 7, "7": 7},
    {"user": "77", "login": "a7"},
    {"user": "07", "login": "+7"},
    {"user": " 7", "login": 7.5},
    {"user": None},
    {"user": True},
    {"users": "12 of them"},
    {"names": ["7"], "note": "together with user 7", "path": "/students/7"},
    # figures of others
    {"user": {"score": 7, "age_group": 7, "logins": 7}},
    {"user": {"id": 8, "score": 7, "7": 7}},
    {"user": {"scores": [7, "7"]}},
    {"users": {"8": 7}},
    {"users": {"8": {"score": 7, "of": [7, "7"]}}},
    {"students": {"8": [7, 3]}},
    {"user": {"id": 8, "results": [{"score": 7, "id": 7}]}},
    {"user": "8", "score": 7, "course": {"id": 7, "name": "7"}},
    # counts
    {"users": 7, "logins": 7, "student_ids": 7, "members": 7.0},
]


def redacted(props: dict[str, Any], user: str, keys: PersonKeys = DEFAULT_KEYS) -> Any:
    """What is left of the properties once that user is taken out; the same where nothing is."""
    packed = keys.redact(msgpack.packb(props), is_person(user))
    return props if packed is None else msgpack.unpackb(packed)


def mentions(props: dict[str, Any], user: str) -> bool:
    return DEFAULT_KEYS.mentions(msgpack.packb(props), is_person(user))


@pytest.mark.parametrize(("props", "left"), MENTIONS)
def test_a_person_is_erased_in_every_place_that_names_persons_and_nowhere_else(
    props: dict[str, Any], left: dict[str, Any]
) -> None:
    assert mentions(props, "7")
    assert redacted(props, "7") == left
    assert list(redacted(props, "7")) == list(left), "in the same order"
    assert not mentions(left, "7")
    nested = {"a": [{"b": props}]}
    assert redacted(nested, "7") == {"a": [{"b": left}]}


@pytest.mark.parametrize("props", NO_MENTIONS)
def test_what_only_looks_like_the_person_stays(props: dict[str, Any]) -> None:
    assert not mentions(props, "7")
    assert redacted(props, "7") is props


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_not_a_mention(value: bool) -> None:
    for user in ("1", "0", "True", "False", "1.0"):
        assert not mentions({"user": value, "users": [value]}, user)


def test_a_number_is_found_as_it_was_written_and_no_other_is() -> None:
    written = ["4711", 4711, 4711.0, "4711.0", "4711.000"]
    other = ["04711", "4711.5", 4711.5, "4.711e3", "-4711", -4711, "47110", 47110, "4711.", ".0"]
    for user in ("4711", "4711.0"):
        left = redacted({"users": written + other}, user)["users"]
        assert left == [ERASED] * len(written) + other
    big = 2**63 - 1
    assert redacted({"user": big}, str(big)) == {"user": ERASED}
    for value in (float("inf"), float("-inf"), 1e300, -0.0):
        assert redacted({"user": value}, "7") == {"user": value}
    assert mentions({"user": -7.0}, "-7") and mentions({"user": 7.5}, "7.5")


def test_a_name_is_found_in_every_unicode_normalisation() -> None:
    assert NFC != NFD
    for user in (NFC, NFD):
        left = redacted({"users": [NFC, NFD, "jose@school"], "user": {NFD: 1}}, user)
        assert left == {"users": [ERASED, ERASED, "jose@school"], "user": {ERASED: 1}}
    assert canonical("Anna") != canonical("anna")


def test_a_person_in_a_key_that_comes_twice_is_erased_from_the_bytes() -> None:
    """Events of earlier versions: readers see the last one only."""
    packb = msgpack.packb
    twice = b"\x82" + packb("user") + packb("7") + packb("user") + packb("8")
    for props in (twice, b"\x81" + packb("a") + b"\x91" + twice):
        left = DEFAULT_KEYS.redact(props, is_person("7"))
        assert left is not None
        assert left == props.replace(packb("user") + packb("7"), packb("user") + packb(ERASED))
        assert DEFAULT_KEYS.redact(left, is_person("7")) is None
    keys = b"\x81" + packb("users") + b"\x82" + packb("7") + b"\x01" + packb("7") + b"\x02"
    left = DEFAULT_KEYS.redact(keys, is_person("7"))
    assert left is not None
    assert unpack_props(left) == {"users": {ERASED: 1, f"{ERASED} 2": 2}}


def test_what_is_not_the_person_keeps_its_bytes() -> None:
    packed = b"\x83" + msgpack.packb("user") + msgpack.packb("7") + msgpack.packb("n")
    packed += msgpack.packb(0.1, use_single_float=False) + msgpack.packb("deep")
    packed += msgpack.packb({"x": [None, True, -1, 2**64 - 1, "\u00e9", {}, []]})
    left = DEFAULT_KEYS.redact(packed, is_person("7"))
    assert left == packed.replace(msgpack.packb("user") + msgpack.packb("7"),
                                  msgpack.packb("user") + msgpack.packb(ERASED))  # fmt: skip


def test_keys_are_configured_and_those_of_logd_itself_always_count() -> None:
    keys = PersonKeys(["lent_to", "kid"])
    props = {"lentTo": "7", "kids": ["7"], "kid_id": 7, "student": "7"}
    assert redacted(props, "7", keys) == {
        "lentTo": ERASED, "kids": [ERASED], "kid_id": ERASED, "student": "7",
    }  # fmt: skip
    assert redacted(props, "7") == {**props, "student": ERASED}
    boss = PersonKeys(["boss"])
    assert redacted({"boss": 7, "Boss_ID": 7}, "7", boss) == {"boss": ERASED, "Boss_ID": ERASED}
    plural = PersonKeys(["contacts"])
    assert redacted({"contacts": 7}, "7", plural) == {"contacts": 7}, "a count"
    assert redacted({"contacts": [7]}, "7", plural) == {"contacts": [ERASED]}
    for key in OWN_KEYS:
        assert redacted({key: "7"}, "7", PersonKeys()) == {key: ERASED}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_key_in_any_alphabet_counts_in_any_case_and_normalisation(form: Any) -> None:
    name = unicodedata.normalize(form, "sch\u00fcler")
    for key in ("sch\u00fcler", "Sch\u00fcler", "SCH\u00dcLER_ID", "Mitsch\u00fcler"):
        for spelled in (unicodedata.normalize(other, key) for other in ("NFC", "NFD")):
            left = "7" if key.startswith("Mit") else ERASED
            assert redacted({spelled: "7"}, "7", PersonKeys([name])) == {spelled: left}


def test_the_mark_of_an_erased_person_is_no_person() -> None:
    assert not mentions({"user": ERASED, "users": {ERASED: 1, f"{ERASED} 2": 2}}, ERASED)
    assert redacted({"user": ANOTHER}, ANOTHER) == {"user": ERASED}


def test_no_key_of_a_roll_up_names_a_person() -> None:
    """Redaction would change what roll-ups are kept by."""
    for subject in SUBJECTS.values():
        for key in filter(None, (subject.key, subject.value, subject.attempt)):
            assert redacted({key: "7"}, "7") == {key: "7"}


def test_the_quick_look_skips_no_event_that_names_a_person() -> None:
    rng = random.Random(1)
    for props, _left in MENTIONS:
        padded = {"x" * rng.randrange(40): "y" * rng.randrange(400), **props}
        assert DEFAULT_KEYS.may_name(msgpack.packb(padded))
    for skipped in ({"task": 7, "score": 0.5, "route": "/quiz"}, {}, {"a": [{"b": {"c": [1]}}]}):
        assert not DEFAULT_KEYS.may_name(msgpack.packb(skipped))
    packb = msgpack.packb
    hidden = b"\x82" + packb("a") + packb({"user": "7"}) + packb("a") + packb(1)
    assert DEFAULT_KEYS.may_name(hidden), "a key that comes twice"
    for invalid in (b"\xc1", b"", b"\x91\x01", b"\x81"):
        assert not DEFAULT_KEYS.may_name(invalid)
        assert DEFAULT_KEYS.redact(invalid, is_person("7")) is None


def test_the_keys_whose_meaning_is_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mentions_module, "_KNOWN_MAX", 100)
    keys = PersonKeys()
    for number in range(1000):
        assert not keys.may_name(msgpack.packb({f"k{number}": 1, "x" * 1000: 2}))
        assert len(keys._known) <= 100 and max(map(len, keys._known)) < 10
    assert keys.may_name(msgpack.packb({"user": 1}))


def test_what_is_handed_to_one_person_names_no_other() -> None:
    props = {
        "user": "9", "params": {"users": ["7", 8, ["9"]], "task": 9, "login": None},
        "user_id": 7, "n": ["9"], "a": {"login": ERASED},
        "students": {"8": 0.5, "7": 0.25, "9": {"score": 3}},
        "teacher": {"id": 5, "room": 5}, "members": 3,
    }  # fmt: skip
    assert DEFAULT_KEYS.without_others(props, is_person("7")) == {
        "user": ANOTHER,
        "params": {"users": ["7", ANOTHER, [ANOTHER]], "task": 9, "login": None},
        "user_id": 7, "n": ["9"], "a": {"login": ERASED},
        "students": {ANOTHER: 0.5, "7": 0.25, f"{ANOTHER} 2": {"score": 3}},
        "teacher": {"id": ANOTHER, "room": 5}, "members": 3,
    }  # fmt: skip


def test_the_persons_who_are_named_are_those_whom_a_search_would_find() -> None:
    for before, _ in MENTIONS:
        assert "7" in {canonical(name) for name in DEFAULT_KEYS.persons(before)}, before
    named = DEFAULT_KEYS.persons({"user": "7", "deep": [{"users": [8, "9", ERASED]}], "task": 5})
    assert named == {"7", "8", "9"}
    for number in (2**63 - 1, 1e17, 1e20, -3.0, 0.5):  # JavaScript's integers past 2**53
        (name,) = DEFAULT_KEYS.persons({"user": number})
        assert canonical(name) == canonical(number)
    assert DEFAULT_KEYS.persons({"users": {"7": 0.5, f"{ERASED} 2": 1}}) == {"7"}


def test_a_key_stands_for_itself_with_id_and_in_the_plural() -> None:
    keys = PersonKeys(["contact"])
    for key in ("contact", "contactId", "contacts", "contact_ids", "Contact-IDs"):
        assert redacted({key: ["7"]}, "7", keys) == {key: [ERASED]}, key
    assert redacted({"contactIdss": ["7"]}, "7", keys) == {"contactIdss": ["7"]}
