"""One booted machine for all tests of this folder, with logd installed as in systemd/README.md."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import short_directory
from tests.systemd.box import Box, download_wheels, why_not
from tests.systemd.page import commands_by_section

PASSWORD = "a password for tests"
INSTALL = "Install, in five commands"


@pytest.fixture(scope="session")
def wheels() -> Iterator[Path]:
    """The directory of packages to install."""
    if reason := why_not():
        pytest.skip(reason)
    directory = short_directory()
    try:
        download_wheels(directory)
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def bare_box(wheels: Path) -> Iterator[Box]:
    """A machine without logd."""
    directory = short_directory()
    box = Box(directory, wheels)
    try:
        yield box
    finally:
        box.close()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def box(bare_box: Box) -> Box:
    """A machine with logd and the site, installed by the commands of the page."""
    for command in commands_by_section()[INSTALL]:
        bare_box.run(f"cd /usr/src/logd && {command}", text=f"{PASSWORD}\n{PASSWORD}\n")
    bare_box.run("useradd --system --groups logd-write app && useradd --system outsider")
    bare_box.run("install -d -m 0777 /run/test")
    return bare_box
