"""The command line as people and scripts use it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from logd import render
from logd.render import FORMATS, csv_lines, event_line, printable, to_json
from tests.support.instance import ROOT, Instance, Process, check_sums

EMIT = """
import sys
import logd_client.payload
from logd_client import Client
c = Client(sys.argv[1])
for n in range(5):
    assert c.emit("page_view", user=str(n % 2), props={"n": n}, ts_ns=(1_700_000_000 + n) * 10**9)
logd_client.payload.check_user = str  # an older client's: it took any character
assert c.emit("login", user="evil\\x1b[2J", props={"text": "a\\nb", "f": float("inf")})
assert c.flush(20)
"""


@pytest.fixture
def stored(instance: Instance) -> Instance:
    instance.start()
    subprocess.run([sys.executable, "-c", EMIT, instance.socket], cwd=ROOT, check=True)
    check_sums(instance.settle(), attempted=6, accepted=6)
    return instance


def test_query_filters_by_type_user_and_time(stored: Instance) -> None:
    assert [e["props"]["n"] for e in stored.events("--type", "page_view")] == [0, 1, 2, 3, 4]
    assert [e["props"]["n"] for e in stored.events("--user", "1")] == [1, 3]
    since, until_ = "2023-11-14T22:13:22", "2023-11-14T22:13:24"
    assert [e["props"]["n"] for e in stored.events("--since", since, "--until", until_)] == [2, 3]
    newest = stored.events("--limit", "2")
    assert [e["id"] for e in newest] == [5, 6]
    assert stored.events("--type", "nonsense") == []


def test_a_json_line_has_every_field(stored: Instance) -> None:
    (event,) = stored.events("--type", "login")
    assert set(event) == {
        "id", "ts_ns", "stored_ns", "type", "user", "producer", "sequence", "props",
        "time", "stored_time",
    }  # fmt: skip
    assert (event["id"], event["sequence"]) == (6, 6)
    assert event["props"] == {"text": "a\nb", "f": "inf"}


def test_csv_reads_back_to_the_same_rows(stored: Instance) -> None:
    rows = list(csv.DictReader(io.StringIO(stored.cli("query", "--format", "csv"))))
    assert [json.loads(row["props"]) for row in rows] == [e["props"] for e in stored.events()]
    assert [row["user"] for row in rows] == [e["user"] for e in stored.events()]


def test_what_a_stranger_wrote_reaches_no_terminal_as_control_characters(
    stored: Instance,
) -> None:
    for output in (stored.cli("query"), stored.cli("tail")):
        assert "\x1b" not in output
        assert r"evil\x1b[2J" in output
        assert len(output.splitlines()) == len(stored.events()) + output.startswith("      id")


def test_tail_shows_the_newest_and_follows(stored: Instance) -> None:
    assert [row.split()[0] for row in stored.cli("tail", "-n", "2").splitlines()] == ["5", "6"]
    tail = Process("-u", "-m", "logd", "tail", "-f", "-n", "1", "--config", str(stored.config.path))
    try:
        assert tail.popen.stdout is not None
        assert tail.popen.stdout.readline().split()[0] == "6"
        subprocess.run([sys.executable, "-c", EMIT, stored.socket], cwd=ROOT, check=True)
        got = [tail.popen.stdout.readline().split()[0] for _ in range(6)]
        assert got == ["7", "8", "9", "10", "11", "12"]
    finally:
        tail.close()


def test_a_reader_that_has_seen_enough_is_no_error(stored: Instance) -> None:
    command = [sys.executable, "-m", "logd", "query", "--config", str(stored.config.path)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(write)
    assert done.stderr == b""


def test_status_for_people_says_the_same_as_for_programs(stored: Instance) -> None:
    text, state = stored.cli("status"), stored.status()
    assert f"{state['stored']} events" in text
    assert f"running, pid {state['running_pid']}" in text
    stored.stop()
    assert "not running" in stored.cli("status")
    assert stored.status()["stored"] == 6


def test_status_has_every_promised_figure(instance: Instance) -> None:
    """They are there before the first start too."""
    promised = {
        "stored", "pending", "lost", "quarantined", "duplicates_ignored", "commits", "producers",
        "schema",
    }  # fmt: skip
    state = instance.status()
    assert promised <= set(state)
    assert all(state[name] == 0 for name in promised)


@pytest.mark.parametrize("text", ["tomorrow", "12x", "", "2026-13-01"])
def test_an_invalid_time_is_refused_with_examples(instance: Instance, text: str) -> None:
    assert "7d" in instance.cli("query", "--since", text, code=2)


@pytest.mark.parametrize("command", ["init", "run", "status", "query", "tail", "verify"])
def test_every_command_has_help(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "logd", command, "--help"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "Usage:" in done.stdout and len(done.stdout.splitlines()) > 4


def test_values_that_json_lacks_are_still_json() -> None:
    value = {"b": b"\x00", "n": float("nan"), "l": [float("-inf"), {"k": 1}]}
    assert json.loads(to_json(value)) == {"b": "AA==", "n": "nan", "l": ["-inf", {"k": 1}]}


def test_a_line_is_one_line() -> None:
    row = {"id": 1, "ts_ns": 2**62, "type": "x", "user": None, "props": {"a\n": "b\r\u2028"}}
    assert len(event_line(row).splitlines()) == 1
    assert printable("\x9b\x07é") == r"\x9b\x07é"


def test_a_time_that_does_not_fit_that_of_storing_is_marked_and_shown_with_it() -> None:
    stored_ns = 1_800_000_000 * 10**9
    forged = "(stored 2027-01-01) !"
    row = {"id": 1, "stored_ns": stored_ns, "type": "x", "user": "7", "props": {"a": forged}}
    claimed = {
        stored_ns: False, stored_ns - 6 * 86_400 * 10**9: False,
        stored_ns - 8 * 86_400 * 10**9: True, stored_ns + 2 * 86_400 * 10**9: True,
        0: True, 2**63 - 1: True,
    }  # fmt: skip
    lines = {ts_ns: event_line({**row, "ts_ns": ts_ns}) for ts_ns in claimed}
    for ts_ns, marked in claimed.items():
        assert ("Z! x " in lines[ts_ns]) == marked
        assert ("7             [stored 2027-01-15 08:00:00.000Z] a=" in lines[ts_ns]) == marked
    assert len({text.index(" x ") for text in lines.values()}) == 1, "columns stay columns"


HOSTILE = 'a\nb\rc\r\nd,"e";\x00\x1b[2J\x7f\x9b\x85\u2028\u2029\u202e\u2066é\U0001f600'


def event_row(user: str | None, props: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": 1, "ts_ns": 2**62, "stored_ns": 2**63 - 1, "type": "x", "user": user,
        "producer": "0-1", "sequence": 3, "props": props,
    }  # fmt: skip


def test_csv_keeps_hostile_text_of_a_user_as_it_is() -> None:
    text = "\n".join(csv_lines([event_row(HOSTILE, {"t": HOSTILE}), event_row(None, {})])) + "\n"
    first, second = csv.DictReader(io.StringIO(text, newline=""))
    assert (first["user"], second["user"]) == (HOSTILE, "")
    assert json.loads(first["props"]) == {"t": HOSTILE}


@pytest.mark.parametrize("form", list(FORMATS))
def test_no_form_writes_control_characters_to_a_terminal(form: str) -> None:
    terminal = SimpleNamespace(isatty=lambda: True)
    rows = [event_row(HOSTILE, {HOSTILE: HOSTILE})]
    assert all(
        char.isprintable() for text in render.line_format(form, terminal)(rows) for char in text
    )
    file = SimpleNamespace(isatty=lambda: False)
    assert list(render.line_format(form, file)(rows)) == list(FORMATS[form](rows))


def test_a_json_line_is_one_line_for_every_reader_and_commands_no_terminal() -> None:
    text = to_json(event_row(HOSTILE, {HOSTILE: [HOSTILE, 2**64 - 1, -(2**63), 0.1, b"\x9b"]}))
    assert len(text.splitlines()) == 1
    assert all(char.isprintable() for char in text)
    assert json.loads(text) == event_row(
        HOSTILE, {HOSTILE: [HOSTILE, 2**64 - 1, -(2**63), 0.1, "mw=="]}
    )
