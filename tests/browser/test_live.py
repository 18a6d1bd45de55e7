"""The live view in a real browser, whose EventSource asks again over every restart."""

from __future__ import annotations

import contextlib
import json

from playwright.sync_api import Browser, Page, Route, expect

from logd_client import Client
from tests.browser.chromium import IN_CHROMIUM, PAGE_TIMEOUT_MS, log_in
from tests.support.classroom_site import ClassroomSite
from tests.support.instance import Instance, check_streams, check_sums
from tests.webapp.browser import PASSWORD
from webapp.classroom.views.live import ROWS_MAX

pytestmark = IN_CHROMIUM

# Keeps the position of each row at the moment at which the script adds it.
WATCH = """() => {
  window.added = [];
  new MutationObserver((changes) => {
    for (const change of changes)
      for (const row of change.addedNodes)
        if (row.dataset) window.added.push(row.dataset.position);
  }).observe(document.querySelector("[data-role=events]"), {childList: true});
}"""
AWAY = "logd, which keeps the activity log, does not answer."


def open_live(chromium: Browser, site: ClassroomSite, query: str = "") -> Page:
    page = log_in(chromium, site.address, ("auditor", PASSWORD))
    page.goto(f"/audit/live{query}")
    expect(page.get_by_text("Live. Last asked at")).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    page.evaluate(WATCH)
    return page


def newest(page: Page, number: int) -> None:
    """Waits for an event, above which are at most the readings of the view itself."""
    shown = page.locator("ol.live li").filter(has_not_text="report_read").first
    expect(shown.locator("[data-place=props]")).to_have_text(
        f"n: {number}", timeout=PAGE_TIMEOUT_MS
    )


def test_a_browser_shows_each_event_once_over_kills_of_logd_and_of_the_site(
    instance: Instance,
    chromium: Browser,
    site: ClassroomSite,
) -> None:
    page = open_live(chromium, site)
    (first,) = page.locator("ol.live li").first.evaluate("row => [row.dataset.position]")
    with contextlib.closing(Client(instance.socket)) as client:

        def emit(start: int, count: int) -> None:
            for number in range(start, start + count):
                assert client.emit("essay_read", user="11", props={"n": number})

        emit(0, 20)
        newest(page, 19)
        instance.kill()
        expect(page.locator("[data-role=trouble]")).to_contain_text(AWAY, timeout=PAGE_TIMEOUT_MS)
        emit(20, 20)
        instance.start(loads_reports=True)
        newest(page, 39)
        expect(page.locator("[data-role=trouble]")).to_be_hidden()
        site.kill()
        emit(40, 20)
        expect(page.locator("[data-role=trouble]")).to_contain_text(
            "The site does not answer", timeout=PAGE_TIMEOUT_MS
        )
        site.start()
        newest(page, 59)
        page.get_by_role("button", name="Pause").click()
        emit(60, ROWS_MAX + 50)
        assert client.flush(20)
        page.wait_for_timeout(3000)
        newest(page, 59)
        page.get_by_role("button", name="Continue").click()
        newest(page, 60 + ROWS_MAX + 49)
        assert client.stats()["attempted"] == client.stats()["accepted"] == 60 + ROWS_MAX + 50
    assert page.locator("ol.live li").count() == ROWS_MAX, "the oldest rows leave"
    added = page.evaluate("window.added")
    stored = [f"{one['id']}.{one['ts_ns']}" for one in instance.events()]
    start = stored.index(first) + 1
    assert added == stored[start : start + len(added)]
    assert len(added) >= 60 + ROWS_MAX + 50
    page.context.close()
    site.kill()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)


def test_the_text_of_an_event_is_no_markup_and_a_busy_page_announces_little(
    instance: Instance,
    chromium: Browser,
    site: ClassroomSite,
) -> None:
    page = open_live(chromium, site, "?type=essay_read")
    page.evaluate(
        """() => {
          window.said = [];
          const region = document.querySelector("[data-role=announcement]");
          new MutationObserver(() => window.said.push(region.textContent)).observe(
            region, {childList: true, characterData: true, subtree: true});
        }"""
    )
    markup = "<img src=x onerror=alert(1)>"
    with contextlib.closing(Client(instance.socket)) as client:
        for number in range(30):
            assert client.emit("essay_read", user="11", props={"n": number, markup: markup})
            assert client.emit("essay_written", user="11", props={"n": number})
            page.wait_for_timeout(100)
        expect(page.locator("ol.live li").first).to_contain_text("n: 29", timeout=PAGE_TIMEOUT_MS)
        assert client.stats()["accepted"] == 60
    first = page.locator("ol.live li").first
    expect(first).to_contain_text(markup)
    expect(first).to_contain_text("Noor Haddad #11")
    assert page.locator("ol.live img").count() == 0
    assert set(page.locator("ol.live code").all_inner_texts()) == {"essay_read"}
    assert len(page.evaluate("window.said")) == 1, "once, and again in half a minute"
    site.kill()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)


