"""Results of cases: passed, failed or not tried, as text and as JSON. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Headings of shared/PROTOCOL.md that several modules name.
FORKS = "Forks"
FOLLOWING = "Following"

# What may differ in the same message of two cases: numbers, ids, and the command to a driver.
_VARYING = re.compile(r"`[^`]*`|\b[0-9a-f]*\d[0-9a-f]*\b")

# Notes on faults of a client that no case detects.
NEVER_TRIED = (
    'No case tests the order of stores and the full fence (PROTOCOL.md, "Writing an event" and '
    "\"Watching\"), nor a socket of the application's under the number of the client's."
)

PASSED = "passed"
FAILED = "failed"
NOT_TRIED = "not tried"


class Failed(Exception):
    """A fault of the client; `page` is the heading of shared/PROTOCOL.md that is violated.

    Without a `page` it is the heading of the case.
    """

    def __init__(self, message: str, page: str | None = None) -> None:
        super().__init__(message)
        self.page = page


class NotTried(Exception):
    """The driver does not support what the case needs."""


@dataclass(frozen=True)
class Result:
    """The result of one case. `message` says what failed, or why it was not tried."""

    case: str
    verdict: str
    page: str
    seconds: float
    message: str = ""
    notes: list[str] = field(default_factory=list)


def expect(condition: object, message: str, page: str | None = None) -> None:
    """Raises Failed with the message unless the condition holds."""
    if not condition:
        raise Failed(message, page)


def lines(result: Result, width: int) -> list[str]:
    """Returns the line of one case, and below it the message and the notes."""
    mark = {PASSED: "ok", FAILED: "FAIL", NOT_TRIED: "-"}[result.verdict]
    shown = [f"{mark:<5} {result.case:<{width}} {result.seconds:6.2f} s"]
    if result.verdict == FAILED:
        shown.append(f"      {result.message}")
        shown.append(f'      PROTOCOL.md, "{result.page}"')
    elif result.verdict == NOT_TRIED:
        shown[0] += f"  not tried: {result.message}"
    shown += [f"      note: {note}" for note in result.notes]
    return shown


def summary(results: Sequence[Result]) -> dict[str, int]:
    """Returns how many cases passed, failed and were not tried."""
    counted = Counter(result.verdict for result in results)
    return {
        "passed": counted[PASSED],
        "failed": counted[FAILED],
        "not_tried": counted[NOT_TRIED],
    }


def repeated(results: Sequence[Result]) -> list[str]:
    """Returns a line for each message that several cases failed with, naming the cases.

    Numbers and names of files differ from case to case, and are left out of the comparison.
    """
    alike: dict[str, list[Result]] = {}
    for result in results:
        if result.verdict == FAILED:
            alike.setdefault(_VARYING.sub("#", result.message), []).append(result)
    return [
        f"{len(found)} cases failed alike ({', '.join(result.case for result in found)}): "
        f"{found[0].message}"
        for found in alike.values()
        if len(found) > 1
    ]


def summary_line(results: Sequence[Result]) -> str:
    """Returns the last line of a run."""
    counts = summary(results)
    seconds = sum(result.seconds for result in results)
    shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    return f"{len(results)} cases in {seconds:.1f} s: {shown}"


def conforms(results: Sequence[Result]) -> bool:
    """Returns whether at least one case passed and none failed."""
    counts = summary(results)
    return counts["failed"] == 0 and counts["passed"] > 0


def as_json(driver: Sequence[str], results: Sequence[Result]) -> dict[str, Any]:
    """Returns the results for programs."""
    return {
        "driver": list(driver),
        "conforms": conforms(results),
        **summary(results),
        "cases": [asdict(result) for result in results],
    }
