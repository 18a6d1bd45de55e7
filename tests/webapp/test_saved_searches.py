"""Saved searches: each auditor's own, bounded, by a name, with periods that stay relative."""

from __future__ import annotations

import html
import re

import pytest
from flask import Flask

from tests.webapp.browser import PASSWORD, Browser
from tests.webapp.conftest import AUDITOR, CHEAP, database
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model.accounts import Role, add_user, find_user, hash_password
from webapp.classroom.model.saved_searches import SEARCHES_MAX, list_searches, save

LIST = "/audit/events"
SEARCHES = f"{LIST}/searches"


def saved(app: Flask, user_id: int = AUDITOR) -> list[tuple[str, str]]:
    db = database(app)
    user = find_user(db, user_id)
    assert user is not None
    return [(search.name, search.query) for search in list_searches(db, user)]


def key(app: Flask, name: str) -> int:
    db = database(app)
    (found,) = (
        db.connection().execute("SELECT id FROM saved_searches WHERE name = ?", (name,)).fetchone()
    )
    return int(found)


def save_as(auditor: Browser, name: str, query: str) -> int:
    """Saves the list of that address by its own form; returns the status."""
    text = auditor.get(f"{LIST}?{query}").text
    (sent,) = re.findall(r'name="query" value="([^"]*)"', text)
    data = {"name": name, "query": html.unescape(sent)}
    return auditor.post(SEARCHES, data).status_code


def test_a_search_is_saved_as_its_address_and_opens_again(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    query = 'user="=a, b",noor&type=login&last=7d&prop=a%3D%26%3D%23%2B+%E2%9C%93&before=9'
    assert save_as(auditor, "  My   search ", query) == 302
    (entry,) = saved(app)
    assert entry[0] == "My search"
    assert "last=7d" in entry[1] and "since" not in entry[1] and "before" not in entry[1]
    text = auditor.get(SEARCHES).text
    (href,) = re.findall(r'<a href="(/audit/events\?[^"]*)"><bdi>My search</bdi>', text)
    reports.requests.clear()
    auditor.get(html.unescape(href))
    (asked,) = reports.asked("events")
    assert asked["users"] == ["a, b", "11"] and asked["props"] == ["a=&=#+ \u2713"]
    # The period is counted from now, not from the time of saving.
    assert "Period:" in text and "7 days" in text and asked["since_ns"] > 0


def test_a_second_click_saves_once_and_another_search_needs_another_name(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    assert save_as(auditor, "one", "type=login") == 302
    assert save_as(auditor, "one", "type=login") == 302
    assert len(saved(app)) == 1
    refused = auditor.post(SEARCHES, {"name": "one", "query": "type=logout"})
    assert refused.status_code == 422
    assert "You have a search of this name already." in refused.text
    assert 'name="query" value="type=logout"' in refused.text and 'value="one"' in refused.text
    assert saved(app) == [("one", "type=login")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "Enter a name."),
        ("  \t ", "Enter a name."),
        ("x" * 61, "longer than 60 characters"),
        ("a\u202eb", "that can be seen"),
    ],
)
def test_a_bad_name_is_explained_and_keeps_the_search(
    app: Flask, auditor: Browser, reports: FakeReports, name: str, words: str
) -> None:
    auditor.get(LIST)
    refused = auditor.post(SEARCHES, {"name": name, "query": "type=login"})
    assert refused.status_code == 422 and words in refused.text
    assert 'name="query" value="type=login"' in refused.text
    assert saved(app) == []
    # The form on that page works.
    auditor.forms = {}
    assert save_as(auditor, "good", "type=login") == 302


