"""End to end in a real browser: a click is stored as an encrypted event and shown in a report."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from logd_wire.rendezvous import NoOutbox, read_rendezvous
from tests.browser.chromium import IN_CHROMIUM, log_in
from tests.support.instance import short_directory, until
from tests.support.ports import free_port

FIRST_RUN_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0
STORED_TIMEOUT_S = 10.0

pytestmark = IN_CHROMIUM


@dataclass
class Classroom:
    """`make run` in a directory of its own, and logd's command line."""

    var: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def screen(self) -> str:
        """Returns the output of the current run."""
        return (self.var / "screen").read_text()

    def start(self, timeout_s: float) -> str:
        """Starts the run and waits until the site answers; returns its URL."""
        port = free_port()
        with (self.var / "screen").open("wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webapp.run"],
                env={**os.environ, "PORT": str(port), "VAR": str(self.var)},
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )
        process = self.process
        until(
            lambda: "Ctrl-C" in self.screen or process.poll() is not None,
            "the site answers",
            timeout_s,
        )
        assert process.poll() is None, self.screen
        address = f"http://127.0.0.1:{port}"
        assert address in self.screen
        return address

    def account(self, role: str) -> tuple[str, str]:
        """Returns user name and password, as printed."""
        found = re.search(rf"^    {role} +(\S+) +(\S+)$", self.screen, re.MULTILINE)
        assert found, self.screen
        return found[1], found[2]

    def opened_by_the_site(self) -> list[str]:
        """Returns every file that a process of the web server has open or mapped, from /proc."""
        assert self.process is not None
        opened: list[str] = []
        servers = 0
        waiting = [self.process.pid]
        while waiting:
            here = Path("/proc") / str(waiting.pop())
            waiting += [
                int(pid) for pid in (here / f"task/{here.name}/children").read_text().split()
            ]
            if b"gunicorn" in (here / "cmdline").read_bytes():
                servers += 1
                opened += [os.readlink(fd) for fd in (here / "fd").iterdir()]
                opened += (here / "maps").read_text().splitlines()
        assert servers == 3, "a master and two workers"
        return opened

    def ctrl_c(self) -> dict[str, int]:
        """Sends Ctrl-C and waits for the end; returns the printed totals."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(STOP_TIMEOUT_S) == 0, self.screen
        last = self.screen.splitlines()[-1]
        assert re.fullmatch(r"stored \d+, pending \d+, lost \d+", last), self.screen
        assert "Traceback" not in self.screen
        return {name: int(count) for name, count in (part.split() for part in last.split(", "))}

    def query(self, *arguments: str) -> list[dict[str, Any]]:
        """Returns the events of `logd query ... --format jsonl`."""
        done = subprocess.run(
            [
                Path(sys.executable).with_name("logd"),
                *("query", "--config", self.var / "logd" / "logd.toml", "--format", "jsonl"),
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=STORED_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def end(self) -> None:
        """Ends the run and removes its files, also after a failure."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()  # the kernel then signals its children
                self.process.wait()
        try:
            outboxes = read_rendezvous(str(self.var / "logd" / "logd.sock")).directory
        except NoOutbox:
            pass
        else:
            shutil.rmtree(outboxes, ignore_errors=True)
        shutil.rmtree(self.var, ignore_errors=True)


@pytest.fixture
def classroom() -> Iterator[Classroom]:
    # Not pytest's directory: with a long test name its path is too long for a socket.
    classroom = Classroom(short_directory())
    yield classroom
    classroom.end()


def open_task(page: Page) -> tuple[str, str]:
    """Opens a task that the student has not done; returns the titles of course and task."""
    page.get_by_role("link", name="Courses").first.click()
    for course in page.locator("main h2 a").all_inner_texts():
        page.get_by_role("link", name=course, exact=True).click()
        to_do = page.locator("li").filter(has=page.get_by_text("to do", exact=True))
        if to_do.count():
            link = to_do.first.get_by_role("link")
            title = link.inner_text()
            link.click()
            return course, title
        page.go_back()
    raise AssertionError("the demo student has nothing left to do")


