"""The Classroom under its own gunicorn settings, with pupils and a teacher who are logged in."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Flask

from tests.support.instance import DEADLINE_S, Instance, Process, until
from tests.support.ports import free_port
from webapp import create_app
from webapp.classroom.model.accounts import Role, add_user, hash_password
from webapp.classroom.model.catalogue import store_courses
from webapp.classroom.model.content import read_courses
from webapp.classroom.store.db import get_db

QUIZ = "/courses/data/quizzes/data-chance-quiz"
QUIZ_ID = "data-chance-quiz"
LESSON = "/courses/python/lessons/functions"
DASHBOARDS = ("/teacher/", "/teacher/courses/data")
UNAVAILABLE = "Analytics are unavailable"
UNCONFIRMED = "not confirmed yet"
_PASSWORD = "a password for tests"
_METHOD = "pbkdf2:sha256:1"  # one round of hashing, since logins are not what is tested
_AGENT = "a browser"  # a session is bound to it


class _HiddenFields(HTMLParser):
    """The hidden fields of the form on a page that is sent to the quiz."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = given.get("action", QUIZ) in (QUIZ, "")
        elif tag == "input" and self._inside and given.get("type") == "hidden":
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


@dataclass
class Answer:
    """What a browser got, and how many seconds it took."""

    status: int
    text: str
    location: str
    took_s: float


@dataclass
class Visitor:
    """A browser of an account that is logged in; it opens a connection for each request."""

    port: int
    user: int
    cookie: str
    fields: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Answer:
        return self._ask("GET", path)

    def open_quiz(self) -> None:
        """Opens the quiz, and keeps what its form is sent with."""
        answer = self.get(QUIZ)
        assert answer.status == 200
        self.fields = _HiddenFields(answer.text).fields
        assert "csrf_token" in self.fields and "number" in self.fields

    def hand_in(self) -> Answer:
        """Hands in the quiz that is open, and opens the page that follows; both took so long."""
        body = urlencode(self.fields)
        sent = self._ask("POST", QUIZ, body)
        assert sent.status == 302, sent
        shown = self.get(sent.location)
        assert shown.status == 200
        return Answer(200, shown.text, sent.location, sent.took_s + shown.took_s)

    def _ask(self, method: str, path: str, body: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        headers = {"Cookie": self.cookie, "User-Agent": _AGENT}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        begun_s = time.monotonic()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
            took_s = time.monotonic() - begun_s
        finally:
            connection.close()
        # A message that is shown once is kept in the session's cookie.
        for cookie in response.headers.get_all("Set-Cookie") or ():
            if cookie.startswith("classroom="):
                self.cookie = cookie.partition(";")[0]
        return Answer(response.status, text, response.headers.get("Location", ""), took_s)


class ClassroomSite:
    """The site's processes. `pupils` hand in, `others` read, `teacher` looks at dashboards."""

    def __init__(self, instance: Instance, directory: Path, pupils: int, others: int) -> None:
        self._directory = directory / "classroom"
        self._counts = directory / "counts"
        self._counts.touch()
        self._app = self._filled(pupils + others)
        self.port = free_port()
        visitors = [self._visitor(number) for number in range(1, pupils + others + 1)]
        self.pupils, self.others = visitors[:pupils], visitors[pupils:]
        self.teacher = self._visitor(pupils + others + 1)
        self.master = Process(
            *("-m", "gunicorn", "--config", "python:webapp.classroom.gunicorn_conf"),
            *("--bind", f"127.0.0.1:{self.port}", "--log-level", "info"),
            "tests.faults.classroom_app:application()",
            env={
                "CLASSROOM_DIR": str(self._directory),
                "CLASSROOM_INSECURE_HTTP": "1",
                "ACTIVITY_LOG_SOCKET": instance.socket,
                "ACTIVITY_QUERY_SOCKET": str(instance.config.query_socket),
                "COUNTS": str(self._counts),
            },
            start_new_session=True,
        )
        try:
            until(lambda: self.master.says("Booting worker"), "gunicorn has a worker")
        except BaseException:
            self.close()
            raise

    def _filled(self, pupils: int) -> Flask:
        app = create_app(
            {
                "CLASSROOM_DIR": str(self._directory),
                "ACTIVITY_LOG_ENABLED": False,
                "SESSION_COOKIE_SECURE": False,
                "PASSWORD_METHOD": _METHOD,
                "LOGIN_LIMIT_ADDRESS": "1000 per minute",
            }
        )
        password_hash = hash_password(_PASSWORD, _METHOD)
        with app.app_context(), get_db().transaction() as connection:
            store_courses(connection, read_courses())
            for number in range(1, pupils + 2):
                add_user(
                    connection,
                    user_id=number,
                    login=f"user{number}",
                    name=f"User {number}",
                    role=Role.STUDENT if number <= pupils else Role.TEACHER,
                    password_hash=password_hash,
                )
        return app

    def _visitor(self, user: int) -> Visitor:
        """Logs in without a server: the session is in the cookie."""
        client = self._app.test_client()
        headers = {"User-Agent": _AGENT}
        form = _LoginToken(client.get("/login", headers=headers).text)
        data = {"login": f"user{user}", "password": _PASSWORD, "csrf_token": form.token}
        assert client.post("/login", data=data, headers=headers).status_code == 302
        cookie = client.get_cookie("classroom")
        assert cookie is not None
        return Visitor(self.port, user, f"classroom={cookie.value}")

    def attempts(self) -> dict[int, list[int]]:
        """The attempts in the site's database, by pupil."""
        with self._app.app_context():
            rows = (
                get_db()
                .connection()
                .execute(
                    "SELECT user_id, number FROM attempts WHERE quiz = ? ORDER BY 1, 2",
                    (QUIZ_ID,),
                )
            )
            found: dict[int, list[int]] = {}
            for user, number in rows:
                found.setdefault(user, []).append(number)
        return found

    def stop(self) -> dict[str, int]:
        """Ends the site as a deployment does; what its clients have counted."""
        assert self.master.end(signal.SIGTERM) == 0, self.master.lines
        counts = [json.loads(line) for line in self._counts.read_text().splitlines()]
        names = ("attempted", "accepted", "refused", "unsettled")
        return {name: sum(count[name] for count in counts) for name in names}

    def close(self) -> None:
        """Kills what still runs."""
        self.master.close()


class _LoginToken(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.token = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("name") == "csrf_token":
            self.token = given.get("value") or ""


@contextmanager
def repeating(act: Callable[[], Any], pause_s: float, threads: int = 1) -> Iterator[list[str]]:
    """Repeats an act in threads until the block ends; yields the failures so far."""
    stop = threading.Event()
    failures: list[str] = []

    def run() -> None:
        while not stop.is_set():
            try:
                act()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
                failures.append(repr(error))
            stop.wait(pause_s)

    running = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in running:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a page was never answered"
