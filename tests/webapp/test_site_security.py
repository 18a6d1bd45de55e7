"""Security of every page: headers, tokens in forms, and error pages without details."""

from __future__ import annotations

import logging
import re
from unittest import mock

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from tests.webapp.browser import ORIGIN, Browser
from tests.webapp.conftest import MakeApp, fill
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients
from webapp.classroom import gunicorn_conf

PAGES = {
    None: ["/login", "/nowhere"],
    "student": [
        "/courses/",
        "/courses/data",
        "/courses/data/lessons/chance",
        "/courses/data/tasks/data-dice",
        "/courses/data/quizzes/data-chance-quiz",
        "/results",
        "/teacher/",
        "/my-data/",
        "/my-data/entries",
        "/my-data/mentions",
        "/my-data/readings",
    ],
    "teacher": ["/teacher/", "/teacher/courses/data", "/teacher/students/11"],
    "auditor": [
        "/audit/",
        "/audit/events",
        "/audit/losses",
        "/audit/quarantine",
        "/audit/readings",
        "/audit/exports",
        "/audit/live",
        "/audit/requests/",
        "/my-data/",
        "/audit/evidence",
        "/audit/evidence?user=11",
        "/audit/evidence/download?user=11",
    ],
}
ALL_PAGES = [(login, page) for login, pages in PAGES.items() for page in pages]


# The headers of every page, with what each prevents.
POLICY = {
    "default-src": "'none'",  # everything not named below
    "style-src": "'self'",  # the style sheet, and nothing inline
    "img-src": "'self' data:",  # the icon and the charts
    "script-src": "'self'",  # no script injected into a page
    "connect-src": "'self'",  # no data sent to another host by one
    "form-action": "'self'",  # no form that sends a password elsewhere
    "base-uri": "'none'",  # no page whose links lead elsewhere
    "frame-ancestors": "'none'",  # no page of another site around it (clickjacking)
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",  # text is not executed as a script
    "Referrer-Policy": "same-origin",  # other sites do not learn which page was read
    "Cross-Origin-Opener-Policy": "same-origin",  # no access to its window from other sites
    "Cache-Control": "no-store",  # the Back button shows nothing after the logout
}


def test_every_page_and_error_has_the_security_headers(
    student: Browser, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_app("broken", TESTING=False, PROPAGATE_EXCEPTIONS=False)

    @broken.get("/broken")
    def fail() -> str:
        raise RuntimeError("an inner detail")

    with caplog.at_level(logging.CRITICAL):
        responses = [Browser(broken).get("/broken")]
    responses += [student.get(path) for path in ("/courses/", "/nowhere", "/teacher/", "/logout")]
    responses += [student.post("/logout", token=""), student.post("/logout", token=student.token)]
    assert [response.status_code for response in responses] == [500, 200, 404, 403, 405, 400, 302]
    for response in responses:
        rules = [rule.partition(" ") for rule in
                 response.headers["Content-Security-Policy"].split("; ")]  # fmt: skip
        assert {name: value for name, _, value in rules} == POLICY
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(("login", "page"), ALL_PAGES)
def test_no_page_contains_what_the_policy_forbids(
    browser: Browser, reports: FakeReports, login: str | None, page: str
) -> None:
    if login:
        browser.log_in(login)
    response = browser.get(page)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    # A script is a file of the site, and nothing inline.
    text = re.sub(r'<script src="/static/\w+\.js" defer></script>', "", response.text)
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", text)
    # No resources of other hosts: each URL is on this site, in this page, or a chart.
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', response.text):
        assert re.match(r"/(?!/)|#|data:image/svg\+xml;base64,", address), address


def test_the_style_sheet_may_be_cached(browser: Browser) -> None:
    response = browser.get("/static/classroom.css")
    assert response.headers["Cache-Control"] != "no-store"


def test_a_form_without_its_token_changes_nothing_and_is_explained(
    student: Browser, clients: Clients
) -> None:
    """tests/webapp/test_forms.py tests the tokens of all forms."""
    task = "/courses/data/tasks/data-dice"
    response = student.post(f"{task}/complete", token="")
    assert response.location == task
    assert "press the button again" in student.get(task).text
    assert student.post("/logout", token="").status_code == 400
    assert not clients.of("task_completed")
    assert student.get("/courses/").status_code == 200


def test_a_form_sent_from_another_site_is_refused(student: Browser) -> None:
    response = student.client.post(
        "/logout",
        data={"csrf_token": student.token},
        base_url=ORIGIN,
        headers={"Referer": "https://evil.example/"},
    )
    assert response.status_code == 400


def test_the_server_writes_no_access_log() -> None:
    """An access log would store URLs and users in plain text; logd's events are encrypted."""
    config = Config()
    for name, value in vars(gunicorn_conf).items():
        if name in config.settings:
            config.set(name, value)
    log = Logger(config)
    assert log.access_log.handlers == [] and not log.access_log.propagate
    for setting in ("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "statsd_host"):
        assert not config.settings[setting].get(), f"{setting} has requests logged"
    assert not config.settings["syslog"].get()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nowhere", 404, "Page not found"),
        ("/courses/nothing", 404, "Page not found"),
        ("/courses/data/lessons/nothing", 404, "Page not found"),
        ("/logout", 405, "That is not possible here"),
        ("/teacher/", 403, "not for your account"),
    ],
)
def test_errors_have_the_site_s_layout(
    student: Browser, path: str, status: int, words: str
) -> None:
    response = student.get(path)
    assert response.status_code == status
    assert words in response.text
    assert "Noor Haddad" in response.text


def test_an_oversized_form_is_refused(student: Browser) -> None:
    response = student.post("/courses/data/quizzes/data-chance-quiz", {"q0": "x" * 100_000})
    assert response.status_code == 413
    assert "form is too large" in response.text


def test_a_server_error_shows_no_traceback(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(TESTING=False, PROPAGATE_EXCEPTIONS=False)

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("an inner detail")

    with caplog.at_level(logging.CRITICAL):
        response = Browser(app).get("/broken")
    assert response.status_code == 500
    assert "Something went wrong on the server" in response.text
    assert "an inner detail" not in response.text
    assert "Traceback" not in response.text


def test_the_error_page_works_without_the_database(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    fill(app)
    browser = Browser(app)
    browser.log_in("student")
    with (
        caplog.at_level(logging.CRITICAL),
        mock.patch("webapp.classroom.views.access.find_user") as find_user,
    ):
        find_user.side_effect = RuntimeError("the disk is gone")
        response = browser.get("/courses/")
    assert response.status_code == 500
    assert "Something went wrong on the server" in response.text
    assert "the disk is gone" not in response.text


def test_every_picture_has_a_text_and_every_field_a_label(
    teacher: Browser, reports: FakeReports
) -> None:
    text = teacher.get("/teacher/courses/data").text
    pictures = re.findall(r"<img [^>]*>", text)
    assert pictures
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)
    form = teacher.get("/courses/data/quizzes/data-chance-quiz").text
    for field in re.findall(r'<input id="([^"]+)"', form):
        assert f'<label for="{field}">' in form
