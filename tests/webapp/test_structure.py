"""Who imports whom inside `webapp`, and what an installation holds."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

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
        import_of_nothing()


def import_of_nothing() -> object:
    import webapp

    return webapp.app


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
