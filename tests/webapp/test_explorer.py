"""The explorer: filters by name, links that narrow, chips, counts, one event, no logd."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict

from tests.webapp.browser import Browser
from tests.webapp.conftest import AUDITOR, OTHER_STUDENT, STUDENT
from tests.webapp.fake_reports import FakeReports
from tests.webapp.test_audit import NS, event_row
from webapp.classroom.model.people import People
from webapp.classroom.present.event_address import EventAddress
from webapp.classroom.present.request_texts import page_names
from webapp.classroom.views.event_filter import FilterForm

LIST = "/audit/events"
TIMES = "\N{MULTIPLICATION SIGN}"  # the sign of a chip's link
NOW_NS = int(datetime(2026, 11, 24, 15, 30, tzinfo=UTC).timestamp()) * NS


def links(text: str) -> dict[str, str]:
    """Returns the addresses of a page's links by their text."""
    found = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', text, re.DOTALL)
    return {
        html.unescape(re.sub(r"<[^>]*>", "", shown)).strip(): html.unescape(href)
        for href, shown in found
    }


def filters(address: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(address).query)


def asked(auditor: Browser, reports: FakeReports, query: str) -> dict[str, Any]:
    """Returns the parameters of the report that a filtered list requests, without the limit."""
    before = len(reports.asked("events"))
    text = auditor.get(f"{LIST}?{query}").text
    found = reports.asked("events")[before:]
    assert len(found) == 1, re.findall(r'class="error"[^>]*>([^<]*)', text)
    return {name: value for name, value in found[0].items() if name != "limit"}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("user=noor", {"user": str(STUDENT)}),
        ("user=haddad,+s%C3%98ren", {"users": [str(STUDENT), str(OTHER_STUDENT)]}),
        ("user=EMIL&user=noor", {"users": [str(OTHER_STUDENT), str(STUDENT)]}),
        ("user=11,12,11", {"users": ["11", "12"]}),
        ("user=%3Dalice%40school", {"user": "alice@school"}),
        ("user=%22%3Da, b%22", {"user": "a, b"}),
        ("role=student", {"users": ["11", "12"]}),
        ("role=student&user=a", {"user": "11"}),
        ("role=auditor", {"user": str(AUDITOR)}),
        ("about=emil", {"about": str(OTHER_STUDENT)}),
        ("about=4711", {"about": "4711"}),
        ("type=login,+logout", {"types": ["login", "logout"]}),
        ("page=courses.lesson", {"props": ["endpoint=courses.lesson"]}),
        ("status=403&method=POST", {"props": ["status=403", "method=POST"]}),
        (
            "prop=view_args.user_id%3D4&prop=report%3Dtimeline&prop=+&prop=report%3Dtimeline",
            {"props": ["view_args.user_id=4", "report=timeline"]},
        ),
        ("prop=a%3Db%3Dc", {"props": ["a=b=c"]}),
        ("text=+dice+", {"text": "dice"}),
        (
            "since=2026-11-01&until=2026-11-02",
            {"since_ns": 1_793_491_200 * NS, "until_ns": 1_793_577_600 * NS},
        ),
    ],
)
def test_each_filter_becomes_a_parameter(
    auditor: Browser, reports: FakeReports, query: str, wanted: dict[str, Any]
) -> None:
    assert asked(auditor, reports, query) == wanted


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("user=nobody", "user", "No account has a name or login with “nobody”."),
        ("user=noor,nobody", "user", "“nobody”"),
        ("user=%3D", "user", "“=”"),
        ("user=" + ",".join(map(str, range(60))), "user", "at most 50 names"),
        ("role=king", "role", "Not a valid choice"),
        ("role=auditor&user=noor", "role", "No such account has this role."),
        ("about=a", "about", "Choose one of Ada Brandt #21, Noor Haddad #11"),
        ("about=nobody", "about", "No account"),
        ("type=login,Not+One", "type", "“Not One” is no type"),
        ("type=" + ",".join(f"t{n}" for n in range(60)), "type", "at most 50 types"),
        ("page=no.such", "page", "Not a valid choice"),
        ("status=20", "status", "from 100 to 599"),
        ("status=6000", "status", "from 100 to 599"),
        ("status=%D9%A4%D9%A0%D9%A3", "status", "from 100 to 599"),
        ("method=BREW", "method", "Not a valid choice"),
        ("prop=status", "prop", "“status” is no property"),
        ("prop=%3D4", "prop", "is no property"),
        ("&".join(f"prop=a%3D{n}" for n in range(14)), "prop", "at most 13 properties"),
        ("prop=a%3D" + "x" * 300, "prop", "at most 300 characters"),
        ("text=" + "x" * 256, "text", "longer than 255"),
        ("last=1y", "last", "Choose one of: today, 7d, 30d."),
        ("last=7d&until=2000-01-01", "until", "has to come after"),
        ("since=2026-02-30", "since", "Not a valid"),
        ("since=%00", "since", "Not a valid"),
    ],
)
def test_a_bad_filter_is_explained_at_its_field_and_keeps_its_value(
    auditor: Browser, reports: FakeReports, query: str, field: str, words: str
) -> None:
    text = html.unescape(auditor.get(f"{LIST}?{query}").text)
    (message,) = re.findall(
        rf'(?:id="{field}-error">|<p class="error">)([^<]*{re.escape(words)}[^<]*)</p>', text
    )
    assert message
    assert "please correct the filter" in text
    assert not reports.asked("events")
    if field not in ("role", "page", "method"):  # a select has its choices only
        value = next(value for name, value in parse_qsl(query) if name == field)
        assert value.replace(",", ", ") in text or value in text or value == "\0"


