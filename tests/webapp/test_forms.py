"""Every form of every page has a token of its session, and is refused without it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, before_render_template
from itsdangerous import TimestampSigner
from jinja2 import Template

import webapp.classroom
from tests.webapp.browser import Browser, Forms
from tests.webapp.conftest import AUDITOR, OTHER_STUDENT, STUDENT, MakeApp, database, fill
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients
from webapp.classroom.model.accounts import find_user
from webapp.classroom.model.data_requests import Kind, make_request
from webapp.classroom.model.saved_searches import SavedSearch, list_searches, save

TEMPLATES = Path(webapp.classroom.__file__).parent / "templates"
READERS = (None, "student", "teacher", "auditor")
# Examples for the variable parts of URLs.
EXAMPLES: dict[str, Any] = {
    "slug": "data", "lesson_slug": "chance", "task_id": "data-dice", "user_id": STUDENT,
    "quiz_id": "data-chance-quiz", "number": 1, "filename": "classroom.css",
    "event_id": 9, "form": "csv", "search_id": 1, "request_id": 1,
}  # fmt: skip
QUIZ = "/courses/data/quizzes/data-chance-quiz"
# The URLs that the site's forms are sent to, with their fields.
FILLED_IN: dict[str, dict[str, str]] = {
    "/login": {"login": "student", "password": "not the password"},
    "/logout": {},
    "/courses/data/tasks/data-dice/complete": {},
    QUIZ: {"number": "1"},
    f"{QUIZ}/draft": {"number": "1", "q0": "0"},
    f"{QUIZ}/draft/autosave": {"number": "1", "q0": "1"},
    "/audit/events/searches": {"name": "another", "query": ""},
    "/audit/events/searches/1/rename": {"name": "renamed"},
    "/audit/events/searches/1/delete": {},
    "/my-data/requests": {"kind": "erasure", "text": "all of it"},
    "/audit/requests/1": {"outcome": "refused", "answer": "not now"},
}
# Pages of forms that are not sent to their own page.
PAGES_OF_FORMS = {
    "/audit/events/searches": "/audit/events",
    "/audit/events/searches/1/rename": "/audit/events/searches",
    "/audit/events/searches/1/delete": "/audit/events/searches",
    "/audit/requests/1": "/audit/requests/",
    "/my-data/requests": "/my-data/",
}
# What answers a form without its token: an error page, or one that loses nothing of the form.
REFUSED = {
    "/courses/data/tasks/data-dice/complete": (302, "Redirecting"),
    QUIZ: (409, "Whose answers are these?"),
    f"{QUIZ}/draft": (409, "Whose answers are these?"),
    f"{QUIZ}/draft/autosave": (403, "another account has logged in"),
}
# Forms whose effect is in the site's database only.
OF_AUDITORS = {path for path in FILLED_IN if path.startswith("/audit/")}
# Events of actions, not page views.
DONE = {
    *("login", "login_failed", "logout", "task_completed", "quiz_submitted"),
    *("data_request_made", "data_request_answered"),
}


@pytest.fixture
def forms_of_auditors(app: Flask) -> None:
    """The search and the request whose forms are tested."""
    db = database(app)
    auditor, other = find_user(db, AUDITOR), find_user(db, OTHER_STUDENT)
    assert auditor is not None
    assert other is not None
    save(db, auditor, "one", "type=login")
    make_request(db, other, Kind.ERASURE, "all of it", 1)


def searches(app: Flask) -> list[SavedSearch]:
    auditor = find_user(database(app), AUDITOR)
    assert auditor is not None
    return list_searches(database(app), auditor)


def pages(app: Flask) -> list[str]:
    """Yields the URL of each page, with examples for its variable parts."""
    with app.test_request_context():
        return sorted(
            app.url_for(rule.endpoint, **{name: EXAMPLES[name] for name in rule.arguments})
            for rule in app.url_map.iter_rules()
            if "GET" in (rule.methods or ())
        )


def walk(app: Flask, browser: Browser) -> Iterator[tuple[str, str]]:
    """Yields each page that this browser may open, with its text."""
    for page in pages(app):
        response = browser.get(page)
        if response.status_code == 200 and response.mimetype == "text/html":
            yield page, response.text


def pages_that_keep_answers(app: Flask) -> Iterator[tuple[str, str]]:
    """Yields the pages that answer a quiz's form without a valid session."""
    browser = Browser(app)
    browser.log_in("student")
    yield QUIZ, browser.post(QUIZ, {"number": "1", "q0": "0"}, token="").text
    lost = Browser(app)
    answer = lost.post(QUIZ, {"number": "1", "q0": "0"}, token="")
    wrong_password = {"login": "student", "password": "not the password"}
    for _ in range(6):
        lost.read("/login", answer.text)
        answer = lost.post("/login", {**lost.hidden("/login"), **wrong_password})
    assert answer.status_code == 429
    yield "/login", answer.text


