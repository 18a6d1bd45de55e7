"""Runs the selected cases, each in surroundings of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from logd.conformance.cases import CASES, Case
from logd.conformance.scene import scene
from logd.conformance.verdicts import FAILED, NOT_TRIED, PASSED, Failed, NotTried, Result

Progress = Callable[[str], None]


def run(
    command: Sequence[str], names: Sequence[str], rounds: int, progress: Progress
) -> Iterator[Result]:
    """Yields the result of each selected case as it ends; by default all cases run."""
    for case in CASES:
        if not names or case.name in names:
            yield _run_case(case, command, rounds, progress)


def _run_case(case: Case, command: Sequence[str], rounds: int, progress: Progress) -> Result:
    begun_s = time.monotonic()
    notes: list[str] = []
    verdict, message, page = PASSED, "", case.page
    try:
        with scene(command, rounds, lambda step: progress(f"{case.name}: {step}")) as made:
            notes = made.notes
            case.run(made)
    except Failed as failure:
        verdict, message, page = FAILED, str(failure), failure.page or case.page
    except OSError as error:  # for example, a file of the client cannot be opened
        verdict, message = FAILED, f"the case cannot continue: {error}"
    except NotTried as reason:
        verdict, message = NOT_TRIED, str(reason)
    return Result(case.name, verdict, page, time.monotonic() - begun_s, message, notes)
