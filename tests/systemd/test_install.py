"""`make install` into a directory, and the Debian package that is built of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.instance import until
from tests.systemd.box import SOURCE, Box, copy_tree
from tests.systemd.load import emit, load

pytestmark = pytest.mark.booted


def make(source: Path, *arguments: str, wheels: Path) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(source), *arguments],
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "MAKEFLAGS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb, built in a copy of the tree."""
    source = tmp_path_factory.mktemp("source")
    copy_tree(source)
    before = sorted(source.rglob("*"))
    output = make(source, "deb", wheels=wheels).splitlines()[-1]
    built = source / output
    assert sorted(set(source.rglob("*")) - {built.parent, built}) == before
    return built


def test_a_package_names_no_directory_it_was_built_in(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    assert (tmp_path / "usr/lib/systemd/system/logd.service").exists()
    assert (
        "ExecStart=/usr/lib/logd/bin/python"
        in (tmp_path / "usr/lib/systemd/system/logd.service").read_text()
    )
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--text", "-e", "/tmp/tmp.",
         "-e", "/usr/local/lib/logd", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == ""
    assert not list(tmp_path.rglob("*.key"))


def test_the_package_replaces_an_install_upgrades_under_load_and_keeps_the_data(
    box: Box, package: Path
) -> None:
    before = box.settle()
    box.run(f"make -C {SOURCE} uninstall")
    shutil.copy(package, box.path("/run/test/logd.deb"))
    try:
        box.run("dpkg --install /run/test/logd.deb")
        box.run("systemctl enable --now logd.target classroom")
        assert "/usr/lib/logd" in box.run("systemctl show --property=ExecStart logd")
        assert box.settle()["stored"] == before["stored"]
        started = box.show("logd", "ExecMainStartTimestampMonotonic")
        program = "/usr/lib/logd/bin/python -I"
        with load(box, program):
            # As one that was installed before heads were signed.
            box.run("mv /etc/logd/logd-signing.key /etc/logd/away")
            assert "logd genkey adds the key" in box.run("dpkg --install /run/test/logd.deb")
            box.run("mv /etc/logd/away /etc/logd/logd-signing.key")
        assert box.show("logd", "ExecMainStartTimestampMonotonic") != started
        assert emit(box, 5, program=program)["accepted"] == 5
        box.settle()
        assert "whole" in box.run("logd verify")
        box.run("dpkg --purge logd")
        keys = ("/etc/logd/logd.key", "/etc/logd/logd-signing.key")
        for kept in (*keys, "/var/lib/logd/activity.db"):
            assert box.path(kept).exists()
        assert not box.path("/usr/lib/logd").exists()
    finally:
        box.run("dpkg --purge logd")
        box.run(f"make -C {SOURCE} install && systemctl enable --now logd.target classroom")
    until(lambda: box.show("logd", "ActiveState") == "active", "logd runs again")


def test_another_install_keeps_the_configuration(box: Box) -> None:
    box.run("echo '# mine' >> /etc/logd/logd.toml")
    key = box.path("/etc/logd/logd.key").read_text()
    assert "logd genkey" not in box.run(f"make -C {SOURCE} install")
    box.run("mv /etc/logd/logd-signing.key /etc/logd/away")
    assert "New: logd genkey adds the key that signs" in box.run(f"make -C {SOURCE} install")
    made = box.run("logd genkey")
    assert "logd-signing.key" in made and "logd.key" not in made
    box.run("mv /etc/logd/away /etc/logd/logd-signing.key")
    assert box.path("/etc/logd/logd.toml").read_text().endswith("# mine\n")
    assert box.path("/etc/logd/logd.key").read_text() == key
    assert "File exists" in box.run("logd genkey", code=73)


def test_only_root_installs_on_the_machine_itself(box: Box) -> None:
    output = box.run(f"runuser -u nobody -- make -C {SOURCE} install", code=2)
    assert "only root can; or name a directory to build a package in" in output