@pytest.mark.parametrize(
    ("given_as", "kept"),
    [
        ("2026-11-24T12:00:07", "2026-11-24T12:00:07"),
        ("2026-11-24 12:00", "2026-11-24T12:00"),
        ("2026-11-24", "2026-11-24T00:00"),
    ],
)
def test_a_time_is_kept_to_the_second_by_the_form(
    auditor: Browser, reports: FakeReports, given_as: str, kept: str
) -> None:
    text = auditor.get(f"{LIST}?since={given_as}").text
    (field,) = re.findall(r'<input[^>]*name="since"[^>]*>', text)
    assert f'value="{kept}"' in field


def test_without_filters_nothing_is_selected(auditor: Browser, reports: FakeReports) -> None:
    assert asked(auditor, reports, "user=&role=&type=&page=&status=&prop=&text=&since=") == {}


def test_periods_are_relative_and_hold_beside_dates(app: Flask, auditor: Browser) -> None:
    def since(query: str) -> datetime | None:
        with app.test_request_context():
            address = EventAddress.of(MultiDict(parse_qsl(query)))
            form = FilterForm(address, People([]), lambda: NOW_NS / NS)
            assert form.validate(), form.errors
            found = form.wanted().since_ns
        return None if found is None else datetime.fromtimestamp(found / NS, UTC)

    assert since("last=today") == datetime(2026, 11, 24, tzinfo=UTC)
    assert since("last=7d") == datetime(2026, 11, 17, 15, 30, tzinfo=UTC)
    assert since("last=30d") == datetime(2026, 10, 25, 15, 30, tzinfo=UTC)
    assert since("last=7d&since=2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)
    assert since("last=7d&since=2026-11-01") == datetime(2026, 11, 17, 15, 30, tzinfo=UTC)
    assert since("") is None


def test_every_value_of_a_row_narrows_the_list(auditor: Browser, reports: FakeReports) -> None:
    row = event_row(
        9, endpoint="courses.lesson", status=403, method="GET", ok=True, ratio=0.5, none=None,
        view_args={"slug": "data", "deep": {"user_id": 12}}, users=["11", 12], tag="x=y",
    )  # fmt: skip
    reports.rows("events", row)
    reports.rows("event_counts")
    text = auditor.get(f"{LIST}?user=a&type=page_view,login&prop=tag%3Dx&last=7d").text
    kept = [("type", "page_view,login"), ("last", "7d"), ("prop", "tag=x")]
    found = links(text)

    def narrowed(shown: str) -> list[tuple[str, str]]:
        assert urlsplit(found[shown]).path == LIST
        return filters(found[shown])

    assert narrowed(f"Noor Haddad #{STUDENT}") == [("user", "11"), *kept]
    assert narrowed("page_view") == [("user", "a"), ("type", "page_view"), *kept[1:]]
    assert ("page", "courses.lesson") in narrowed("courses.lesson")
    assert ("status", "403") in narrowed("403")
    assert ("method", "GET") in narrowed("GET")
    assert ("about", "12") in narrowed("Emil Sørensen")
    for shown, prop in (
        ("yes", "ok=true"), ("0.5", "ratio=0.5"), ("none", "none=null"), ("x=y", "tag=x=y"),
        ("data", "view_args.slug=data"), ("11", "users=11"),
    ):  # fmt: skip
        assert narrowed(shown) == [("user", "a"), *kept, ("prop", prop)]
    # Each of these addresses is accepted.
    for href in found.values():
        if urlsplit(href).path == LIST:
            assert "please correct" not in auditor.get(href).text, href


def test_a_chip_shows_each_active_filter_and_its_link_removes_only_that(
    auditor: Browser, reports: FakeReports
) -> None:
    query = (
        "user=noor,12&type=login&role=student&about=emil&page=home&status=200&method=GET"
        "&text=a&last=7d&since=2026-01-01&until=2099-01-01&prop=a%3D1&prop=a%3D2"
    )
    text = auditor.get(f"{LIST}?{query}").text
    chips = {
        shown: filters(href)
        for shown, href in links(text).items()
        if shown.startswith(f"{TIMES}Remove the filter ")
    }
    assert len(chips) == 14
    whole = [
        ("user", "noor,12"), ("type", "login"), ("role", "student"), ("about", "emil"),
        ("page", "home"), ("status", "200"), ("method", "GET"), ("text", "a"), ("last", "7d"),
        ("since", "2026-01-01"), ("until", "2099-01-01"), ("prop", "a=1"), ("prop", "a=2"),
    ]  # fmt: skip
    assert chips[f"{TIMES}Remove the filter Who: Noor Haddad #11"] == [("user", "12"), *whole[1:]]
    assert chips[f"{TIMES}Remove the filter Property: a=1"] == [*whole[:-2], ("prop", "a=2")]
    assert chips[f"{TIMES}Remove the filter Page: the start page"] == [
        pair for pair in whole if pair[0] != "page"
    ]
    assert chips[f"{TIMES}Remove the filter Period: 7 days"] == [
        pair for pair in whole if pair[0] != "last"
    ]


def test_a_quick_period_replaces_dates_and_keeps_the_rest(
    auditor: Browser, reports: FakeReports
) -> None:
    found = links(auditor.get(f"{LIST}?type=login&since=2026-01-01&until=2026-02-01").text)
    assert filters(found["7 days"]) == [("type", "login"), ("last", "7d")]
    assert filters(found["Today"]) == [("type", "login"), ("last", "today")]


def test_a_page_that_ended_early_says_how_far_it_searched_and_continues_there(
    auditor: Browser, reports: FakeReports
) -> None:
    reports.rows("events", event_row(7), following=5, searched_to_ns=1_762_000_000 * NS)
    text = auditor.get(f"{LIST}?text=rare").text
    assert "Searched back to" in text and "2025-11-01 12:26:40.000" in text
    assert filters(links(text)["Older"]) == [
        ("text", "rare"), ("before", "5"), ("before_ns", str(1_762_000_000 * NS))
    ]  # fmt: skip
    reports.rows("events", following=5, searched_to_ns=1_762_000_000 * NS)
    text = auditor.get(f"{LIST}?text=rare").text
    assert "No event was found so far." in text and "No event matches" not in text
    reports.rows("events")
    text = auditor.get(f"{LIST}?text=rare").text
    assert "No event matches this filter." in text and "Searched back" not in text


def test_a_full_page_does_not_say_that_it_ended_early(
    auditor: Browser, reports: FakeReports
) -> None:
    rows = [event_row(at) for at in range(50, 0, -1)]
    reports.rows("events", *rows, following=1, searched_to_ns=rows[-1]["ts_ns"])
    text = auditor.get(LIST).text
    assert "Searched back" not in text and "Older" in links(text)


def test_the_address_of_an_event_shows_all_of_it(auditor: Browser, reports: FakeReports) -> None:
    row = event_row(9, request_id="abc", long="y" * 10_000, exact=0.1 + 0.2, list=list(range(50)))
    reports.rows("event", row | {"producer": "1000-00ab", "sequence": 1234})
    text = auditor.get(f"{LIST}/9").text
    assert reports.asked("event") == [{"id": 9}]
    assert "2025-11-03 14:05:00.123" in text and "2025-11-03 14:05:01.000" in text
    assert "1000-00ab" in text and "1,234" in text
    assert text.count("y" * 10_000) == 2  # as a value, and in the JSON
    assert "0.30000000000000004" in text
    assert links(text)["49"].endswith("?prop=list%3D49")
    assert filters(links(text)["Other events of this request"]) == [("prop", "request_id=abc")]


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("pruned", "the time for which its type is kept had passed"),
        ("erased", "the data of a person was erased"),
        (None, "The trail holds no event of this number"),
    ],
)
def test_the_address_of_a_removed_event_says_so(
    auditor: Browser, reports: FakeReports, removed: str | None, words: str
) -> None:
    reports.rows("event", removed=removed)
    response = auditor.get(f"{LIST}/77")
    assert response.status_code == 404
    assert words in response.text and "77" in response.text


