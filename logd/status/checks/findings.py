"""Findings of checks, each ok, a warning or a failure with its remedy (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"
NAME_CHARS = 12


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was found, and what to do ("" for nothing)."""

    name: str
    verdict: str
    says: str
    do: str = ""


def worst(findings: Sequence[Finding]) -> str:
    """Returns the worst verdict of all findings."""
    verdicts = {finding.verdict for finding in findings}
    return FAIL if FAIL in verdicts else WARN if WARN in verdicts else OK


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yields a line for each finding, the remedy below it, and the totals."""
    for finding in findings:
        yield f"{finding.verdict:<5} {finding.name:<{NAME_CHARS}} {finding.says}"
        if finding.do:
            yield f"{'':<6}{'':<{NAME_CHARS}} -> {finding.do}"
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in (OK, WARN, FAIL)}
    yield ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
