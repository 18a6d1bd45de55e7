"""A person at a browser: follows the site's own forms, with their tokens, over HTTPS."""

from __future__ import annotations

import html
import re
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

ORIGIN = "https://classroom.example"
PASSWORD = "a password for tests"

_TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


class Browser:
    """Keeps cookies and the token of the page it looked at last."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.token = ""

    def get(self, path: str, **options: Any) -> TestResponse:
        response = self.client.get(path, base_url=ORIGIN, **options)
        if found := _TOKEN.search(response.text):
            self.token = html.unescape(found[1])
        return response

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> TestResponse:
        form = {"csrf_token": self.token, **(data or {})}
        headers = {"Referer": f"{ORIGIN}{path}"}
        return self.client.post(path, data=form, base_url=ORIGIN, headers=headers, **options)

    def log_in(self, login: str, password: str = PASSWORD, query: str = "") -> TestResponse:
        self.get("/login")
        response = self.post(f"/login{query}", {"login": login, "password": password})
        if response.status_code == 302:
            self.get("/courses/")  # for the token of the new session
        return response
