"""A visitor with a browser, through a web server that speaks HTTPS: clicks through the site.

    python visitor.py ADDRESS ACCOUNTS.json

Runs inside the booted machine, where the site's port is, and needs the standard library only. Each
account is [login, password, pages]; a page is an address, or one with "!" before it, whose form is
then sent. Prints the status and title of each page as a JSON list, account by account.
"""

from __future__ import annotations

import html
import json
import re
import sys
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar, DefaultCookiePolicy

TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
ACTION = re.compile(r'<form method="post" action="([^"]+)"')
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
NAME = "https://classroom.example"


class Visitor:
    """Keeps cookies and the current page."""

    def __init__(self, address: str) -> None:
        self._address = address
        # The visitor speaks HTTPS to the web server in front, so secure cookies are sent.
        policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        cookies = urllib.request.HTTPCookieProcessor(CookieJar(policy))
        self._opener = urllib.request.build_opener(cookies)
        self.page = ""

    def open(self, path: str, form: dict[str, str] | None = None) -> str:
        """Follows a link, or sends a form; returns the page's title. Raises on an error status."""
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        headers = {
            "Host": "classroom.example",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "192.0.2.7",
            "Referer": f"{NAME}{path}",
        }
        request = urllib.request.Request(self._address + path, data, headers)
        with self._opener.open(request, timeout=30) as answer:
            self.page = answer.read().decode()
        found = TITLE.search(self.page)
        return html.unescape(found[1].strip()) if found else ""

    def send(self, **fields: str) -> str:
        """Sends the form of the current page, with its token."""
        token, action = TOKEN.findall(self.page), ACTION.findall(self.page)
        form = {"csrf_token": html.unescape(token[-1]), **fields}
        return self.open(html.unescape(action[-1]) if action else "/login", form)


def main(address: str, accounts: str) -> None:
    seen: list[list[str]] = []
    for login, password, pages in json.loads(accounts):
        visitor = Visitor(address)
        visitor.open("/login")
        titles = [visitor.send(login=login, password=password)]
        for page in pages:
            titles.append(visitor.open(page.removeprefix("!")))
            if page.startswith("!"):
                titles.append(visitor.send())
        seen.append(titles)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
