"""Login and logout: sessions, limits on failed logins, and the events logged."""

from __future__ import annotations

import time
import unicodedata
from unittest import mock

import pytest
from flask import Flask, request
from itsdangerous import TimestampSigner
from werkzeug.security import check_password_hash, generate_password_hash

from flask_logd import keyed_digest
from tests.webapp.browser import ORIGIN, PASSWORD, Browser
from tests.webapp.conftest import AUDITOR, STUDENT, TEACHER, MakeApp, database, fill
from tests.webapp.flask_apps import Clients
from webapp.classroom.model.accounts import LoginTaken, Role, add_user, hash_password
from webapp.classroom.views.auth import safe_next

METHOD = "pbkdf2:sha256:1"


@pytest.mark.parametrize(
    ("login", "home"),
    [("student", "/courses/"), ("teacher", "/teacher/"), ("auditor", "/audit/")],
)
def test_each_role_starts_on_its_own_page(browser: Browser, login: str, home: str) -> None:
    assert browser.log_in(login).location == home


def test_a_login_name_is_found_whatever_its_case(browser: Browser) -> None:
    assert browser.log_in("Student").status_code == 302


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "jos\u00e9") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("made", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_login_and_a_password_are_one_on_every_keyboard(
    app: Flask, browser: Browser, made: str, earlier: bool
) -> None:
    """Unicode defines both texts as equal; `earlier`: an account of a version that did not."""
    password = f"a good password {made}"
    with app.app_context(), database(app).transaction() as connection:
        hashed = (generate_password_hash if earlier else hash_password)(password, METHOD)
        user_id = add_user(
            connection, login=made, name="J", role=Role.STUDENT, password_hash=hashed
        )
        if earlier:
            connection.execute("UPDATE users SET login = ? WHERE id = ?", (made, user_id))
    for typed in (COMPOSED, DECOMPOSED):
        for word in (COMPOSED, DECOMPOSED):
            assert browser.log_in(typed, f"a good password {word}").status_code == 302
            browser.post("/logout")
        assert browser.log_in(typed, "a good password jose").status_code == 200
        with (
            app.app_context(),
            pytest.raises(LoginTaken),
            database(app).transaction() as connection,
        ):
            add_user(connection, login=typed, name="K", role=Role.STUDENT, password_hash=hashed)


def test_a_login_is_an_event_of_the_account(browser: Browser, clients: Clients) -> None:
    browser.log_in("auditor")
    assert [event.user for event in clients.of("login")] == [str(AUDITOR)]


def test_a_wrong_password_and_an_unknown_login_have_the_same_page(browser: Browser) -> None:
    wrong = browser.log_in("student", "not the password").text
    unknown = browser.log_in("somebody", "not the password").text
    assert "name or the password is wrong" in wrong
    assert wrong.replace("student", "somebody").count(
        "name or the password is wrong"
    ) == unknown.count("name or the password is wrong")


def test_an_unknown_login_costs_a_password_check_as_well(browser: Browser) -> None:
    """Otherwise the response time would disclose which logins exist."""
    with mock.patch(
        "webapp.classroom.model.accounts.check_password_hash", wraps=check_password_hash
    ) as check:
        browser.log_in("somebody", "not the password")
    assert check.call_count == 1


def test_a_failed_login_names_the_account_but_never_what_was_typed(
    browser: Browser, clients: Clients
) -> None:
    browser.log_in("student", "secret-typed-1")
    browser.log_in("secret-typed-2", "secret-typed-3")
    failed = clients.of("login_failed")
    assert [event.user for event in failed] == [str(STUDENT), None]
    assert "secret-typed" not in repr(clients.events)


def test_failed_logins_of_one_address_have_one_digest_and_never_the_address(
    app: Flask, make_app: MakeApp, clients: Clients
) -> None:
    for address in ("192.0.2.7", "192.0.2.8"):
        browser = Browser(app)
        browser.client.environ_base["REMOTE_ADDR"] = address
        for login in ("student", "emil", "somebody"):
            browser.log_in(login, "not the password")
    failed = clients.of("login_failed")
    digests = [event.props["address_digest"] for event in failed]
    assert len(failed) == 6 and len(set(digests)) == 2
    assert len(set(digests[:3])) == len(set(digests[3:])) == 1
    assert digests[0] == keyed_digest(app.config["SECRET_KEY"], "192.0.2.7")
    assert "192.0.2" not in repr(clients.events)
    elsewhere = make_app("elsewhere")
    assert elsewhere.config["SECRET_KEY"] != app.config["SECRET_KEY"], "each site has its own key"


def test_a_throttled_login_is_an_event_once_in_a_window(browser: Browser, clients: Clients) -> None:
    for _ in range(5):
        browser.log_in("student", "wrong")
    assert clients.of("login_throttled") == []
    for _ in range(20):
        assert browser.log_in("student", PASSWORD).status_code == 429
    (throttled,) = clients.of("login_throttled")
    assert throttled.user == str(STUDENT)
    assert (
        throttled.props["address_digest"] == clients.of("login_failed")[0].props["address_digest"]
    )
    for _ in range(8):
        browser.log_in("nobody-of-this-name", "wrong")
    assert [event.user for event in clients.of("login_throttled")] == [str(STUDENT), None]
    assert "nobody-of-this-name" not in repr(clients.events)


def test_an_address_that_guesses_without_end_adds_a_bounded_number_of_events(
    make_app: MakeApp, clients: Clients
) -> None:
    app = make_app(LOGIN_LIMIT_ADDRESS="8 per 15 minutes")
    fill(app)
    guesser = Browser(app)
    for number in range(40):
        guesser.log_in(f"login-{number}", "123456")
    assert len(clients.of("login_failed")) == 8
    assert len(clients.of("login_throttled")) == 1


def test_an_overlong_password_is_refused_before_hashing(browser: Browser) -> None:
    response = browser.log_in("student", "x" * 1000)
    assert response.status_code == 200
    assert "Field cannot be longer" in response.text


def test_the_login_clears_the_session(browser: Browser) -> None:
    browser.get("/login")
    with browser.client.session_transaction(base_url=ORIGIN) as session:
        session["planted"] = "by a stranger"
    browser.log_in("student")
    with browser.client.session_transaction(base_url=ORIGIN) as session:
        assert "planted" not in session


def test_the_session_cookie_is_protected_and_ends_with_the_browser_session(
    browser: Browser,
) -> None:
    cookie = browser.log_in("student").headers["Set-Cookie"]
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Expires=" not in cookie


def test_a_session_ends_after_a_school_day(
    student: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = int(time.time())
    for hours, status in ((7, 200), (9, 302)):
        later_s = now_s + hours * 3600
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self, at=later_s: at)
        assert student.get("/courses/").status_code == status


def test_plain_http_takes_an_explicit_setting(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_app("a").config["SESSION_COOKIE_SECURE"] is True
    monkeypatch.setenv("CLASSROOM_INSECURE_HTTP", "1")
    assert make_app("b").config["SESSION_COOKIE_SECURE"] is False


def test_logging_out_ends_the_session_and_is_an_event(student: Browser, clients: Clients) -> None:
    assert student.post("/logout").location == "/login"
    assert [event.user for event in clients.of("logout")] == [str(STUDENT)]
    assert student.get("/courses/").status_code == 302


def test_nothing_of_a_session_outlives_the_logout(student: Browser) -> None:
    """On a shared computer the next user starts with an empty session."""
    with student.client.session_transaction(base_url=ORIGIN) as session:
        session["kept"] = "by the one before"
        before = set(session)
    assert {"kept", "csrf_token", "_user_id"} <= before
    assert student.post("/logout").status_code == 302
    with student.client.session_transaction(base_url=ORIGIN) as session:
        assert set(session) == {"_flashes"}, "all of it is new: that one is logged out"


def test_consecutive_accounts_in_one_browser_keep_their_own_requests(
    browser: Browser, clients: Clients
) -> None:
    """No login or logout of the site is a switch between accounts."""
    for login in ("student", "teacher", "auditor"):
        browser.log_in(login)
        browser.post("/logout")
    sent = clients.of("request_redirected")
    of_account = [(event.user, event.props["endpoint"]) for event in sent]
    assert of_account == [
        (str(account), endpoint)
        for account in (STUDENT, TEACHER, AUDITOR)
        for endpoint in ("auth.login", "auth.logout")
    ]
    assert not any({"actor", "switched_to"} & event.props.keys() for event in clients.events)


def test_a_login_in_a_removed_account_s_session_belongs_to_the_new_account(
    student: Browser, app: Flask, clients: Clients
) -> None:
    with app.app_context(), database(app).transaction() as connection:
        connection.execute("DELETE FROM users WHERE id = ?", (STUDENT,))
    student.log_in("auditor")
    sent = clients.of("request_redirected")[-1]
    assert sent.props["endpoint"] == "auth.login"
    assert (sent.user, sent.props.get("switched_to")) == (str(AUDITOR), None)


def test_logging_out_takes_a_post(student: Browser) -> None:
    assert student.get("/logout").status_code == 405
    assert student.get("/courses/").status_code == 200


def test_a_session_survives_a_changed_address_and_an_updated_browser(student: Browser) -> None:
    """A phone leaves the school's network in the middle of a quiz."""
    for changed in (
        {"environ_base": {"REMOTE_ADDR": "2001:db8::7"}},
        {"headers": {"User-Agent": "the next version"}},
    ):
        assert student.get("/courses/", **changed).status_code == 200


def test_the_login_redirects_to_the_requested_page(browser: Browser) -> None:
    asked = browser.get("/courses/data")
    assert asked.location == "/login?next=%2Fcourses%2Fdata"
    assert browser.log_in("student", query="?next=/courses/data").location == "/courses/data"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "courses/",
        "",
        None,
    ],
)
def test_the_login_never_redirects_to_another_site(target: str | None) -> None:
    assert safe_next(target) is None


