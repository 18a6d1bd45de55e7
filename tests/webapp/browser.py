"""A browser over HTTPS: sends the site's own forms with their tokens."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.test import TestResponse

ORIGIN = "https://classroom.example"
PASSWORD = "a password for tests"


class Forms(HTMLParser):
    """The posted forms of a page with their tokens, None for a form without one.

    A form is listed for each address that it, one of its buttons or a script sends it to. `fields`
    has the form's hidden fields.
    """

    def __init__(self, page: str, text: str) -> None:
        super().__init__()
        self.tokens: dict[str, str | None] = {}
        self.fields: dict[str, list[tuple[str, str]]] = {}
        self._page = page
        self._actions: list[str] = []
        self._token: str | None = None
        self._hidden: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and (given.get("method") or "get").lower() == "post":
            self._token, self._hidden = None, []
            self._add(given.get("action") or self._page)
            self._add(given.get("data-autosave"))
        elif tag == "button" and self._actions:
            self._add(given.get("formaction"))
        elif tag == "input" and given.get("type") == "hidden" and self._actions:
            name, value = given.get("name") or "", given.get("value") or ""
            if name == "csrf_token":
                self._token = value
                self.tokens.update(dict.fromkeys(self._actions, value))
            else:
                self._hidden.append((name, value))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._actions = []

    def _add(self, action: str | None) -> None:
        if action is not None:
            self._actions.append(action)
            self.tokens[action] = self._token
            self.fields[action] = self._hidden


class Browser:
    """Keeps cookies and the forms of the last page."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.forms: dict[str, str | None] = {}
        self.fields: dict[str, list[tuple[str, str]]] = {}

    @property
    def token(self) -> str:
        """Returns a token of this session, for requests that no form of the page sends."""
        return next(filter(None, self.forms.values()), "")

    def get(self, path: str, **options: Any) -> TestResponse:
        response = self.client.get(path, base_url=ORIGIN, **options)
        if response.mimetype == "text/html":
            # A redirect has no form, but its target has.
            page = urlsplit(response.request.url)
            self.read(page.path, response.text)
        return response

    def read(self, page: str, text: str) -> None:
        """Takes the forms of a page, such as one that has answered a form."""
        forms = Forms(page, text)
        self.forms, self.fields = forms.tokens, forms.fields

    def hidden(self, action: str) -> dict[str, list[str]]:
        """Returns the hidden fields of the page's form, without its token."""
        fields: dict[str, list[str]] = {}
        for name, value in self.fields[action]:
            fields.setdefault(name, []).append(value)
        return fields

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
                self.get(re.sub("/(complete|draft|draft/autosave)$", "", action))
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
