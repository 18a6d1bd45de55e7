"""Chromium for the tests of the site in a browser."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import Browser, Page, expect

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGE_TIMEOUT_MS = 20_000

IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed"),
]


def log_in(browser: Browser, address: str, account: tuple[str, str]) -> Page:
    """Logs in with a new browser context; returns the account's start page."""
    page = browser.new_context(base_url=address).new_page()
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    answer = page.goto("/login")
    assert answer is not None
    assert answer.status == 200
    login, password = account
    page.locator("input[name=login]").fill(login)
    page.locator("input[name=password]").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    return page