def test_an_answer_that_comes_twice_is_shown_once_and_a_replaced_trail_ends_the_view(
    instance: Instance, chromium: Browser, site: ClassroomSite
) -> None:
    """As a proxy may send it, or a browser that goes back to an earlier position."""
    page = log_in(chromium, site.address, ("auditor", PASSWORD))
    names = ("moment", "clock", "type", "who", "told", "props", "doubt")
    answers: list[str] = []

    def answer(route: Route) -> None:
        events = "".join(
            f"id: {at}.7\nevent: stored\ndata: "
            + json.dumps({"position": f"{at}.7", "id": str(at), **dict.fromkeys(names, f"n{at}")})
            + "\n\n"
            for at in (1001, 1002)
        )
        state = {"more": False} if len(answers) < 3 else {"replaced": True}
        body = f"retry: 50\n\n{events}event: state\ndata: {json.dumps(state)}\n\n"
        answers.append(body)
        route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/audit/live/stream*", answer)
    page.goto("/audit/live")
    expect(page.locator("[data-role=trouble]")).to_contain_text("restored from a backup")
    positions = page.locator("ol.live li").evaluate_all("rows => rows.map(r => r.dataset.position)")
    assert positions[:2] == ["1002.7", "1001.7"]
    assert len(set(positions)) == len(positions)
    page.wait_for_timeout(500)
    assert len(answers) == 4, "it asks no more"
    page.context.close()
    site.kill()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)


def test_a_page_that_nobody_looks_at_asks_for_nothing_and_then_shows_all(
    instance: Instance, chromium: Browser, site: ClassroomSite
) -> None:
    page = log_in(chromium, site.address, ("auditor", PASSWORD))
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', {get: () => window.shown !== true})"
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def turn(shown: str) -> None:
        page.evaluate(f"window.shown = {shown}")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    page.goto("/audit/live")
    with contextlib.closing(Client(instance.socket)) as client:
        for number in (1, 2):
            page.wait_for_timeout(3000)
            assert not [url for url in asked if "/stream" in url]
            assert client.emit("essay_read", user="11", props={"n": number}, durable=True)
            turn("true")
            newest(page, number)
            turn("false")
            page.wait_for_timeout(500)
            asked.clear()
        assert client.stats()["accepted"] == 2
    page.context.close()
    site.kill()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)


def test_after_a_logout_elsewhere_the_page_says_so_and_asks_no_more(
    instance: Instance, chromium: Browser, site: ClassroomSite
) -> None:
    page = open_live(chromium, site)
    other = page.context.new_page()
    other.goto("/courses/")
    other.get_by_role("button", name="Log out").click()
    page.bring_to_front()
    expect(page.locator("[data-role=trouble]")).to_contain_text(
        "You are logged out", timeout=PAGE_TIMEOUT_MS
    )
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6000)
    assert asked == []
    page.context.close()
    site.kill()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)


def test_without_a_script_the_page_shows_the_newest_and_a_link_to_newer_ones(
    instance: Instance,
    chromium: Browser,
    site: ClassroomSite,
) -> None:
    context = chromium.new_context(base_url=site.address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/login?next=/audit/live")
    page.locator("input[name=login]").fill("auditor")
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    with contextlib.closing(Client(instance.socket)) as client:
        assert client.emit("essay_read", user="11", props={"n": 7}, durable=True)
        page.get_by_role("link", name="Show newer events").click()
        assert "n: 7" in page.locator("ol.live").inner_text()
        assert client.stats()["accepted"] == 1
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    context.close()
    site.kill()
    state = instance.settle()
    accepted = sum(check_streams(instance.events()).values()) - state["own"]
    check_sums(state, attempted=accepted, accepted=accepted)
