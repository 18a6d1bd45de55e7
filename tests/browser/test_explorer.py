"""The explorer in a real browser: on a phone and a desktop, and a download that has to stop."""

from __future__ import annotations

import csv
import http.client
import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from logd_client import Client
from tests.browser.chromium import IN_CHROMIUM, PAGE_TIMEOUT_MS, log_in
from tests.support.classroom_site import ClassroomSite
from tests.support.instance import Instance, check_sums
from tests.webapp.browser import PASSWORD
from tests.webapp.conftest import OTHER_STUDENT, STUDENT
from webapp.classroom.present.event_export import INCOMPLETE

pytestmark = IN_CHROMIUM

LIST = "/audit/events"
# axe-core's axe.min.js, as `npm install axe-core` brings it.
AXE = os.environ.get("AXE_CORE")
WIDTHS = (320, 360, 768, 1280)
SCHEMES = (
    {"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"},
)  # fmt: skip
STATES = {
    "list": LIST,
    "filtered": f"{LIST}?user=noor,emil&type=page_view&page=courses.lesson&prop=status%3D200",
    "errors": f"{LIST}?user=nobody&type=No&status=9&prop=x&since=now&about=a&text={'x' * 300}",
    "nothing": f"{LIST}?text=there+is+no+such+text",
    "counts": f"{LIST}/counts",
    "no counts": f"{LIST}/counts?text=there+is+no+such+text",
    "event": f"{LIST}/1",
    "gone": f"{LIST}/99999",
    "searches": f"{LIST}/searches",
}
# A phone shows 50 events in less than a third of what the table of all properties took (28,474).
PHONE_HEIGHT_MAX = 9_000


def emit(instance: Instance, count: int) -> None:
    client = Client(instance.socket)
    accepted = 0
    for number in range(count):
        props = {
            "route": "/courses/<slug>/lessons/<lesson_slug>",
            "endpoint": "courses.lesson",
            "method": "GET",
            "status": 200,
            "view_args": {"slug": "data", "lesson_slug": "chance"},
            "duration_ms": 6.647,
            "request_id": f"{number:032x}",
            "note": "x" * 100,
        }
        user = str(STUDENT if number % 3 else OTHER_STUDENT)
        # A full outbox refuses, so it is emptied now and then.
        accepted += client.emit("page_view", user=user, props=props)
        if number % 500 == 499:
            assert client.flush(30)
    assert client.flush(30)
    client.close()
    status = instance.settle()
    # The site logs its own events too, all of which are accepted.
    assert accepted == count
    own = status["stored"] - status["own"] - count
    check_sums(status, attempted=count + own, accepted=accepted + own)


def width_past_the_screen(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_an_auditor_finds_keeps_and_takes_events_on_a_phone_and_a_desktop(
    instance: Instance, site: ClassroomSite, chromium: Browser, tmp_path: Path
) -> None:
    emit(instance, 60)
    page = log_in(chromium, site.address, ("auditor", PASSWORD))
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{LIST}?type=page_view&user=noor,emil")
        first = page.locator("table.explorer tbody tr").first
        expect(first).to_be_visible()
        assert page.locator("table.explorer tbody tr").count() == 50
        assert width_past_the_screen(page) == 0
        height = page.evaluate("document.documentElement.scrollHeight")
        assert height < PHONE_HEIGHT_MAX
        # What happened comes first, and ids and durations are hidden until they are wanted.
        assert first.inner_text().startswith("Read the lesson")
        expect(first.get_by_text("request_id")).to_be_hidden()
        first.locator("summary").click()
        expect(first.get_by_text("request_id")).to_be_visible()
        assert width_past_the_screen(page) == 0
        page.screenshot(path=tmp_path / f"events-{width}.png")

        # A click narrows, a chip widens again.
        first.get_by_role("link", name="Noor Haddad").or_(
            first.get_by_role("link", name="Emil Sørensen")
        ).click()
        chip = page.locator(".chips li", has_text="Who:")
        expect(chip).to_have_count(1)
        names = page.locator("table.explorer tbody td:nth-child(2)").all_inner_texts()
        assert len(set(names)) == 1
        chip.get_by_role("link").click()
        expect(page.locator(".chips li", has_text="Who:")).to_have_count(0)

    # An event has an address of its own, and leads on to others like it.
    page.goto(f"{LIST}?type=page_view&user=noor")
    page.locator("table.explorer tbody th a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Read the lesson")
    page.get_by_role("link", name="Other events of this request").click()
    assert page.locator("table.explorer tbody tr").count() == 1

    # A search is saved and opened; its events are downloaded.
    page.goto(f"{LIST}?type=page_view&user=noor&last=7d")
    page.get_by_label("Save this search as").fill("Noor this week")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("Saved as")
    page.get_by_role("link", name="Saved searches").click()
    page.get_by_role("link", name="Noor this week").click()
    expect(page.locator(".chips li")).to_have_count(3)
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV", exact=True).click()
    started.value.save_as(tmp_path / "events.csv")
    with (tmp_path / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and {row["user"] for row in rows} == {str(STUDENT)}


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe-core's axe.min.js")
@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark", "forced colours"])
def test_axe_finds_nothing_in_any_state(
    instance: Instance, site: ClassroomSite, chromium: Browser, scheme: dict[str, str]
) -> None:
    assert AXE is not None
    emit(instance, 8)
    axe = Path(AXE).read_text()
    cookies = log_in(chromium, site.address, ("auditor", PASSWORD)).context.cookies()
    # The site's own policy would refuse the script of the test.
    page = chromium.new_context(base_url=site.address, bypass_csp=True).new_page()
    page.context.add_cookies(cookies)  # type: ignore[arg-type] # what one context has another takes
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    page.emulate_media(**scheme)  # type: ignore[arg-type] # one of SCHEMES
    page.goto(LIST)
    page.get_by_label("Save this search as").fill("All")
    page.get_by_role("button", name="Save").click()
    found: list[str] = []
    for state, path in STATES.items():
        page.goto(path)
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        page.evaluate(axe)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            violations = page.evaluate("axe.run().then(r => r.violations.map(v => v.id))")
            wide = width_past_the_screen(page)
            found += [f"{state} {width}: {what}" for what in violations]
            found += [f"{state} {width}: {wide} px too wide"] if wide > 0 else []
    assert found == []


def test_a_download_that_logd_stops_answering_ends_visibly(
    instance: Instance, site: ClassroomSite, chromium: Browser
) -> None:
    emit(instance, 20_000)
    page = log_in(chromium, site.address, ("auditor", PASSWORD))
    cookie = "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    headers = {"Cookie": cookie, "User-Agent": page.evaluate("navigator.userAgent")}
    connection.request("GET", f"{LIST}/export/csv", headers=headers)
    response = connection.getresponse()
    assert response.status == 200
    received = response.read(100_000)
    assert instance.daemon is not None
    daemon = instance.daemon.popen.pid
    children = (Path("/proc") / str(daemon) / "task" / str(daemon) / "children").read_text()
    stopped = [daemon, *map(int, children.split())]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(http.client.IncompleteRead) as aborted:  # noqa: PT012 - reads until it is aborted
            while part := response.read(1 << 16):
                received += part
        received += aborted.value.partial
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    connection.close()
    last = received.decode().splitlines()[-1]
    assert last.lstrip('"').startswith(INCOMPLETE), last
    assert received.count(b"\n") < 20_000
