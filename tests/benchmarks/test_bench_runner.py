"""`python -m benchmarks`: all parts in order, what fails a run and what does not."""

from __future__ import annotations

import importlib
import json
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import __main__ as runner
from benchmarks.harness import baseline, plot, targets
from benchmarks.harness.part import Advance, Part, Plot, Run
from benchmarks.harness.processes import Failed
from benchmarks.harness.targets import TARGETS, Target

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
LINES = plot.horizontal_bars("lines", ["one"], [plot.Series("s", [plot.Bar(1.0, "1")])])


def part(name: str, **changes: Any) -> Part:
    body = {
        "name": name,
        "text": f"the table of {name}",
        "rows": [{"attempted": 1}],
        "figures": {},
        "plots": [Plot(f"{name}-lines", LINES)],
        **changes,
    }
    return Part(**body)


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """Replace the six parts; a test may replace a `run` again."""
    runs: dict[str, Run] = {}

    def stub(name: str) -> None:
        def run(place: Path, long: bool, advance: Advance) -> Part:
            advance(name, 1)
            return part(name)

        runs[name] = run
        module = SimpleNamespace(
            steps=lambda _long: 1,
            run=lambda place, long, advance: runs[name](place, long, advance),
        )
        monkeypatch.setitem(sys.modules, runner.MODULES[name], module)

    for name in runner.PARTS:
        stub(name)
    monkeypatch.setattr(baseline, "PATH", tmp_path / "baseline.json")
    return runs


@pytest.mark.parametrize("name", runner.PARTS)
def test_every_part_has_a_module_that_measures_it(name: str) -> None:
    module = importlib.import_module(runner.MODULES[name])
    assert module.steps(False) > 0
    assert callable(module.run)


def gives(stubs: dict[str, Run], name: str, **changes: Any) -> None:
    stubs[name] = lambda _place, _long, _tell: part(name, **changes)


