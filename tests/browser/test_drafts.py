"""In a real browser, on a phone and a desktop, with and without script: no answer is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Route,
    expect,
)

from tests.browser.chromium import IN_CHROMIUM, PAGE_TIMEOUT_MS
from tests.browser.site import SiteProcess
from tests.support.instance import short_directory, until
from tests.webapp.browser import PASSWORD
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, database

pytestmark = IN_CHROMIUM

QUIZ = "/courses/data/quizzes/data-chance-quiz"
SAVED = re.compile(r"Saved at \d\d:\d\d")
SIZES: dict[str, dict[str, Any]] = {
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
    "desktop": {"viewport": {"width": 1280, "height": 900}},
}
FIRST = ("1", "about six")
OTHER = ("0", "7")


@pytest.fixture(scope="module")
def site() -> Iterator[SiteProcess]:
    made = SiteProcess(short_directory())
    made.fill()
    made.start()
    yield made
    made.kill()
    shutil.rmtree(made.directory)


@dataclass
class Pupil:
    """A browser of its own, logged in as a student."""

    site: SiteProcess
    chromium: Browser
    options: dict[str, Any]
    scripted: bool
    context: BrowserContext

    def open(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(PAGE_TIMEOUT_MS)
        page.goto(f"{self.site.address}{QUIZ}")
        return page

    def again(self) -> Page:
        """Opens the quiz in a new browser, as after the old one was killed."""
        self.context.close()
        self.context = self.chromium.new_context(**self.options)
        page = self.open()
        log_in(page)
        page.goto(f"{self.site.address}{QUIZ}")
        return page

    def answer(self, page: Page, answers: tuple[str, str]) -> None:
        """Answers, and lets the script save, or presses the button."""
        choice, number = answers
        page.locator(f"input[name=q0][value='{choice}']").check()
        page.locator("input[name=q1]").fill(number)
        if self.scripted:
            revision = page.locator("input[name=revision]")
            before = revision.input_value()
            until(lambda: revision.input_value() != before, "the script has saved", 20)
        else:
            page.get_by_role("button", name="Save and continue later").click()
        expect(page.locator("#saved")).to_have_text(SAVED)

    def close(self) -> None:
        self.context.close()


def each(*, scripted_only: bool = False) -> pytest.MarkDecorator:
    """Runs a test on a phone and a desktop, with and without script."""
    quick = {("phone", True), ("desktop", False)}
    return pytest.mark.parametrize(
        "pupil",
        [
            pytest.param(
                (size, script),
                id=f"{size}-{'script' if script else 'no script'}",
                marks=[] if (size, script) in quick else [pytest.mark.long(minutes=0.2)],
            )
            for size in SIZES
            for script in (True, False)
            if script or not scripted_only
        ],
        indirect=True,
    )


@pytest.fixture
def pupil(site: SiteProcess, chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Pupil]:
    size, scripted = request.param
    with database(site.app()).transaction() as connection:
        for table in ("attempts", "quiz_drafts", "login_hits"):
            connection.execute(f"DELETE FROM {table}")
    options = {**SIZES[size], "java_script_enabled": scripted}
    made = Pupil(site, chromium, options, scripted, chromium.new_context(**options))
    page = made.open()
    log_in(page)
    page.close()
    yield made
    made.close()


def log_in(page: Page, login: str = "student") -> None:
    page.locator("input[name=login]").fill(login)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out", exact=True)).to_be_visible()


def expect_answers(page: Page, answers: tuple[str, str]) -> None:
    choice, number = answers
    expect(page.locator(f"input[name=q0][value='{choice}']")).to_be_checked()
    expect(page.locator("input[name=q1]")).to_have_value(number)


def attempts(site: SiteProcess) -> list[tuple[int, int]]:
    rows = database(site.app()).connection().execute("SELECT user_id, number FROM attempts")
    return [(row[0], row[1]) for row in rows]


def hand_in(page: Page) -> None:
    page.get_by_role("button", name="Hand in").click()


@each()
def test_a_draft_survives_a_killed_browser_and_a_restarted_server(
    site: SiteProcess, pupil: Pupil
) -> None:
    page = pupil.open()
    pupil.answer(page, FIRST)
    site.kill()
    site.start()
    page = pupil.again()
    expect_answers(page, FIRST)
    expect(page.locator("#saved")).to_have_text(SAVED)
    expect(page.get_by_text("They are not handed in yet.")).to_be_visible()
    page.locator("input[name=q1]").fill("6")
    hand_in(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    page.goto(f"{site.address}{QUIZ}")
    expect(page.locator("input[name=q1]")).to_have_value("")
    assert attempts(site) == [(STUDENT, 1)]


@each()
@pytest.mark.parametrize("button", ["Hand in", "Save and continue later"])
def test_answers_survive_a_session_that_is_lost_when_they_are_sent(
    site: SiteProcess, pupil: Pupil, button: str
) -> None:
    page = pupil.open()
    pupil.context.clear_cookies()
    page.locator("input[name=q0][value='1']").check()
    page.locator("input[name=q1]").fill("6")
    page.get_by_role("button", name=button).click()
    expect(page.get_by_text("Your login had ended")).to_be_visible()
    log_in(page)
    assert page.url == f"{site.address}{QUIZ}"
    expect_answers(page, ("1", "6"))
    expect(page.get_by_text("Your answers are here again, and saved.")).to_be_visible()
    assert attempts(site) == []
    hand_in(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    assert attempts(site) == [(STUDENT, 1)]


@each()
def test_the_open_page_of_a_pupil_is_not_taken_by_the_next_one(
    site: SiteProcess, pupil: Pupil
) -> None:
    page, other = pupil.open(), pupil.open()
    other.get_by_role("button", name="Log out").click()
    log_in(other, "emil")
    page.locator("input[name=q0][value='1']").check()
    page.locator("input[name=q1]").fill("6")
    hand_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Whose answers are these?")
    page.get_by_role("button", name="Log out, so that Noor Haddad can log in").click()
    log_in(page)
    expect_answers(page, ("1", "6"))
    rows = database(site.app()).connection().execute("SELECT user_id FROM quiz_drafts").fetchall()
    assert [row[0] for row in rows] == [STUDENT]
    assert (OTHER_STUDENT, 1) not in attempts(site)


@each()
def test_a_second_tab_s_other_answers_are_offered_as_the_next_attempt(
    site: SiteProcess, pupil: Pupil
) -> None:
    first, second = pupil.open(), pupil.open()
    for page, (choice, number) in ((first, ("1", "6")), (second, OTHER)):
        page.locator(f"input[name=q0][value='{choice}']").check()
        page.locator("input[name=q1]").fill(number)
    hand_in(first)
    expect(first.get_by_role("heading", level=1)).to_contain_text("Your result")
    hand_in(second)
    expect(second.get_by_role("heading", level=1)).to_contain_text("Your result")
    assert second.url.endswith("/attempts/1")
    expect(second.get_by_text("kept as a draft of attempt 2")).to_be_visible()
    second.get_by_role("link", name="Go on with them").click()
    expect_answers(second, OTHER)
    assert attempts(site) == [(STUDENT, 1)]


@each()
def test_back_and_hand_in_makes_no_second_attempt(site: SiteProcess, pupil: Pupil) -> None:
    page = pupil.open()
    page.locator("input[name=q0][value='1']").check()
    page.locator("input[name=q1]").fill("6")
    hand_in(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    page.go_back()
    expect(page.get_by_role("button", name="Hand in")).to_be_visible()
    expect(page.get_by_text("You have handed in attempt 1")).to_be_visible()
    # What the browser shows is either empty, of a new attempt, or what was handed in.
    if page.locator("input[name=q1]").input_value() == "6":
        hand_in(page)
        expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    assert attempts(site) == [(STUDENT, 1)]


# -- with the script alone ------------------------------------------------------------------------


@each(scripted_only=True)
@pytest.mark.parametrize("leave", ["close", "navigate"])
def test_the_script_saves_what_was_typed_last_when_the_page_is_left(
    site: SiteProcess, pupil: Pupil, leave: str
) -> None:
    page = pupil.open()
    page.locator("input[name=q1]").fill("42")
    if leave == "close":
        page.close(run_before_unload=True)
    else:
        page.goto(f"{site.address}/results")

    def saved() -> bool:
        rows = database(site.app()).connection().execute("SELECT answers FROM quiz_drafts")
        return any('"42"' in row[0] for row in rows)

    until(saved, "what was typed last is saved", 10)
    page = pupil.open()
    expect(page.locator("input[name=q1]")).to_have_value("42")


@each(scripted_only=True)
def test_while_the_site_is_down_the_page_says_so_and_saves_afterwards(
    site: SiteProcess, pupil: Pupil
) -> None:
    page = pupil.open()
    site.kill()
    page.locator("input[name=q1]").fill("42")
    expect(page.locator("#saved")).to_contain_text("Not saved: the site does not answer.")
    # Handing in would replace the page, and the answers, by the browser's own error page.
    hand_in(page)
    expect(page.locator("input[name=q1]")).to_have_value("42")
    site.start()
    hand_in(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    assert attempts(site) == [(STUDENT, 1)]


@each(scripted_only=True)
def test_a_page_without_a_session_says_so_and_goes_on_after_a_login_elsewhere(
    site: SiteProcess, pupil: Pupil
) -> None:
    page = pupil.open()
    pupil.context.clear_cookies()
    page.locator("input[name=q1]").fill("42")
    expect(page.locator("#saved")).to_contain_text("Not saved: you are logged out.")
    log_in(pupil.open())
    page.locator("input[name=q1]").fill("43")
    expect(page.locator("#saved")).to_have_text(SAVED)
    hand_in(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    assert attempts(site) == [(STUDENT, 1)]


@each(scripted_only=True)
def test_a_tab_says_that_another_has_saved_other_answers(pupil: Pupil) -> None:
    first, second = pupil.open(), pupil.open()
    pupil.answer(first, FIRST)
    second.locator("input[name=q1]").fill("7")
    expect(second.locator("#saved")).to_contain_text("Not saved: other answers to this quiz")
    second.get_by_role("button", name="Save and continue later").click()
    expect(second.get_by_text("The answers below are not saved.")).to_be_visible()
    second.get_by_role("button", name="Save and continue later").click()
    expect(second.locator("#saved")).to_have_text(SAVED)
    expect(second.locator("input[name=q1]")).to_have_value("7")


@each(scripted_only=True)
def test_a_save_on_its_way_does_not_arrive_after_what_is_handed_in(
    site: SiteProcess, pupil: Pupil
) -> None:
    page = pupil.open()
    held: list[Route] = []
    page.route("**/draft/autosave", lambda route: held.append(route))
    page.locator("input[name=q1]").fill("5")
    until(lambda: page.evaluate("true") and held, "a save is on its way", 10)
    page.locator("input[name=q1]").fill("6")
    page.get_by_role("button", name="Hand in").click(no_wait_after=True)
    page.wait_for_timeout(300)
    for route in held:
        route.continue_()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your result")
    expect(page.get_by_text("kept as a draft")).to_have_count(0)
    rows = database(site.app()).connection().execute("SELECT count(*) FROM quiz_drafts")
    assert rows.fetchone()[0] == 0
    assert attempts(site) == [(STUDENT, 1)]


@each(scripted_only=True)
def test_a_hand_in_that_is_broken_off_leaves_a_page_that_saves(
    site: SiteProcess, pupil: Pupil
) -> None:
    page = pupil.open()
    page.locator("input[name=q1]").fill("5")
    expect(page.locator("#saved")).to_have_text(SAVED)
    page.route(f"**{QUIZ}", lambda route: route.abort("aborted"))
    hand_in(page)
    page.unroute(f"**{QUIZ}")
    pupil.answer(page, ("1", "6"))
    expect_answers(pupil.again(), ("1", "6"))
    assert attempts(site) == []
