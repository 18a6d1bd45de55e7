"""A machine to throw away: a real systemd as process 1 of a copy of this one, see `boot`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.instance import DEADLINE_S, ROOT, settled, until

BOOT = Path(__file__).with_name("boot")
SYSTEMD = Path("/lib/systemd/systemd")
SYSTEM_PYTHON = Path("/usr/bin/python3")
SOURCE = Path("/usr/src/logd")
WHEELS = Path("/usr/src/wheels")
# Of logd, once it is installed in there.
PYTHON = "/usr/local/lib/logd/bin/python -I"
COMMAND_TIMEOUT_S = 300.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    # It has no network: what pip installs has been brought along.
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": str(WHEELS),
}


def why_not() -> str | None:
    """Why no box can be had here, or None."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    for program in ("unshare", "nsenter", "systemctl"):
        if shutil.which(program) is None:
            return f"booting a systemd needs `{program}`"
    if not SYSTEMD.exists():
        return f"there is no systemd here ({SYSTEMD})"
    if "cgroup2" not in Path("/proc/mounts").read_text():
        return "booting a systemd needs control groups of version 2"
    new_enough = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    if not _succeeds(str(SYSTEM_PYTHON), "-c", new_enough):
        return f"installing needs a Python 3.11 with ensurepip in {SYSTEM_PYTHON}"
    if not _succeeds("unshare", "--mount", "--pid", "--fork", "true"):
        return "namespaces may not be made here (in a container without privileges?)"
    return None


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def download_wheels(directory: Path) -> None:
    """Brings every package that `make install` installs."""
    python = [sys.executable, "-m", "pip", "--python", str(SYSTEM_PYTHON)]
    lock = str(ROOT / "requirements-install.txt")
    done = subprocess.run(
        [*python, "download", "--quiet", "--require-hashes", "-r", lock, "-d", str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def copy_tree(directory: Path) -> None:
    """The tree as a sysadmin would have it: what git knows, and what is not yet committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, directory / name)


class Box:
    """The booted machine. Commands run in it as root, through `bash -c`."""

    def __init__(self, directory: Path, wheels: Path) -> None:
        files, work = directory / "files", directory / "work"
        work.mkdir(parents=True)
        copy_tree(files / SOURCE.relative_to("/"))
        shutil.copytree(wheels, files / WHEELS.relative_to("/"))
        self._log = open(directory / "boot.log", "w+b")  # noqa: SIM115 - closed with the box
        self._boot = subprocess.Popen(
            [BOOT, work, files], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self.init = 0
        try:
            until(lambda: self._began(work / "init"), "process 1 is there")
            until(self._is_up, "systemd has booted")
        except BaseException:
            self.close()
            raise

    def _began(self, file: Path) -> bool:
        if self._boot.poll() is not None:
            self._log.seek(0)
            raise AssertionError(f"could not boot: {self._log.read().decode()}")
        if file.exists():
            self.init = int(file.read_text())
        return self.init > 0

    def _is_up(self) -> bool:
        said = self.try_to("systemctl is-system-running").stdout.strip()
        assert said != "degraded", self.run("systemctl --failed")
        return said == "running"

    @property
    def root(self) -> Path:
        """Its root directory, seen from here."""
        return Path(f"/proc/{self.init}/root")

    def path(self, inside: str) -> Path:
        """A path in it, seen from here."""
        return self.root / inside.lstrip("/")

    def popen(self, command: str, **options: Any) -> subprocess.Popen[str]:
        """Starts a command in it."""
        enter = ["nsenter", "--target", str(self.init), "--all", "env", "-i"]
        variables = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return subprocess.Popen(
            [*enter, *variables, "bash", "-c", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, **options,
        )  # fmt: skip

    def try_to(self, command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command, whatever comes of it. `text` is what is typed."""
        with self.popen(command) as process:
            try:
                out, err = process.communicate(text, COMMAND_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def run(self, command: str, text: str = "", code: int = 0) -> str:
        """Runs a command; what it printed. Fails on another exit code."""
        done = self.try_to(command, text)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    def show(self, unit: str, name: str) -> str:
        """One property of a unit's."""
        return self.run(f"systemctl show --property={name} --value {unit}").strip()

    def status(self) -> dict[str, Any]:
        """What `logd status --json` shows."""
        state: dict[str, Any] = json.loads(self.run("logd status --json"))
        return state

    def settle(self) -> dict[str, Any]:
        """The status once nothing is pending any more."""
        return settled(self.status)

    def events(self, *filters: str) -> list[dict[str, Any]]:
        """Events as `logd query` gives them, oldest first."""
        lines = self.run(" ".join(("logd query --format jsonl", *filters))).splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Gone, with everything in it."""
        self._boot.terminate()
        self._boot.wait(DEADLINE_S)
        self._log.close()