def test_a_foreign_target_is_replaced_by_the_start_page(browser: Browser) -> None:
    response = browser.log_in("student", query="?next=//evil.example/")
    assert response.location == "/courses/"


def test_too_many_failures_block_the_account_and_the_page_shows_for_how_long(
    browser: Browser, clients: Clients
) -> None:
    for _ in range(5):
        assert browser.log_in("student", "wrong").status_code == 200
    response = browser.log_in("student", PASSWORD)
    assert response.status_code == 429
    assert 0 < int(response.headers["Retry-After"]) <= 300
    assert "5 minutes" in response.text
    assert not clients.of("login")


def test_a_block_persists_over_restarts_and_workers(browser: Browser, make_app: MakeApp) -> None:
    for _ in range(5):
        browser.log_in("student", "wrong")
    another_worker = Browser(make_app())
    assert another_worker.log_in("student").status_code == 429


def test_a_block_of_one_account_does_not_block_others(browser: Browser) -> None:
    for _ in range(6):
        browser.log_in("student", "wrong")
    assert browser.log_in("emil").status_code == 302


def test_one_password_tried_on_many_accounts_blocks_the_address(make_app: MakeApp) -> None:
    app = make_app(LOGIN_LIMIT_ADDRESS="8 per 15 minutes")
    fill(app)
    guesser = Browser(app)
    for number in range(8):
        guesser.log_in(f"login-{number}", "123456")
    assert guesser.log_in("emil").status_code == 429


def test_a_school_behind_one_address_may_log_in_all_at_once(make_app: MakeApp) -> None:
    app = make_app(LOGIN_LIMIT_ADDRESS="3 per 15 minutes")
    fill(app)
    for _ in range(5):
        assert Browser(app).log_in("student").status_code == 302


def test_the_address_behind_a_proxy_counts_only_if_the_proxy_is_declared(
    make_app: MakeApp,
) -> None:
    app = make_app()
    with_proxy = make_app("proxied", CLASSROOM_PROXIES=1)
    for site, seen in ((app, "127.0.0.1"), (with_proxy, "192.0.2.7")):
        addresses: list[str | None] = []
        site.before_request(_remember_address(addresses))
        site.test_client().get("/login", headers={"X-Forwarded-For": "192.0.2.7"})
        assert addresses == [seen]


def _remember_address(addresses: list[str | None]) -> mock.Mock:
    return mock.Mock(side_effect=lambda: addresses.append(request.remote_addr), return_value=None)


def test_a_removed_account_is_logged_out_at_once(app: Flask, student: Browser) -> None:
    with database(app).transaction() as connection:
        connection.execute("DELETE FROM users WHERE id = ?", (STUDENT,))
    assert student.get("/courses/").status_code == 302
