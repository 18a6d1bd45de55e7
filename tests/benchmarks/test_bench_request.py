"""`make bench`: the sums of every way of logging hold, and a row whose sum is off fails the run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask

from benchmarks import modes, request
from benchmarks.processes import Failed
from benchmarks.reading import reading
from benchmarks.request import WAYS, Measured, Way
from benchmarks.site import CALL_HEADER, FINISH, NAMES, PAGE, create_app
from benchmarks.sums import Sums

RIGHT = Sums(attempted=4, accepted=4, refused=0, stored=4)
OFF = Sums(attempted=4, accepted=4, refused=0, stored=3)


def measured(name: str = "logd", sums: Sums = RIGHT) -> Measured:
    notes = {"opening_share": 0.9}
    return Measured(name, name, [1000, 3000], [5000, 7000], sums, sums.problems(), notes)


def test_every_way_is_one_that_the_site_knows() -> None:
    assert tuple(way.name for way in WAYS) == NAMES


def test_a_run_of_few_requests_ends_with_every_sum_right(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        request.main, ["--requests", "20", "--rounds", "1", "--results", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "request.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [way.name for way in WAYS]
    for row in rows[1:]:
        assert row["attempted"] == row["accepted"] + row["refused"] >= row["requests"]
        assert row["stored"] == row["accepted"], row
        assert row["problems"] == []
    assert len(re.findall(r"\bright$", result.stdout, re.MULTILINE)) == len(WAYS)
    assert "SQLCipher" in result.stdout
    assert "commit" in result.stdout


def test_a_row_whose_sum_is_off_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(
        way: Way, _directory: Path, _n: int, _env: dict[str, str], tell: Callable[[int], None]
    ) -> Measured:
        tell(1)
        return measured(way.name, OFF if way.name == "logd" else RIGHT)

    monkeypatch.setattr(request, "measure", measure)
    result = CliRunner().invoke(request.main, ["--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "sum off: logd: accepted 4 != stored 3" in result.stderr
    assert "WRONG" in result.stdout


def test_a_process_that_fails_ends_the_run_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> Measured:
        raise Failed("site: exit code 3\nit said why")

    monkeypatch.setattr(request, "measure", measure)
    result = CliRunner().invoke(request.main, ["--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "it said why" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_reading_speaks_only_of_what_was_measured() -> None:
    rows = {way.name: measured(way.name) for way in WAYS}
    everything = reading(rows)
    assert "WAL + NORMAL" in everything
    assert "durable" in everything
    some = reading({"logd": measured()})
    assert "logd takes 1 us a call." in some
    assert "WAL" not in some


def test_the_site_tells_what_the_call_took_and_what_became_of_it(tmp_path: Path) -> None:
    client = create_app("queue-kept", str(tmp_path)).test_client()
    response = client.get(PAGE)
    assert int(response.headers[CALL_HEADER]) > 0
    assert client.post(FINISH).get_json() == {
        "attempted": 1,
        "accepted": 1,
        "refused": 0,
        "pending": 0,
        "lost": 0,
    }
    assert modes.count_earlier(tmp_path) == 1


def test_a_full_queue_refuses_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "QUEUE_EVENTS_MAX", 3)
    monkeypatch.setattr(modes.InProcessQueue, "_work", lambda _self: None)
    monkeypatch.setattr(modes, "QUEUE_STOP_TIMEOUT_S", 0.0)
    mode = modes.InProcessQueue(tmp_path, keep_connection=True)
    assert [mode.log() for _ in range(5)] == [True, True, True, False, False]
    counts = mode.finish()
    assert (counts["accepted"], counts["refused"], counts["pending"]) == (3, 2, 3)


def test_rounds_are_pooled_and_no_problem_is_forgotten() -> None:
    pooled = request.pool([measured(), measured(sums=OFF)])
    assert pooled.calls_ns == [1000, 3000, 1000, 3000]
    assert pooled.sums == Sums(attempted=8, accepted=8, refused=0, stored=7)
    assert pooled.problems == OFF.problems()
    assert pooled.notes == {"opening_share": 0.9}


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(ValueError, match="no way of logging"):
        create_app("telepathy", "nowhere")


def test_the_events_of_all_ways_are_the_same(tmp_path: Path) -> None:
    app = Flask("bare")
    socket = tmp_path / "nobody-listens.sock"
    with app.app_context():
        mode = modes.Logd(app, socket, durable=False)
        mode.log()
        counts = mode.finish()
    assert counts["attempted"] == 1
