"""Man pages: each command has one, with all of its options, and no formatter complains."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from logd.cli import SECTIONS, main
from logd.commands._command import Command
from logd.config.table import SETTINGS
from logd.errors import EXITS
from logd.manpages import pages
from tests.support.instance import ROOT

COMMANDS = sorted(name for part in SECTIONS.values() for name in part)
PAGES = sorted(pages())
FORMATTERS = {
    "groff": ["-man", "-ww", "-z"],
    "man": ["--warnings", "-l"],
    "mandoc": ["-T", "lint", "-W", "error"],  # a page without a date is worth it a warning
}


def read(page: str) -> str:
    """The page as a terminal shows it, fonts and escapes taken away; words, not lines."""
    text = re.sub(r"\\f[BIRP]|\\&", "", pages()[page])
    for escape, char in (("-", "-"), ("(aq", "'"), ("(ha", "^"), ("(ti", "~"), ("e", "\\")):
        text = text.replace(f"\\{escape}", char)
    return " ".join(text.split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, as `make install` writes them."""
    place = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, "-m", "logd.manpages", str(place)], cwd=ROOT, check=True)
    return place


def test_every_command_and_the_configuration_have_their_page() -> None:
    assert set(PAGES) == {"logd.1", "logd.toml.5", *(f"logd-{name}.1" for name in COMMANDS)}
    for name in COMMANDS:
        assert f"logd-{name}(1)" in read("logd.1")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_example_and_exit_code_is_in_the_page(name: str) -> None:
    command, text = main.load_command(name), read(f"logd-{name}.1")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert all(option in text for option in parameter.opts)
            assert " ".join((parameter.help or "").replace("`", "").split()) in text
    if isinstance(command, Command):
        for line, _purpose in command.examples:
            assert line in text
        for code in command.exits:
            meaning = EXITS[code].meaning.replace("`", "")
            assert f".TP {code} {meaning[0].upper()}{meaning[1:]}." in text
    for paragraph in (command.help or "").split("\n\n"):
        # What follows \b is shown as it is.
        assert " ".join(paragraph.replace("`", "").replace("\b", "").split()) in text


def test_every_exit_code_is_in_the_main_page() -> None:
    text = read("logd.1")
    for code, end in EXITS.items():
        meaning = end.meaning.replace("`", "")
        assert f"{code} {meaning[0].upper()}{meaning[1:]}." in text


def test_every_setting_is_in_the_page_with_what_it_takes_and_its_default() -> None:
    text = read("logd.toml.5")
    for name, setting in SETTINGS.items():
        assert f".TP {name} " in text
        expected = setting.expected
        assert expected[0].upper() + expected[1:] in text
    assert "quarantine_rows_max Older rows are removed, but still counted. Expected" in text
    assert "Default: 10000." in text and 'Default: "logd.sock".' in text
    assert "For example: [33]." in text


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_is_about_can_be_found_by_apropos(page: str) -> None:
    """NAME is one line of the form that man-db reads."""
    lines = pages()[page].splitlines()
    name, what = lines[lines.index(".SH NAME") + 1].split(r" \- ")
    assert name == page[:-2] and what and not what.endswith(".")


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_no_formatter_complains(written: Path, formatter: str) -> None:
    if shutil.which(formatter) is None:
        pytest.skip(f"{formatter} is not installed")
    for page in PAGES:
        path = written / f"man{page[-1]}" / page
        done = subprocess.run(
            [formatter, *FORMATTERS[formatter], str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        assert (done.returncode, done.stderr) == (0, ""), page


def test_the_pages_contain_nothing_of_the_machine_they_are_made_on(written: Path) -> None:
    """The same text gives the same bytes, which all users may read."""
    for page, text in pages().items():
        path = written / f"man{page[-1]}" / page
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o644
        assert not re.search(r"/(home|root|tmp)/", text)
