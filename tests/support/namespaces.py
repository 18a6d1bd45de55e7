"""Runs tests that need root in a user namespace if the user is not root.

`needs_root` marks tests that mount file systems, which root of a user namespace may do.
`needs_users` marks those that become other users or give files to them: a namespace can do so where
newuidmap and a range in /etc/subuid allow it. A test that cannot run is skipped with the reason.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

needs_root = pytest.mark.as_root(users=False)
needs_users = pytest.mark.as_root(users=True)
# The daemon sees root of a namespace as another user than root of the machine.
needs_machine_root = pytest.mark.as_root(users=True, namespace=False)

TRY_S = 20.0  # unshare answers within milliseconds, or never
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
# The tests' Python must be readable there: a home directory may be closed to other users.
_TRIED = 'mount -t tmpfs tmpfs /mnt && exec "$0" -c ""'
# Two ids that the tests take, next to root.
_TRIED_USERS = 'exec setpriv --reuid 1000 --regid 65534 --clear-groups "$0" -c ""'


def command(*, users: bool) -> tuple[str, ...]:
    """The prefix of a command that is to run as root of a namespace."""
    return (*_NAMESPACE, "--map-auto") if users else _NAMESPACE


@functools.cache
def missing(*, users: bool) -> str | None:
    """Why an ordinary user gets no such namespace on this machine; None if one is available."""
    tried = _TRIED_USERS if users else _TRIED
    if users and shutil.which("newuidmap") is None:
        # With a range in /etc/subuid, unshare would wait for it for ever.
        return "needs root, or newuidmap and a range in /etc/subuid (there is no newuidmap)"
    try:
        done = subprocess.run(
            [*command(users=users), "sh", "-c", tried, sys.executable],
            capture_output=True,
            text=True,
            check=False,
            timeout=TRY_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"needs root, or a user namespace: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    if users:
        return f"needs root, or newuidmap and a range in /etc/subuid ({lines[-1]})"
    return f"needs root, or a user namespace that may mount ({lines[-1]})"


class InNamespace(pytest.Item):
    """A test that another pytest runs in a namespace, with its fixtures."""

    users = False
    possible = True

    def runtest(self) -> None:
        """Called by pytest."""
        if not self.possible:
            pytest.skip("needs root of the machine itself")
        if reason := missing(users=self.users):
            pytest.skip(reason)
        done = self._run_there()
        if skipped := _skipped(done.stdout):
            pytest.skip(skipped)
        if done.returncode != 0:
            pytest.fail(f"in a user namespace:\n{done.stdout}{done.stderr}", pytrace=False)

    def _run_there(self) -> subprocess.CompletedProcess[str]:
        root = self.config.rootpath
        pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        settings = ["-c", str(self.config.inipath), "--rootdir", str(root)]
        return subprocess.run(
            [*command(users=self.users), *pytest_command, *settings, self.nodeid],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )

    def reportinfo(self) -> tuple[Path, None, str]:
        """Called by pytest."""
        return self.path, None, self.name


def _skipped(output: str) -> str | None:
    for line in output.splitlines():
        if line.startswith("SKIPPED [1] "):
            return line.partition(": ")[2]
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest."""
    if os.geteuid() != 0:
        items[:] = [_in_namespace(item) for item in items]


def _in_namespace(item: pytest.Item) -> pytest.Item:
    mark = item.get_closest_marker("as_root")
    if mark is None:
        return item
    assert item.parent is not None
    made: InNamespace = InNamespace.from_parent(item.parent, name=item.name)
    made.users = mark.kwargs["users"]
    made.possible = mark.kwargs.get("namespace", True)
    made.own_markers[:] = item.own_markers
    return made