@pytest.mark.parametrize("number", ["0", str(2**63 - 1), str(2**63), "9" * 300, "x", "-1"])
def test_any_number_of_an_event_is_a_page(
    auditor: Browser, reports: FakeReports, number: str
) -> None:
    assert auditor.get(f"{LIST}/{number}").status_code == 404


def test_counts_by_type_and_day_are_of_the_same_filter_and_link_to_lists(
    auditor: Browser, reports: FakeReports
) -> None:
    def answer(params: dict[str, Any]) -> dict[str, Any]:
        rows = (
            [{"type": "page_view", "day": None, "events": 1500},
             {"type": "login", "day": None, "events": 1}]
            if params["by"] == "type"
            else [{"type": None, "day": 20_781, "events": 1501}]
        )  # fmt: skip
        return {"ok": True, "rows": rows, "next": None}

    reports.reports["event_counts"] = answer
    text = auditor.get(f"{LIST}/counts?user=noor&since=2026-11-24T12:00:07").text
    wanted = {"user": "11", "since_ns": 1_795_521_607 * NS}
    assert reports.asked("event_counts") == [wanted | {"by": "type"}, wanted | {"by": "day"}]
    assert "1,501 events of 2 types; the most are page_view, with 1,500." in text
    assert "1,501 events on 1 day from 24 November 2026 to 24 November 2026" in text
    assert "Not everything is counted" not in text
    found = links(text)
    assert filters(found["login"]) == [
        ("user", "noor"), ("type", "login"), ("since", "2026-11-24T12:00:07")
    ]  # fmt: skip
    # A day is narrowed to the part of it that the filter selects.
    assert filters(found["Tue 24 Nov 2026"]) == [
        ("user", "noor"), ("since", "2026-11-24T12:00:07"), ("until", "2026-11-25T00:00:00")
    ]  # fmt: skip
    assert not re.findall(r'class="error"', auditor.get(found["Tue 24 Nov 2026"]).text)


