"""A throw-away copy of this machine with a real systemd as process 1, started by `boot`."""

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
# The Python of the logd that is installed in the box.
PYTHON = "/usr/local/lib/logd/bin/python -I"
COMMAND_TIMEOUT_S = 300.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    # The box has no network: pip installs from packages that were copied into it.
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": str(WHEELS),
}


def why_not() -> str | None:
    """Returns why no box can run on this machine; None if it can."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    for program in ("unshare", "nsenter", "systemctl"):
        if shutil.which(program) is None:
            return f"booting a systemd needs `{program}`"
    if not SYSTEMD.exists():
        return f"systemd is not installed ({SYSTEMD})"
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
    """Downloads every package that `make install` installs."""
    python = [sys.executable, "-m", "pip", "--python", str(SYSTEM_PYTHON)]
    lock = str(ROOT / "requirements-install.txt")
    done = subprocess.run(
        [*python, "download", "--quiet", "--require-hashes", "-r", lock, "-d", str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def copy_tree(directory: Path) -> None:
    """Copies the tree: files in git, and new ones that are not ignored."""
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
        output = self.try_to("systemctl is-system-running").stdout.strip()
        assert output != "degraded", self.run("systemctl --failed")
        return output == "running"

    @property
    def root(self) -> Path:
        """The path of its root directory on this machine."""
        return Path(f"/proc/{self.init}/root")

    def path(self, inside: str) -> Path:
        """The path on this machine of a file in the box."""
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
        """Runs a command, with `text` as its input; any exit code is accepted."""
        with self.popen(command) as process:
            try:
                out, err = process.communicate(text, COMMAND_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def run(self, command: str, text: str = "", code: int = 0) -> str:
        """Runs a command and returns its output. Fails on another exit code than `code`."""
        done = self.try_to(command, text)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    def show(self, unit: str, name: str) -> str:
        """Returns one property of a unit."""
        return self.run(f"systemctl show --property={name} --value {unit}").strip()

    def status(self) -> dict[str, Any]:
        """Returns the output of `logd status --json`."""
        state: dict[str, Any] = json.loads(self.run("logd status --json"))
        return state

    def settle(self) -> dict[str, Any]:
        """Waits until nothing is pending, and returns the status."""
        return settled(self.status)

    def events(self, *filters: str) -> list[dict[str, Any]]:
        """Returns events from `logd query`, oldest first."""
        lines = self.run(" ".join(("logd query --format jsonl", *filters))).splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Ends the machine and removes everything in it."""
        self._boot.terminate()
        self._boot.wait(DEADLINE_S)
        self._log.close()
