"""The committed figures, and how the figures of a run compare with them.

The baseline stores each part's figures with their machine and commit. Long runs have entries of
their own, because the same figure is about more events there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import table
from benchmarks.harness.machine import Machine
from benchmarks.harness.part import Part

PATH = Path(__file__).parents[1] / "baseline.json"
_UNITS = ("_ns", "_us", "_ms", "_s", "_bytes", "_mib")
# The fields that are equal for the same machine.
_SAME = ("cores", "cpu", "kernel", "file_system", "python", "sqlcipher")

Baseline = dict[str, dict[str, Any]]  # the results by part; a long run's key ends in "-long"


class Unreadable(Exception):
    """The baseline file cannot be read; the text says why."""


def load(path: Path) -> Baseline:
    """Return the baseline by part; empty if there is no file. Raises Unreadable."""
    try:
        body = json.loads(path.read_text())
        for name, entry in body.items():
            if not (isinstance(entry["figures"], dict) and isinstance(entry["machine"], dict)):
                raise Unreadable(f"{path.name}: {name}: figures or machine missing")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path.name}: {error!r}") from error
    baseline: Baseline = body
    return baseline


def save(path: Path, parts: Sequence[Part], here: Machine, *, long: bool) -> None:
    """Write these parts' figures into the baseline; other parts stay. Raises Unreadable."""
    baseline = load(path)
    for part in parts:
        baseline[_key(part, long)] = {"machine": asdict(here), "figures": part.figures}
    path.write_text(json.dumps(baseline, indent=1, sort_keys=True) + "\n")


def _key(part: Part, long: bool) -> str:
    return f"{part.name}-long" if long else part.name


def is_ratio(figure: str) -> bool:
    """Whether a figure is a ratio of two things measured in the same run, judged by its name."""
    name = figure.partition(".")[2].partition("_at_")[0]
    return "over_" in name or not name.endswith(_UNITS)


def compare(baseline: Baseline, parts: Sequence[Part], here: Machine, *, long: bool) -> str:
    """Return a table of the figures beside the baseline's, ratios first, with both machines."""
    entries = {part.name: baseline.get(_key(part, long)) for part in parts}
    known = {name: entry for name, entry in entries.items() if entry is not None}
    if not known:
        return f"No baseline of {'a long run of ' if long else ''}these parts."
    figures = {
        name: value for part in parts if part.name in known for name, value in part.figures.items()
    }
    before = {name: value for entry in known.values() for name, value in entry["figures"].items()}
    rows = [
        [name, _shown(before.get(name)), _shown(figures.get(name)), _ratio(before, figures, name)]
        for name in sorted({*figures, *before}, key=lambda name: (not is_ratio(name), name))
    ]
    differs = sorted({what for entry in known.values() for what in _differs(entry, here)})
    without = [name for name, entry in entries.items() if entry is None]
    return "\n".join(
        [
            *_origins(known),
            *([f"no baseline of {', '.join(without)}"] if without else []),
            f"now: commit {here.commit}, {here.started}, {_machine(asdict(here))}",
            "",
            table.render(("figure", "baseline", "now", "now / baseline"), rows),
            "",
            table.paragraph(_comparable(differs)),
        ]
    )


def _comparable(differs: Sequence[str]) -> str:
    ratios = "Figures without a unit are ratios within one run and compare between machines."
    if differs:
        return (
            f"{ratios} This machine differs from the baseline's ({', '.join(differs)}): do not"
            " compare figures with a unit."
        )
    return (
        f"{ratios} This looks like the baseline's machine: figures with a unit compare if it is as"
        " idle as it was then."
    )


def _origins(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each run that baseline figures come from, with its parts."""
    parts: dict[str, list[str]] = {}
    for name, entry in entries.items():
        machine = entry["machine"]
        run = f"commit {machine.get('commit')}, {machine.get('started')}, {_machine(machine)}"
        parts.setdefault(run, []).append(name)
    return [f"baseline of {', '.join(names)}: {run}" for run, names in parts.items()]


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine.get('cores')} cores, {machine.get('cpu')}, Linux {machine.get('kernel')}"


def _differs(entry: Mapping[str, Any], here: Machine) -> list[str]:
    now = asdict(here)
    return [what for what in _SAME if entry["machine"].get(what) != now[what]]


def _shown(value: float | None) -> str:
    return "-" if value is None else table.digits(value)


def _ratio(before: Mapping[str, float], now: Mapping[str, float], name: str) -> str:
    if name not in now or not before.get(name):
        return "-"
    return f"{now[name] / before[name]:.2f}"