def test_only_filters_are_saved(app: Flask, auditor: Browser, reports: FakeReports) -> None:
    forged = "type=login&next=https%3A%2F%2Fevil&_external=1&_anchor=x&x=y&before=1&type=logout"
    auditor.get(LIST)
    assert auditor.post(SEARCHES, {"name": "one", "query": forged}).status_code == 302
    assert saved(app) == [("one", "type=login%2Clogout")]
    too_long = "&".join(f"prop=a%3D{'x' * 290}{n}" for n in range(14))
    refused = auditor.post(SEARCHES, {"name": "two", "query": too_long})
    assert refused.status_code == 422 and "too long to be saved" in refused.text
    assert auditor.post(SEARCHES, {"name": "no query"}).status_code == 302


def test_the_number_of_searches_is_bounded(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    user = find_user(database(app), AUDITOR)
    assert user is not None
    for number in range(SEARCHES_MAX):
        save(database(app), user, f"s{number}", "")
    auditor.get(LIST)
    refused = auditor.post(SEARCHES, {"name": "more", "query": ""})
    assert refused.status_code == 422 and "delete one first" in refused.text
    assert len(saved(app)) == SEARCHES_MAX
    auditor.get(SEARCHES)
    assert auditor.post(f"{SEARCHES}/{key(app, 's7')}/delete").status_code == 302
    auditor.get(LIST)
    assert auditor.post(SEARCHES, {"name": "more", "query": ""}).status_code == 302


def test_a_search_is_renamed_and_deleted(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    for name in ("one", "two"):
        save_as(auditor, name, "type=login")
    auditor.get(SEARCHES)
    path = f"{SEARCHES}/{key(app, 'one')}"
    refused = auditor.post(f"{path}/rename", {"name": "two"})
    assert refused.status_code == 422 and 'value="two" maxlength="60"' in refused.text
    assert auditor.post(f"{path}/rename", {"name": "one"}).status_code == 302  # unchanged
    assert auditor.post(f"{path}/rename", {"name": "eins"}).status_code == 302
    assert [name for name, _ in saved(app)] == ["eins", "two"]
    token = auditor.token
    for _ in range(2):  # also by a second click
        assert auditor.post(f"{path}/delete", token=token).status_code == 302
    assert [name for name, _ in saved(app)] == ["two"]
    assert auditor.post(f"{path}/rename", {"name": "x"}, token=token).status_code == 404
    for verb in ("rename", "delete"):
        url = f"{SEARCHES}/{2**63}/{verb}"
        assert auditor.post(url, {"name": "x"}, token=token).status_code == 404


def test_a_search_is_its_owner_s_alone(app: Flask, auditor: Browser, reports: FakeReports) -> None:
    with database(app).transaction() as connection:
        other = add_user(
            connection, login="second", name="Second Auditor", role=Role.AUDITOR,
            password_hash=hash_password(PASSWORD, CHEAP),
        )  # fmt: skip
    save_as(auditor, "mine", "type=login")
    path = f"{SEARCHES}/{key(app, 'mine')}"
    second = Browser(app)
    second.log_in("second")
    assert "mine" not in second.get(SEARCHES).text
    assert second.post(f"{path}/rename", {"name": "x"}, token=second.token).status_code == 404
    second.post(f"{path}/delete", token=second.token)
    assert (
        second.post(SEARCHES, {"name": "mine", "query": ""}, token=second.token).status_code == 302
    )
    assert saved(app) == [("mine", "type=login")] and saved(app, other) == [("mine", "")]


def test_saved_searches_work_without_logd(app: Flask, auditor: Browser) -> None:
    assert save_as(auditor, "one", "type=login") == 302
    assert "<bdi>one</bdi>" in auditor.get(SEARCHES).text


def test_a_saved_search_that_is_no_longer_valid_opens_with_its_message(
    app: Flask, auditor: Browser, reports: FakeReports
) -> None:
    user = find_user(database(app), AUDITOR)
    assert user is not None
    save(database(app), user, "old", "user=left-the-school&page=gone.page")
    (href,) = re.findall(r'<a href="([^"]*)"><bdi>old</bdi>', auditor.get(SEARCHES).text)
    text = auditor.get(html.unescape(href)).text
    assert "No account has a name or login with" in text