def matrix_cell(page: Page, student: str, task: str) -> Locator:
    """Returns the cell of a student's row and a task's column."""
    table = page.locator("table.matrix")
    column = table.locator("thead th").all_inner_texts().index(task)
    row = table.locator("tbody tr").filter(has=page.get_by_role("link", name=student, exact=True))
    return row.locator("th, td").nth(column)


def test_a_click_of_a_student_comes_back_in_the_teacher_s_matrix(
    classroom: Classroom, chromium: Browser
) -> None:
    address = classroom.start(FIRST_RUN_TIMEOUT_S)
    assert "First run" in classroom.screen
    assert classroom.screen.count(classroom.account("student")[1]) == 1

    # The teacher's charts show the demo history.
    teacher = log_in(chromium, address, classroom.account("teacher"))
    charts = teacher.locator("figure.chart")
    expect(charts.first).to_be_visible()
    assert charts.count() >= 2
    for chart in charts.all():
        drawn = chart.locator("img").evaluate("image => image.complete && image.naturalWidth")
        assert drawn > 0
        figures = chart.locator("tbody td").all_text_contents()
        assert any(int(figure.replace(",", "")) > 0 for figure in figures)

    # A student finishes a task.
    student = log_in(chromium, address, classroom.account("student"))
    name = student.locator(".who").evaluate("who => who.firstChild.textContent.trim()")
    course, task = open_task(student)
    teacher.get_by_role("link", name=course, exact=True).click()
    expect(matrix_cell(teacher, name, task)).to_contain_text("not yet")
    task_id = student.url.rsplit("/", 1)[-1]
    student.get_by_role("button", name="I have done this task").click()
    entry = student.locator("li").filter(has=student.get_by_role("link", name=task, exact=True))
    expect(entry).to_contain_text("done")

    # The click is a row in the encrypted database.
    teacher.goto("/")
    link = teacher.get_by_role("link", name=name, exact=True).get_attribute("href")
    assert link is not None
    user = link.rsplit("/", 1)[-1]

    def done() -> list[dict[str, Any]]:
        events = classroom.query("--type", "task_completed", "--user", user)
        return [event for event in events if event["props"].get("task") == task_id]

    until(done, "the task's event in `logd query`", STORED_TIMEOUT_S)
    (event,) = done()
    assert event["user"] == user
    (sent,) = (
        found
        for found in classroom.query("--type", "request_redirected", "--user", user)
        if found["props"]["request_id"] == event["props"]["request_id"]
    )
    assert sent["props"]["method"] == "POST"
    assert sent["props"]["view_args"]["task_id"] == task_id

    # The teacher reloads, and sees it.
    teacher.get_by_role("link", name=course, exact=True).click()
    teacher.reload()
    expect(matrix_cell(teacher, name, task)).to_contain_text("✓")

    # The web processes have their own database open, and an outbox, but nothing of logd's.
    opened = classroom.opened_by_the_site()
    assert any("classroom.db" in name for name in opened)
    assert any(".outbox" in name for name in opened)
    logd_s = {str(path) for path in (classroom.var / "logd").iterdir()}
    assert {"activity.db", "logd.key"} <= {Path(name).name for name in logd_s}
    assert [name for name in opened if any(path in name for path in logd_s)] == []

    # Ctrl-C ends with the totals, and nothing is lost.
    sums = classroom.ctrl_c()
    assert sums["stored"] > 40_000
    assert (sums["pending"], sums["lost"]) == (0, 0)

    # A second run keeps everything, loads no history, and starts quickly.
    started_s = time.monotonic()
    address = classroom.start(timeout_s=30)
    assert time.monotonic() - started_s < 10
    assert "First run" not in classroom.screen
    assert done() == [event]
    teacher = log_in(chromium, address, classroom.account("teacher"))
    teacher.get_by_role("link", name=course, exact=True).click()
    expect(matrix_cell(teacher, name, task)).to_contain_text("✓")
    again = classroom.ctrl_c()
    assert again["stored"] > sums["stored"]
    assert (again["pending"], again["lost"]) == (0, 0)
