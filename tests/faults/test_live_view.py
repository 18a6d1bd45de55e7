"""The live view of the auditor, with real processes: each event once, in order, whatever is killed.

`Follower` does what a browser's EventSource does; tests/browser/test_live.py has a real one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from logd_client import Client
from logd_wire.schema import REPORT_READ
from tests.support.classroom_site import ClassroomSite, classroom_site
from tests.support.instance import Instance, check_streams, check_sums, until
from tests.support.tally import Tally
from tests.webapp.browser import PASSWORD
from tests.webapp.conftest import AUDITOR

EVENTS = 600


class Visitor:
    """Requests with the cookies of a login; each on a connection of its own."""

    def __init__(self, site: ClassroomSite, login: str) -> None:
        self._site = site
        self._cookies: dict[str, str] = {}
        _, text = self.get("/login")
        (token,) = re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', text)
        form = {"csrf_token": token, "login": login, "password": PASSWORD}
        status, _ = self.get("/login", "POST", urllib.parse.urlencode(form))
        assert status == 302

    def get(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, str]:
        sent = {"Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items()), **headers}
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=20)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie") or ():
                name, _, value = cookie.partition(";")[0].partition("=")
                self._cookies[name] = value
            return response.status, response.read().decode()
        finally:
            connection.close()


class Follower(threading.Thread):
    """Asks for the stream again and again, from the page's position on."""

    def __init__(self, visitor: Visitor) -> None:
        super().__init__(daemon=True)
        status, page = visitor.get("/audit/live")
        assert status == 200
        (self.first,) = re.findall(r'data-after="([^"]*)"', page)
        self.seen: list[str] = []
        self.states: list[dict[str, Any]] = []
        self.failures = 0
        self.done = threading.Event()
        self._visitor = visitor

    def wait_for_answers(self, count: int) -> None:
        enough = len(self.states) + count
        until(lambda: len(self.states) >= enough, f"{count} more answers")

    def run(self) -> None:
        last = ""
        while not self.done.wait(0.05):
            headers = {"Last-Event-ID": last} if last else {}
            try:
                status, text = self._visitor.get(
                    f"/audit/live/stream?after={self.first}", **headers
                )
                assert status == 200, status
            except (OSError, http.client.HTTPException):
                self.failures += 1
                continue
            for message in text.split("\n\n"):
                fields = dict(line.split(": ", 1) for line in message.splitlines())
                if fields.get("event") == "stored":
                    last = fields["id"]
                    self.seen.append(last)
                elif fields.get("event") == "state":
                    self.states.append(json.loads(fields["data"]))


def test_each_event_is_shown_once_in_order_over_kills_of_logd_and_of_the_site(
    instance: Instance, tally: Tally
) -> None:
    instance.start(loads_reports=True)
    with classroom_site(instance) as site, contextlib.closing(Client(instance.socket)) as client:
        follower = Follower(Visitor(site, "auditor"))
        follower.start()
        accepted = 0

        def emit(count: int) -> None:
            nonlocal accepted
            for _ in range(count):
                accepted += client.emit("essay_read", user=str(accepted % 7), props={"n": accepted})
                time.sleep(0.001)  # so that the view sees some of them at a time

        for _ in range(3):
            emit(EVENTS // 6)
            instance.kill()
            until(lambda: "away" in follower.states[-1], "the view says that logd is away")
            emit(EVENTS // 6)
            instance.start(loads_reports=True)
            site.restart()
        assert accepted == EVENTS and client.flush(30)
        instance.settle()
        newest = [one for one in instance.events() if one["type"] == "essay_read"][-1]
        until(
            lambda: follower.seen and int(follower.seen[-1].split(".")[0]) >= newest["id"],
            "the newest event is shown",
        )
        follower.wait_for_answers(3)
        quiet = instance.status()["stored"]
        follower.wait_for_answers(10)
        assert instance.status()["stored"] == quiet, "an answer without events is no reading"
        follower.done.set()
        follower.join()
        assert follower.failures, "the site was away too"
        stored = [f"{one['id']}.{one['ts_ns']}" for one in instance.events()]
        start = 0 if follower.first == "0" else stored.index(follower.first) + 1
        assert follower.seen == stored[start : start + len(follower.seen)], "each once, in order"
        assert len(follower.seen) >= EVENTS
        readings = [one for one in instance.events() if one["type"] == REPORT_READ]
        assert {one["user"] for one in readings} == {str(AUDITOR)}
    state, events = instance.settle(), instance.events()
    own = [one["props"]["n"] for one in events if one["type"] == "essay_read"]
    assert own == list(range(EVENTS))
    # Beside these events the site has logged its own, without a gap in its numbers.
    accepted = sum(check_streams(events).values()) - state["own"]
    tally.account(state, events, attempted=accepted, accepted=accepted, kills=6)


def test_hung_streams_leave_the_threads_to_pupils(instance: Instance) -> None:
    """logd stopped, and six auditors' pages ask: a pupil's page is answered at once."""
    instance.start(loads_reports=True)
    with classroom_site(instance) as site:
        visitors = [Visitor(site, "auditor") for _ in range(6)]
        pupil = Visitor(site, "student")
        followers = [Follower(visitor) for visitor in visitors]
        pids = _group(instance)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            for follower in followers:
                follower.start()
            until(lambda: any("away" in s for f in followers for s in f.states), "away")
            took_s = []
            for _ in range(40):
                began_s = time.monotonic()
                assert pupil.get("/courses/")[0] == 200
                took_s.append(time.monotonic() - began_s)
            assert sorted(took_s)[36] < 0.3, took_s
            assert any("busy" in state for one in followers for state in one.states)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            for follower in followers:
                follower.done.set()
        for follower in followers:
            follower.join()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)


def _group(instance: Instance) -> list[int]:
    """The daemon and its report process."""
    assert instance.daemon is not None
    pid = instance.daemon.popen.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