def test_partial_counts_say_so(auditor: Browser, reports: FakeReports) -> None:
    row = {"type": "login", "day": 20_781, "events": 3}
    reports.rows("event_counts", row, searched_to_ns=1_762_000_000 * NS)
    text = auditor.get(f"{LIST}/counts?text=a").text
    assert text.count("Not everything is counted:") == 2
    assert "since <time" in text and "2025-11-01 12:26:40.000" in text
    reports.rows("event_counts", searched_to_ns=1_762_000_000 * NS)
    assert "No event counted so far matches" in auditor.get(f"{LIST}/counts?text=a").text


def test_counts_of_decades_draw_two_months_and_list_every_day(
    auditor: Browser, reports: FakeReports
) -> None:
    days = [{"type": "t", "day": day, "events": 1} for day in range(20_000, 0, -7)]
    reports.rows("event_counts", *days)
    text = auditor.get(f"{LIST}/counts").text
    assert "The picture shows the last 60 days, the table all of them." in text
    assert len(re.findall(r'<th scope="row"><a href="[^"]*since=', text)) == len(days)


@pytest.mark.parametrize("path", ["", "/counts", "/9"])
def test_without_logd_the_forms_keep_their_values(auditor: Browser, path: str) -> None:
    response = auditor.get(f"{LIST}{path}?user=noor&prop=a%3D1")
    assert response.status_code == 200
    assert "does not answer" in response.text
    if not path:
        assert 'value="noor"' in response.text and 'value="a=1"' in response.text


@pytest.mark.parametrize("path", ["", "/counts", "/9"])
def test_an_answer_of_another_version_is_no_server_error(
    auditor: Browser, reports: FakeReports, path: str
) -> None:
    for report in ("events", "event_counts", "event"):
        reports.rows(report, {"unheard": 1})
    response = auditor.get(f"{LIST}{path}")
    assert response.status_code == 200
    assert "does not fit this version of the site" in response.text
    for report in ("events", "event_counts", "event"):
        reports.refuse(report, "bad_parameter", "props: too many")
    assert "logd refused this report: props: too many." in auditor.get(f"{LIST}{path}").text


def test_every_page_has_a_name_and_pages_of_one_name_can_be_told_apart(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()} - {"static"}
    assert endpoints <= page_names().keys()
    text = auditor.get(LIST).text
    select = text[text.index('name="page"') : text.index("</select>", text.index('name="page"'))]
    shown = re.findall(r"<option[^>]*>([^<]*)<", select)
    assert len(shown) == len(set(shown)) == len(page_names()) + 1
