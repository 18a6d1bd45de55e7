"""Compares the list of mutants that no test kills, each with its reason, with a run of mutmut.

A line of `survivors.txt` names a mutant by module, function and changed line, since mutmut's own
numbers move with every edit:

    # Why no test needs to tell these from the original.
    logd.batch Batch.add_loss: self.bytes += 64 => self.bytes += 65

Comment lines are the reason for the mutants below them, up to the next empty line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# mutmut's results for killed mutants. A mutant that hangs is ended by its time limit.
KILLED = {"killed", "timeout", "segfault"}
# mutmut's result for mutants that `make lint` would refuse: no test runs on them.
REFUSED = "caught by type check"
_METHOD = "ǁ"


@dataclass(frozen=True, order=True)
class Mutant:
    """One change to one function."""

    function: str
    change: str

    def __str__(self) -> str:
        return f"{self.function}: {self.change}"


def function_of(key: str) -> str:
    """Parses mutmut's name of a mutant into module and function. Raises ValueError."""
    module, mark, rest = key.rpartition(".x")
    name, number_mark, _ = rest.rpartition("__mutmut_")
    if not mark or not number_mark or rest[:1] not in {_METHOD, "_"}:
        raise ValueError(f"{key!r} is not a name of a mutant")
    return f"{module} {name[1:].replace(_METHOD, '.')}"


def mutant_of(key: str, diff: str) -> Mutant:
    """Makes a Mutant of mutmut's name for it and its diff."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    old, new = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(function_of(key), f"{old} => {new}".strip())


def read(text: str) -> dict[Mutant, str]:
    """Reads the listed mutants and their reasons. Raises ValueError for one without a reason."""
    listed: dict[Mutant, str] = {}
    reason: list[str] = []
    in_mutants = False
    for line in text.splitlines():
        if not line.strip():
            reason, in_mutants = [], False
        elif line.startswith("#"):
            reason = [line[1:].strip()] if in_mutants else [*reason, line[1:].strip()]
            in_mutants = False
        else:
            function, colon, change = line.partition(": ")
            if not reason or not colon:
                raise ValueError(f"a mutant without a reason, or without its change: {line!r}")
            listed[Mutant(function, change.strip())] = " ".join(reason)
            in_mutants = True
    return listed


def problems(
    survived: Iterable[Mutant], listed: Mapping[Mutant, str], functions: Iterable[str]
) -> list[str]:
    """Returns the differences between a run and the list; `functions` are the mutated ones."""
    found = set(survived)
    modules = {function.partition(" ")[0] for function in functions}
    unknown = sorted(found - set(listed))
    killed = sorted(set(listed) - found)
    return [
        *(f"survived, and has no reason: {mutant}" for mutant in unknown),
        *(
            f"listed, and killed or gone: {mutant}"
            for mutant in killed
            if mutant.function.partition(" ")[0] in modules
        ),
    ]
