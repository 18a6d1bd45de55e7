"""Who imports whom inside `webapp`, and what an installation holds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

import webapp.classroom
from tests.support import ROOT
from tests.test_architecture import dotted, imports, modules

# Each may import itself and these.
MAY_IMPORT = {
    "activity": set(),
    "classroom": {"activity"},
    "demo": {"classroom"},
    "cli": {"classroom", "demo"},
    "run": {"demo"},
}
HEAVY = ("flask_wtf", "sqlcipher3", "pygal", "webapp.classroom", "webapp.demo", "webapp.cli")


def loaded(statement: str, names: tuple[str, ...]) -> set[str]:
    """Which of `names` a fresh interpreter has loaded after the statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) & set(names)


def test_the_extension_loads_neither_the_site_nor_what_the_site_needs() -> None:
    assert loaded("from webapp.activity import ActivityLog", HEAVY) == set()


def test_a_server_loads_no_demo() -> None:
    names = ("webapp.demo", "webapp.cli", "webapp.classroom")
    assert loaded("import webapp.classroom.wsgi", names) == {"webapp.classroom"}


def test_the_package_has_create_app_and_says_what_it_lacks() -> None:
    assert loaded("from webapp import create_app", HEAVY) == set(HEAVY)
    with pytest.raises(AttributeError, match="'webapp' has no attribute 'app'"):
        webapp.app  # noqa: B018


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_of_webapp_import_only_what_stands_below_them(part: str) -> None:
    for path in modules("webapp"):
        if [*dotted(path).split("."), ""][1] == part:
            ours = {name.split(".")[1] for name in imports(path) if name.startswith("webapp.")}
            assert ours <= MAY_IMPORT[part] | {part}, path


def test_every_package_of_webapp_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = set(project["tool"]["setuptools"]["packages"])
    there = {dotted(path) for path in modules("webapp") if path.name == "__init__.py"}
    assert there == {name for name in installed if name.split(".")[0] == "webapp"}


def test_the_map_of_the_classroom_names_every_module_and_none_uses_a_row_above_its_own() -> None:
    text = webapp.classroom.__doc__ or ""
    rows = [line for line in text.splitlines() if line.startswith("    ")]
    row_of = {
        name: at
        for at, row in enumerate(rows)
        for name in re.split(r" {2,}", row.strip())[1].split(", ")
    }
    site = ROOT / "webapp" / "classroom"
    assert set(row_of) == {path.stem for path in site.glob("*.py")} - {"__init__"}
    for name, row in row_of.items():
        for imported in imports(site / f"{name}.py"):
            if imported.startswith("webapp.classroom."):
                assert row_of[imported.split(".")[2]] >= row, (name, imported)
