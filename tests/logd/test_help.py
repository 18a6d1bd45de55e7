"""Help of every command: options, examples and exit codes, worded the same everywhere."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from logd import errors
from logd.cli import SECTIONS, main
from logd.commands._command import Command
from logd.errors import EXITS
from tests.support.instance import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = sorted(name for part in SECTIONS.values() for name in part)


def help_of(name: str) -> str:
    command = main.load_command(name)
    return command.get_help(click.Context(command, info_name=f"logd {name}"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_says_what_when_an_example_and_exit_codes(name: str) -> None:
    command = main.load_command(name)
    assert command.help is not None
    what, *when = command.help.split("\n\n")
    assert what.count("\n") == 0 and when
    assert isinstance(command, Command)
    assert command.examples and command.exits
    text = help_of(name)
    for line, purpose in command.examples:
        assert f"  # {purpose}\n  {line}\n" in text
    for code in command.exits:
        assert re.search(rf"^  {code} +{re.escape(EXITS[code].meaning[:20])}", text, re.MULTILINE)
    assert all(len(line) <= 80 for line in text.splitlines()), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_help(name: str) -> None:
    for parameter in main.load_command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_name_only_options_that_there_are(name: str) -> None:
    command = main.load_command(name)
    assert isinstance(command, Command)
    for line, _purpose in command.examples:
        words = shlex.split(re.split(r" [|>&]", line)[0])
        if words[0] == "systemctl":
            continue  # what goes before or after
        assert words[:2] == ["logd", name]
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        assert {word for word in words[2:] if word.startswith("-")} - known == set()


def test_commands_are_listed_by_what_one_does_with_them() -> None:
    text = main.get_help(click.Context(main, info_name="logd"))
    listed = [name for part in SECTIONS.values() for name in part]
    assert sorted(listed) == COMMANDS
    positions = [text.index(f"\n  {name} ") for name in listed]
    assert positions == sorted(positions)
    for title in SECTIONS:
        assert f"\n{title}:\n" in text


def test_the_readme_lists_every_command_in_the_same_order() -> None:
    section = README.split("## Commands")[1].split("```")[1]
    named = re.findall(r"^logd (\w+)", section, re.MULTILINE)
    assert named == [name for part in SECTIONS.values() for name in part]


def test_the_exit_codes_of_the_administrators_page_are_those_of_the_code() -> None:
    page = (ROOT / "systemd/README.md").read_text()
    section = page.split("## Exit codes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(str(code), end.meaning, end.restart) for code, end in EXITS.items()]


def test_every_exit_code_there_is_has_its_meaning() -> None:
    named = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    kinds = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.LogdError)
    }
    assert kinds <= named == set(EXITS)
    assert list(EXITS) == sorted(EXITS)
