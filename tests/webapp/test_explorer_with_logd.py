"""The explorer over the real logd: each link finds its event, an export is all that is shown."""

from __future__ import annotations

import csv
import html
import io
import re
from typing import Any

import pytest
from flask import Flask

from logd_client import Client
from tests.support.instance import Instance, check_sums, until
from tests.webapp.browser import Browser
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, MakeApp, fill

LIST = "/audit/events"
DAY_NS = 86_400 * 10**9
FIRST_NS = 1_793_491_200 * 10**9  # 1 November 2026
# Hostile, nested and long values, of which each link has to find the event again.
PROPS: list[dict[str, Any]] = [
    {"endpoint": "courses.lesson", "status": 200, "method": "GET"},
    {"endpoint": "teacher.timeline", "status": 200, "view_args": {"user_id": 12}},
    {"report": "timeline", "users": ["12", "11"], "params": {"deep": [[["end"]], {"k": "v"}]}},
    {"a.b": 1, "c=d": "e=f", "a": {"b": 2}, " ": "x", "": "y"},
    {"quoted": 'say "hi", & go + 100% #1', "markup": "<script>alert(1)</script>"},
    {"rtl": "\u202e\u05d0\u05d1\u2066", "emoji": "\U0001f600\u200d\U0001f600", "nfd": "e\u0301"},
    {"yes": True, "no": False, "none": None, "half": 0.5, "big": 1e22, "tiny": -1e-9, "int": -7},
    {"long": "z" * 10_000, "space": " both ", "lines": "a\nb", "zero": "a\0b", "empty": ""},
    {f"p{number}": number for number in range(1000)},
    {"list": list(range(100)), "path": "../../etc/passwd?x=1#y"},
]


@pytest.fixture
def site(instance: Instance, make_app: MakeApp) -> Flask:
    app = make_app(
        ACTIVITY_QUERY_SOCKET=str(instance.directory / "query.sock"), ACTIVITY_QUERY_TIMEOUT_S=20.0
    )
    fill(app)
    instance.start()
    return app


def emit(instance: Instance, count: int = len(PROPS)) -> None:
    """Logs events of two pupils over some days, and checks that all are stored."""
    client = Client(instance.socket)
    accepted = sum(
        client.emit(
            "page_view" if number % 2 else "report_opened",
            user=str(STUDENT if number % 3 else OTHER_STUDENT),
            props=PROPS[number % len(PROPS)],
            ts_ns=FIRST_NS + number * DAY_NS // 4,
        )
        for number in range(count)
    )
    assert client.flush(20)
    client.close()
    check_sums(instance.settle(), attempted=count, accepted=accepted)


def ids(text: str) -> list[str]:
    return re.findall(r'<th role="rowheader" scope="row"><a href="/audit/events/(\d+)">', text)


def test_each_link_of_each_value_finds_its_event_again(instance: Instance, site: Flask) -> None:
    emit(instance)
    auditor = Browser(site)
    auditor.log_in("auditor")
    listed = ids(auditor.get(f"{LIST}?user=11,12&until=2026-11-20").text)
    assert len(listed) == len(PROPS)
    followed = set()
    for event_id in listed:
        text = auditor.get(f"{LIST}/{event_id}").text
        main = text[text.index("<h1>") :]
        hrefs = {html.unescape(href) for href in re.findall(rf'href="({LIST}\?[^"]*)"', main)}
        for href in sorted(hrefs)[:25]:
            if "about=" not in href:
                followed.add(href)
                found = auditor.get(f"{href}&until=2026-11-20").text
                assert event_id in ids(found), href
    assert len(followed) > 50


def test_who_looked_at_a_pupil_is_found_by_every_way_of_asking(
    instance: Instance, site: Flask
) -> None:
    emit(instance)
    auditor = Browser(site)
    auditor.log_in("auditor")
    about = auditor.get(f"{LIST}?about=emil&until=2026-11-20").text
    assert len(ids(about)) == 2  # the teacher's page about the pupil, and the report
    by_path = auditor.get(f"{LIST}?prop=view_args.user_id%3D12&page=teacher.timeline").text
    by_list = auditor.get(f"{LIST}?prop=users%3D12&prop=report%3Dtimeline").text
    assert {*ids(by_path), *ids(by_list)} == set(ids(about))
    # The search is itself a reading about the pupil.
    instance.settle()
    read = auditor.get(f"{LIST}?about=12&type=report_read").text
    assert "Looked at a list of entries of the log about" in read


def test_an_export_holds_exactly_the_events_of_its_filter(instance: Instance, site: Flask) -> None:
    emit(instance, 2_500)
    auditor = Browser(site)
    auditor.log_in("auditor")
    query = "user=emil&type=page_view&since=2026-11-02"
    response = auditor.get(f"{LIST}/export/csv?{query}")
    exported = [row["id"] for row in csv.DictReader(io.StringIO(response.text))]
    response.close()
    stored = instance.events("--type", "page_view", "--user", str(OTHER_STUDENT))
    wanted = [event for event in stored if event["ts_ns"] >= FIRST_NS + DAY_NS]
    wanted.sort(key=lambda event: (event["ts_ns"], event["id"]), reverse=True)
    assert exported == [str(event["id"]) for event in wanted] and len(exported) > 300
    # The pages of the list have the same events in the same order.
    shown: list[str] = []
    address: str | None = f"{LIST}?{query}"
    while address is not None:
        text = auditor.get(address).text
        shown += ids(text)
        older = re.search(r'href="([^"]*)" rel="next"', text)
        address = html.unescape(older[1]) if older else None
    assert shown == exported

    # The counts are of as many, or say that they are not, as on a busy machine.
    def counted() -> bool:
        counts = auditor.get(f"{LIST}/counts?{query}").text
        is_whole = f"{len(exported):,} events of 1 type" in counts
        assert is_whole or "Not everything is counted" in counts
        return is_whole

    until(counted, "logd has the time to count all of them")
    readings = instance.events("--type", "report_read")
    assert "events_export" in {event["props"]["report"] for event in readings}


def test_events_that_were_pruned_or_never_stored_say_which(instance: Instance, site: Flask) -> None:
    emit(instance)
    auditor = Browser(site)
    auditor.log_in("auditor")
    assert auditor.get(f"{LIST}/1").status_code == 200
    assert "holds no event of this number" in auditor.get(f"{LIST}/99999").text
    instance.cli("forget", str(STUDENT), "--yes")
    instance.settle()
    erased = next(
        text
        for number in range(1, len(PROPS) + 1)
        if (text := auditor.get(f"{LIST}/{number}").text).count("404")
    )
    assert "data of a person was erased" in erased
