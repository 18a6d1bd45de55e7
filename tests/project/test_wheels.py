"""The two distributions: what their wheels contain, and that the client collides with no name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.project.test_architecture import files_of_the_tree
from tests.support.instance import ROOT

SHARED = ROOT / "shared"
CLIENT_PACKAGES = {"flask_logd", "logd_client", "logd_wire"}
BUILD_TIMEOUT_S = 120.0

# An application that has a `shared` and a `webapp` of its own.
FOREIGN_APPLICATION = """
import sys
sys.path[:0] = sys.argv[1:]
import shared, webapp
assert shared.OWNER == webapp.OWNER == "the application"
from flask import Flask
from flask_logd import ActivityLog
from logd_client import Client
import importlib.resources, logd_client
assert logd_client.__file__.startswith(sys.argv[2]), logd_client.__file__
assert list(importlib.resources.files("logd_wire.vectors").iterdir())
app = Flask("application")
app.config["ACTIVITY_LOG_ENABLED"] = False
activity = ActivityLog(app)
with app.app_context():
    print(activity.log("task_completed"), Client.__name__)
"""


def build_wheel(source: Path, target: Path) -> zipfile.ZipFile:
    """Builds a copy of `source`, since building writes into the source tree; needs no network."""
    copy = target / "source"
    for path in files_of_the_tree():
        if path.is_relative_to(source) and path.is_file():
            place = copy / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
         "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", target, copy],
        capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = target.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build_wheel(SHARED, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def daemon_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build_wheel(ROOT, tmp_path_factory.mktemp("daemon"))


def files(wheel: zipfile.ZipFile) -> set[str]:
    """Returns the wheel's files without those of its metadata."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def sources(*packages: Path) -> set[str]:
    """Returns the files of packages, as a wheel names them."""
    return {
        str(path.relative_to(package.parent))
        for path in files_of_the_tree()
        for package in packages
        if path.is_relative_to(package)
    }


def requirements(wheel: zipfile.ZipFile) -> list[str]:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist") or []


def test_the_client_s_wheel_has_all_of_its_packages_and_the_vectors(
    client_wheel: zipfile.ZipFile,
) -> None:
    packages = sources(*(SHARED / name for name in CLIENT_PACKAGES))
    vectors = {
        f"logd_wire/{name}" for name in sources(SHARED / "vectors") if not name.endswith(".md")
    }
    assert any(name.endswith(".json") for name in vectors)
    assert files(client_wheel) == packages | vectors


def test_the_client_requires_msgpack_alone_and_flask_as_an_extra(
    client_wheel: zipfile.ZipFile,
) -> None:
    needed = requirements(client_wheel)
    assert [name for name in needed if "extra ==" not in name] == ["msgpack>=1.1"]
    assert {name.split(">")[0] for name in needed if 'extra == "flask"' in name} == {"Flask"}


def test_the_daemon_s_wheel_has_logd_and_the_site_and_nothing_of_the_client(
    daemon_wheel: zipfile.ZipFile,
) -> None:
    assert {name.split("/")[0] for name in files(daemon_wheel)} == {"logd", "webapp"}
    expected = {
        name
        for name in sources(ROOT / "logd", ROOT / "webapp")
        if not (name.startswith("logd/") and name.endswith(".md"))
    } - {"webapp/classroom/screenshot.png"}  # of the README
    assert files(daemon_wheel) == expected
    assert any(name.startswith("logd-client[flask]") for name in requirements(daemon_wheel))


def test_the_client_works_in_an_application_with_its_own_shared_and_webapp(
    client_wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    installed, application = tmp_path / "installed", tmp_path / "application"
    client_wheel.extractall(installed)
    for name in ("shared", "webapp"):
        (application / name).mkdir(parents=True)
        (application / name / "__init__.py").write_text('OWNER = "the application"\n')
    # Without `site`, whose .pth files lead to this tree: msgpack and Flask by their directory.
    done = subprocess.run(
        [sys.executable, "-S", "-c", FOREIGN_APPLICATION,
         application, installed, sysconfig.get_path("purelib")],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "False Client\n"), done.stderr
