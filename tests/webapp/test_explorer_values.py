"""The explorer with hostile input: any properties, ids, names and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from tests.webapp.browser import Browser
from tests.webapp.conftest import TEACHER
from tests.webapp.fake_reports import FakeReports
from tests.webapp.test_audit import event_row
from tests.webapp.test_explorer import LIST, asked, filters, links
from webapp.classroom.model.accounts import Role, User
from webapp.classroom.model.analytics import Event
from webapp.classroom.model.people import People
from webapp.classroom.present import event_values
from webapp.classroom.present.event_address import ADDRESS_BYTES_MAX, EventAddress
from webapp.classroom.present.texts import describe_event

# Whatever a program logs, its values make links that select exactly them, or none.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
PROPS = st.dictionaries(
    st.text(max_size=12),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=12,
    ),
    max_size=6,
)


def scalars(value: Any, path: str | None) -> Iterator[tuple[str | None, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(inner, key if path is None else f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item, path)
    else:
        yield path, value


@given(PROPS)
def test_links_of_any_properties_survive_a_form_and_name_their_value(props: dict[str, Any]) -> None:
    there = {f"{path}={event_values.filter_text(value)}" for path, value in scalars(props, None)}
    for value in event_values.whole(props):
        if value.filter is None:
            continue
        address = EventAddress((("text", "a"),)).narrowed(*value.filter)
        again = EventAddress.of(MultiDict(parse_qsl(address.query, keep_blank_values=True)))
        assert again == EventAddress(tuple(sorted(address.pairs, key=lambda p: p[0] != "text")))
        name, text = value.filter
        field = {"page": "endpoint"}.get(name, name)
        assert (text if name == "prop" else f"{field}={text}") in there


@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_user_ids_survive_an_address(ids: list[str]) -> None:
    people = People([])
    keys = [key for key in ids if key]
    texts = [people.text_for(key) for key in keys]
    address = EventAddress().narrowed_to({})
    for text in texts:
        address = EventAddress((*address.pairs, ("user", text)))
    again = EventAddress.of(MultiDict(parse_qsl(address.query)))
    expected = list(dict.fromkeys(texts))
    assert list(again.values("user")) == expected
    assert [people.keys(text)[0] for text in expected] == list(dict.fromkeys(keys))


def test_texts_that_reverse_or_hide_the_page_are_shown_isolated(
    auditor: Browser, reports: FakeReports
) -> None:
    evil = "\u202egnp.exe\u2066<script>"
    reports.rows("events", event_row(9, **{evil: evil}, nested=[[[[evil]]]]))
    text = auditor.get(LIST).text
    assert "\u202e" not in re.sub(r'href="[^"]*"', "", text)
    assert "<script>" not in text
    assert "\N{REPLACEMENT CHARACTER}gnp.exe" in text
    href = next(href for href in links(text).values() if "nested" in href)
    assert dict(filters(href))["prop"] == f"nested={evil}"


def test_no_link_is_longer_than_a_server_accepts(auditor: Browser, reports: FakeReports) -> None:
    query = "&".join(f"prop=p{n}%3D" + "%F0%9F%98%80" * 23 for n in range(12))
    assert len(query) < ADDRESS_BYTES_MAX
    reports.rows("events", event_row(9, note="\U0001f600" * 30))
    text = auditor.get(f"{LIST}?{query}").text
    assert "\U0001f600" * 30 in text
    for href in links(text).values():
        assert len(href) < ADDRESS_BYTES_MAX + 100


def test_an_event_of_1000_properties_and_deep_lists_is_shown(
    auditor: Browser, reports: FakeReports
) -> None:
    deep: Any = "end"
    for _ in range(14):
        deep = [deep, {"k": deep}] if len(repr(deep)) < 2000 else [deep]
    props = {f"p{n}": n for n in range(1000)} | {"deep": deep}
    reports.rows("event", event_row(9, **props))
    text = auditor.get(f"{LIST}/9").text
    assert text.count("<dt>") > 1000 and "&#34;p999&#34;: 999" in text


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    query=st.lists(
        st.tuples(
            st.sampled_from(
                ["type", "user", "role", "about", "page", "status", "method", "last", "prop",
                 "text", "since", "until", "before", "before_ns"]
            ),
            st.text(max_size=30) | st.sampled_from(["7d", "a=b", "2026-11-01", "11", '"', ",,"]),
        ),
        max_size=8,
    ),
    path=st.sampled_from(["", "/counts", "/export/csv"]),
)  # fmt: skip
def test_any_address_is_accepted_or_refused(
    auditor: Browser, reports: FakeReports, query: list[tuple[str, str]], path: str
) -> None:
    response = auditor.client.get(
        f"{LIST}{path}", query_string=query, base_url="https://classroom.example"
    )
    assert response.status_code in {200, 400}
    response.close()


def test_names_are_found_in_any_case_and_without_accents() -> None:
    people = People(
        [
            User(1, "od", "Ömer Demir", Role.STUDENT),
            User(2, "z", "Lukas Novák", Role.STUDENT),
            User(3, "novak", "Someone Else", Role.TEACHER),
        ]
    )
    assert people.keys("ömer DEMIR") == people.keys("OMER") == ("1",)
    assert people.keys("lukas  novak") == people.keys("Lukas NOVA\u0301K") == ("2",)
    assert people.keys("novak") == ("3",)  # a login is one account
    assert people.keys("nova") == ("2", "3")
    assert people.keys("9999") == ("9999",) and people.keys(" ") == ()


def test_a_reading_says_about_whom() -> None:
    def told(**props: Any) -> str:
        return describe_event(Event(1, 1, 1, "report_read", "21", "", 1, props), {})

    assert told(report="timeline", params={"user": "4"}) == (
        "Looked at one person's activity, entry by entry about #4"
    )
    assert told(report="events", params={}, users=["4", "5"], everyone=True) == (
        "Looked at a list of entries of the log about 2 persons or more"
    )
    assert told(report="x", params=[1], users=7) == "Looked at the report “x” about #7"


@pytest.mark.parametrize(
    ("props", "told"),
    [
        ({"events": 1234, "complete": True}, "Exported 1,234 events"),
        ({"events": 7, "complete": False}, "Exported 7 events, and the file is not complete"),
        ({"events": "x"}, "Exported an unknown number of events, and the file is not complete"),
    ],
)
def test_an_export_says_whether_its_file_is_complete(props: dict[str, Any], told: str) -> None:
    assert describe_event(Event(1, 1, 1, "events_exported", "31", "", 1, props), {}) == told


def test_a_teacher_s_account_is_no_student(auditor: Browser, reports: FakeReports) -> None:
    assert str(TEACHER) not in asked(auditor, reports, "role=student")["users"]
