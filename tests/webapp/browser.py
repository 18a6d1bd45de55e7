"""A browser over HTTPS: sends the site's own forms with their tokens."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.test import TestResponse

ORIGIN = "https://classroom.example"
PASSWORD = "a password for tests"


class Forms(HTMLParser):
    """The posted forms of a page with their tokens, None for a form without one."""

    def __init__(self, page: str, text: str) -> None:
        super().__init__()
        self.tokens: dict[str, str | None] = {}
        self._page = page
        self._action: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and (given.get("method") or "get").lower() == "post":
            self._action = given.get("action") or self._page
            self.tokens[self._action] = None
        elif tag == "input" and given.get("name") == "csrf_token" and self._action is not None:
            self.tokens[self._action] = given.get("value")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._action = None


class Browser:
    """Keeps cookies and the forms of the last page."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.forms: dict[str, str | None] = {}

    @property
    def token(self) -> str:
        """Returns a token of this session, for requests that no form of the page sends."""
        return next(filter(None, self.forms.values()), "")

    def get(self, path: str, **options: Any) -> TestResponse:
        response = self.client.get(path, base_url=ORIGIN, **options)
        if response.mimetype == "text/html":
            # A redirect has no form, but its target has.
            page = urlsplit(response.request.url)
            self.forms = Forms(page.path, response.text).tokens
        return response

    def post(
        self,
        path: str,
        data: dict[str, Any] | None = None,
        *,
        token: str | None = None,
        **options: Any,
    ) -> TestResponse:
        """Sends the page's form for that path, and opens the page first if needed.

        With `token` it sends that one, whatever the page has.
        """
        action = path.partition("?")[0]
        if token is None:
            if action not in self.forms:
                self.get(action.removesuffix("/complete"))
            assert action in self.forms, f"no page has a form that is sent to {action}"
            token = self.forms[action]
        form = {**({} if token is None else {"csrf_token": token}), **(data or {})}
        headers = {"Referer": f"{ORIGIN}{path}"}
        return self.client.post(path, data=form, base_url=ORIGIN, headers=headers, **options)

    def log_in(self, login: str, password: str = PASSWORD, query: str = "") -> TestResponse:
        self.get("/login")
        response = self.post(f"/login{query}", {"login": login, "password": password})
        if response.status_code == 302:
            self.get("/courses/")  # for the form of the new session
        return response
