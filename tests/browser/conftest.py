"""Chromium, and the site under gunicorn beside logd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.support.classroom_site import ClassroomSite, classroom_site
from tests.support.instance import Instance


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, headless=True
        )
        yield browser
        browser.close()


@pytest.fixture
def site(instance: Instance) -> Iterator[ClassroomSite]:
    instance.start(loads_reports=True)
    with classroom_site(instance) as site:
        yield site
