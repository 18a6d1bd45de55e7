"""Marks tests that start processes; `make test-fast` and the mutation lane leave them out.

A test is marked `processes` if its folder is about real processes, or if its code, or a fixture or
function of its module that it uses, has the name of something that starts one. A test that is
missed only costs time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import cast

import pytest

FOLDERS = {"benchmarks", "browser", "faults", "systemd"}
STARTERS = {
    "Emitter", "Popen", "Process", "ProcessPoolExecutor", "emitters", "fork", "posix_spawn",
    "subprocess", "run_in_child",
}  # fmt: skip
STARTING_FIXTURES = {"run"}  # of `make run`
# Methods of an `Instance`, which by itself is only files.
STARTERS_OF_INSTANCES = {"cli", "kill", "settle", "spawn", "start"}


def names(code: CodeType) -> set[str]:
    """All names in a function's code, nested functions included."""
    inside = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*map(names, inside))


@functools.cache
def all_names(function: FunctionType, module: ModuleType) -> set[str]:
    """All names in a function's code, and in the functions of its module that it uses."""
    seen: set[str] = set()
    new = names(function.__code__)
    while new:
        seen |= new
        used = (getattr(module, name, None) for name in new)
        codes = [one.__code__ for one in used if isinstance(one, FunctionType)]
        new = set().union(*map(names, codes)) - seen
    return seen


def own_fixtures(item: pytest.Function) -> Iterator[FunctionType]:
    """The fixtures of a test that its module defines."""
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        for definition in definitions:
            if getattr(definition.func, "__module__", "") == item.module.__name__:
                yield cast(FunctionType, definition.func)


def starts_processes(item: pytest.Item) -> bool:
    """Whether a test starts processes, judged by its code."""
    if not isinstance(item, pytest.Function) or FOLDERS & set(item.path.parts):
        return True
    if not STARTING_FIXTURES.isdisjoint(item.fixturenames):
        return True
    starters = STARTERS | (STARTERS_OF_INSTANCES if "instance" in item.fixturenames else set())
    return any(
        not starters.isdisjoint(all_names(function, item.module))
        for function in (item.function, *own_fixtures(item))
    )


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Called by pytest."""
    for item in items:
        if starts_processes(item):
            item.add_marker(pytest.mark.processes)