def bench(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(runner.main, ["--results", str(tmp_path / "results"), *arguments])


def test_all_parts_run_in_their_order_and_each_is_written(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    result = bench(tmp_path)
    assert result.exit_code == 0, result.output
    names = re.findall(r"the table of (\w+)", result.stdout)
    assert names == ["request", "cause", "client", "ingest", "query", "recovery"]
    written = {path.name for path in (tmp_path / "results").iterdir()}
    assert {f"{name}.json" for name in names} < written
    assert {"targets.json", "index.html", "request-lines.svg"} < written
    assert "every sum is right" in result.stdout
    for name in ("2 of 6  cause", "6 of 6  recovery"):
        assert name in result.stderr


def test_selected_parts_run_alone_with_their_targets(tmp_path: Path, stubs: dict[str, Run]) -> None:
    result = bench(tmp_path, "--only", "ingest", "--only", "query")
    assert re.findall(r"the table of (\w+)", result.stdout) == ["ingest", "query"]
    assert "emit" not in result.stdout
    assert {one["figure"].partition(".")[0] for one in written(tmp_path)} == {"ingest", "query"}


def written(tmp_path: Path) -> list[dict[str, Any]]:
    body = json.loads((tmp_path / "results/targets.json").read_text())
    outcomes: list[dict[str, Any]] = body["targets"]
    return outcomes


def test_each_part_gets_its_own_directory_and_the_long_option(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    seen: list[tuple[Path, bool]] = []

    def run(place: Path, long: bool, advance: Advance) -> Part:
        assert list(place.iterdir()) == []
        seen.append((place, long))
        return part("query")

    stubs["query"] = stubs["recovery"] = run
    assert bench(tmp_path, "--long").exit_code == 0
    assert [long for _, long in seen] == [True, True]
    assert seen[0][0] != seen[1][0]
    assert not seen[0][0].exists()


def test_a_missed_target_fails_nothing(tmp_path: Path, stubs: dict[str, Run]) -> None:
    gives(stubs, "ingest", figures={"ingest.over_bulk_insert": 0.5, "ingest.resident_mib": 90.0})
    result = bench(tmp_path)
    assert result.exit_code == 0
    assert re.search(r"bare bulk insert +>= 0.80 +0.50 +missed", result.stdout)
    assert re.search(r"at full ingest +<= 128 MiB +90 MiB +met", result.stdout)
    assert "1 of 2 measured targets met" in result.stdout


def test_a_target_that_was_not_measured_names_the_command_that_measures_it(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    result = bench(tmp_path)
    assert re.search(r"ready after kill -9 .* not measured: make bench-long", result.stdout)
    assert re.search(r"at full ingest .* not measured: make bench-ingest", result.stdout)
    offered = re.findall(r"^([a-z-]+):.*##", MAKEFILE.read_text(), re.MULTILINE)
    assert {target.command.removeprefix("make ") for target in TARGETS} <= set(offered)


def test_a_target_about_ten_million_events_is_not_decided_by_fewer(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    gives(stubs, "recovery", figures={"recovery.ready_s": 0.2})
    result = bench(tmp_path, "--only", "recovery")
    assert re.search(r"0.20 s +fewer events: make bench-long", result.stdout)
    assert "0 of 0 measured targets met; 1 not measured here" in result.stdout
    assert not (tmp_path / "results/targets.svg").exists()
    assert re.search(r"0.20 s +met", bench(tmp_path, "--only", "recovery", "--long").stdout)


def test_a_wrong_sum_fails_the_run(tmp_path: Path, stubs: dict[str, Run]) -> None:
    gives(stubs, "client", problems=["accepted 4 != stored 3"])
    result = bench(tmp_path)
    assert result.exit_code == 1
    assert "wrong sum: client: accepted 4 != stored 3" in result.stderr
    assert "the table of recovery" in result.stdout


@pytest.mark.parametrize("error", [Failed("site: exit code 3\nthe cause"), OSError("the cause")])
def test_a_failed_part_is_one_line_and_the_others_run(
    tmp_path: Path, stubs: dict[str, Run], error: Exception
) -> None:
    def run(place: Path, long: bool, advance: Advance) -> Part:
        raise error

    stubs["cause"] = run
    result = bench(tmp_path)
    assert result.exit_code == 1
    assert re.search(r"^failed: cause: .*the cause$", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr
    assert "the table of recovery" in result.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_leaves_no_files(
    tmp_path: Path, stubs: dict[str, Run], number: signal.Signals, code: int
) -> None:
    seen: list[Path] = []

    def run(place: Path, long: bool, advance: Advance) -> Part:
        seen.append(place)
        signal.raise_signal(number)
        return part("request")

    stubs["request"] = run
    result = bench(tmp_path)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert not seen[0].exists()
    assert "the table" not in result.stdout


def test_what_a_part_could_not_measure_is_reported_with_its_package(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    gives(stubs, "client", missing=["fluent-logger: `pip install fluent-logger` brings it"])
    result = bench(tmp_path)
    assert "not measured: fluent-logger: `pip install fluent-logger` brings it" in result.stdout


def test_the_page_holds_every_picture_and_loads_nothing(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    gives(stubs, "client", figures={"client.emit_over_raw_send": 2.0}, text="<b> & co")
    bench(tmp_path)
    page = (tmp_path / "results/index.html").read_text()
    assert page.count("<img") == 7  # six parts, and the targets
    assert "&lt;b&gt; &amp; co" in page
    assert set(re.findall(r'src="([a-z]+:)', page)) == {"data:"}
    for text in (page, LINES.decode(), (tmp_path / "results/targets.svg").read_text()):
        assert "<script" not in text
        assert not re.search(r'(href|src)="(?!data:|#)', text)


def test_the_results_file_holds_the_machine_and_the_tables(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    gives(stubs, "client", figures={"client.emit_over_raw_send": 2.0})
    bench(tmp_path, "--only", "client", "--only", "query")
    text = (tmp_path / "results/RESULTS.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Targets", "client", "query"]
    assert "the table of client" in text
    assert re.search(r"client.emit_over_raw_send +2$", text, re.MULTILINE)
    assert re.search(r"^commit ", text, re.MULTILINE)


def test_a_saved_baseline_is_compared_and_other_parts_stay(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    assert "No baseline" in bench(tmp_path).stdout
    gives(stubs, "client", figures={"client.emit_over_raw_send": 2.0, "client.emit_p50_ns": 3000.0})
    gives(stubs, "ingest", figures={"ingest.events_s": 90_000.0})
    bench(tmp_path, "--save-baseline")
    gives(stubs, "client", figures={"client.emit_over_raw_send": 3.0, "client.emit_p50_ns": 1500.0})
    result = bench(tmp_path, "--only", "client", "--save-baseline")
    assert re.search(r"client.emit_over_raw_send +2 +3 +1.50", result.stdout)
    assert re.search(r"client.emit_p50_ns +3,000 +1,500 +0.50", result.stdout)
    assert "looks like the baseline's machine" in " ".join(result.stdout.split())
    assert set(baseline.load(tmp_path / "baseline.json")) == set(runner.PARTS)
    assert baseline.load(baseline.PATH)["client"]["figures"]["client.emit_over_raw_send"] == 3.0
    assert baseline.load(baseline.PATH)["ingest"]["figures"]["ingest.events_s"] == 90_000.0


def test_a_long_run_is_compared_with_a_long_run_only(tmp_path: Path, stubs: dict[str, Run]) -> None:
    gives(stubs, "query", figures={"query.open_ms": 1.0})
    bench(tmp_path, "--only", "query", "--save-baseline")
    gives(stubs, "query", figures={"query.open_ms": 4.0})
    long = ("--only", "query", "--long")
    assert "No baseline of a long run" in bench(tmp_path, *long, "--save-baseline").stdout
    assert re.search(r"query.open_ms +4 +4 +1.00", bench(tmp_path, *long).stdout)
    assert re.search(r"query.open_ms +1 +4 +4.00", bench(tmp_path, "--only", "query").stdout)


def test_a_part_without_a_baseline_is_reported(tmp_path: Path, stubs: dict[str, Run]) -> None:
    bench(tmp_path, "--only", "query", "--save-baseline")
    result = bench(tmp_path, "--only", "query", "--only", "client")
    assert re.search(r"^no baseline of client$", result.stdout, re.MULTILINE)


def test_an_unwritable_results_directory_fails_before_anything_is_measured(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    (tmp_path / "results").write_text("a file")
    result = bench(tmp_path)
    assert result.exit_code == 1
    assert "the table" not in result.stdout
    assert re.fullmatch(r"Error: .*results'?\n", result.stderr)


def test_absolute_figures_of_another_machine_are_reported_as_not_comparable(
    tmp_path: Path, stubs: dict[str, Run]
) -> None:
    gives(stubs, "client", figures={"client.emit_p50_ns": 3000.0})
    bench(tmp_path, "--only", "client", "--save-baseline")
    body = json.loads(baseline.PATH.read_text())
    body["client"]["machine"]["cpu"] = "abacus"
    baseline.PATH.write_text(json.dumps(body))
    said = " ".join(bench(tmp_path, "--only", "client").stdout.split())
    assert "differs from the baseline's (cpu): do not compare figures with a unit" in said


@pytest.mark.parametrize("text", ["{", "[1]", '{"client": {}}', '{"client": {"figures": 1}}'])
def test_a_damaged_baseline_is_one_line(tmp_path: Path, stubs: dict[str, Run], text: str) -> None:
    baseline.PATH.write_text(text)
    result = bench(tmp_path, "--only", "client")
    assert result.exit_code == 0
    assert "Not compared: baseline.json" in result.stdout


@pytest.mark.parametrize(
    ("sign", "met", "missed"), [("<=", 1.0, 1.01), ("<", 0.99, 1.0), (">=", 1.0, 0.99)]
)
def test_a_limit_is_met_on_one_side(sign: str, met: float, missed: float) -> None:
    target = Target("p.f", "what", sign, 1.0)
    assert (target.met(met), target.met(missed)) == (True, False)
    assert target.used(met) <= 1.0 <= target.used(missed)


def test_a_ratio_is_recognised_by_its_name() -> None:
    ratios = {name for name in _figures() if baseline.is_ratio(name)}
    assert ratios == {name for name in _figures() if "over_" in name}
    assert not baseline.is_ratio("recovery.ready_s_at_1e5")
    assert baseline.is_ratio("query.ingest_full_over_empty")


def _figures() -> list[str]:
    return [target.figure for target in targets.TARGETS]