@pytest.mark.usefixtures("forms_of_auditors")
def test_every_posted_form_has_a_csrf_token(app: Flask, reports: FakeReports) -> None:
    """Checks that every template with a posted form was rendered."""
    rendered: set[str] = set()
    sent_to: set[str] = set()

    def note(_app: Flask, template: Template, **_rest: Any) -> None:
        rendered.add(str(template.name))

    with before_render_template.connected_to(note, app):
        for reader in READERS:
            browser = Browser(app)
            if reader:
                browser.log_in(reader)
            for page, text in walk(app, browser):
                for action, token in Forms(page, text).tokens.items():
                    assert token, f"{page}: its form to {action} has no token"
                    sent_to.add(action)
                own = {action for action in Forms(page, text).tokens if "/draft" not in action}
                assert len(re.findall(r'<form[^>]*method="post"', text)) == len(own), (
                    f"{page}: two forms are sent to one place, of which this test sees one"
                )
        for page, text in pages_that_keep_answers(app):
            tokens = Forms(page, text).tokens
            assert None not in tokens.values(), page
            sent_to |= set(tokens)
    with_forms = {
        path.name
        for path in TEMPLATES.glob("*.html")
        if re.search(r"<form[^>]*post", path.read_text(), re.IGNORECASE)
    }
    assert with_forms, "the templates are elsewhere"
    # base.html is not rendered itself: the others extend it.
    assert with_forms - {"base.html"} <= rendered
    assert sent_to == FILLED_IN.keys()


def test_every_route_that_changes_data_has_a_tested_form(app: Flask) -> None:
    with app.test_request_context():
        takes = {
            app.url_for(rule.endpoint, **{name: EXAMPLES[name] for name in rule.arguments})
            for rule in app.url_map.iter_rules()
            if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
        }
    assert takes == FILLED_IN.keys()


def missing(_browser: Browser, _app: Flask) -> str:
    return ""


def wrong(browser: Browser, _app: Flask) -> str:
    """Changes the first character: some bits of the last one are not used."""
    browser.get("/login")
    if not browser.token:
        browser.get("/courses/")
    return ("J" if browser.token[0] == "I" else "I") + browser.token[1:]


def of_another_session(_browser: Browser, app: Flask) -> str:
    other = Browser(app)
    other.log_in("emil")
    return other.token


def before_a_login(_browser: Browser, app: Flask) -> str:
    other = Browser(app)
    other.get("/login")
    return other.token


@pytest.mark.usefixtures("forms_of_auditors")
@pytest.mark.parametrize("path", FILLED_IN)
def test_a_form_without_its_session_s_token_is_refused(
    app: Flask, browser: Browser, clients: Clients, path: str
) -> None:
    def done() -> list[Any]:
        events = [event.type for event in clients.events if event.type in DONE]
        return [*events, *searches(app)]

    if path == "/login":
        browser.get("/login")
    else:
        browser.log_in("auditor" if path in OF_AUDITORS else "student")
    logged_in = browser.get("/courses/").status_code
    for take in (missing, wrong, of_another_session, before_a_login):
        forged = take(browser, app)
        before = done()
        response = browser.post(path, FILLED_IN[path], token=forged)
        status, text = REFUSED.get(path, (400, "open for too long"))
        assert response.status_code == status, take.__name__
        assert text in response.text
        assert done() == before
        assert browser.get("/courses/").status_code == logged_in
    # With the page's own token it is accepted, so that the token was the reason.
    before = done()
    if path in PAGES_OF_FORMS:
        browser.get(PAGES_OF_FORMS[path])
    assert browser.post(path, FILLED_IN[path]).status_code in (200, 302)
    assert (done() != before) == ("/draft" not in path)
    if path not in OF_AUDITORS and "/draft" not in path:
        assert len(done()) == len(before) + 1


def test_a_token_is_invalid_after_login_and_after_logout(
    browser: Browser,
) -> None:
    """Whoever planted the session or used the computer before has that session's token only."""
    browser.get("/login")
    planted = browser.token
    browser.log_in("student")
    former = browser.token
    assert browser.post("/logout", token=planted).status_code == 400
    assert browser.post("/logout").status_code == 302
    browser.log_in("student")
    for token in (planted, former):
        assert browser.post("/logout", token=token).status_code == 400


def test_a_form_left_open_for_hours_is_accepted(
    student: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its session ends: a quiz left open over lunch must not be lost."""
    path = "/courses/data/quizzes/data-chance-quiz"
    student.get(path)
    later_s = int(time.time()) + 6 * 3600
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self: later_s)
    assert student.post(path, {"number": "1"}).status_code == 302


def test_tokens_are_checked_while_testing(
    make_app: MakeApp,
) -> None:
    """The setting TESTING does not disable the check."""
    app = make_app(TESTING=False)
    fill(app)
    assert app.config.get("WTF_CSRF_ENABLED", True) is True
    assert Browser(app).post("/login", FILLED_IN["/login"], token="").status_code == 400
