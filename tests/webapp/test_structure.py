"""What importing a package loads, and which packages are installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import webapp.classroom
from tests.project.test_architecture import dotted, modules
from tests.support.instance import ROOT

HEAVY = ("flask_wtf", "sqlcipher3", "pygal", "webapp.classroom", "webapp.demo", "webapp.cli")


def loaded(statement: str, names: tuple[str, ...]) -> set[str]:
    """Returns which of `names` a new interpreter has loaded after the statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) & set(names)


def test_the_extension_loads_neither_the_site_nor_what_the_site_needs() -> None:
    assert loaded("from flask_logd import ActivityLog", HEAVY) == set()


def test_a_server_loads_no_demo() -> None:
    names = ("webapp.demo", "webapp.cli", "webapp.classroom")
    assert loaded("import webapp.classroom.wsgi", names) == {"webapp.classroom"}


def test_the_package_has_create_app_and_no_other_attribute() -> None:
    assert loaded("from webapp import create_app", HEAVY) == set(HEAVY)
    with pytest.raises(AttributeError, match="'webapp' has no attribute 'app'"):
        webapp.app  # noqa: B018 - looking at it is the point


def test_every_package_of_webapp_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = set(project["tool"]["setuptools"]["packages"])
    there = {dotted(path) for path in modules("webapp") if path.name == "__init__.py"}
    assert there == {name for name in installed if name.split(".")[0] == "webapp"}
