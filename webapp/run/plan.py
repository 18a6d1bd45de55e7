"""The plan of one `make run`: its paths, its port and the commands to execute. Starts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from logd_wire.paths import PathTooLong, check_socket_path

HOST = "127.0.0.1"


class RunError(Exception):
    """`make run` cannot start or continue: a message of one line, and the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Plan:
    """The files, the port and the commands of one run."""

    port: int
    var: Path  # the absolute path of the directory
    logd_init: tuple[str, ...]
    logd_run: tuple[str, ...]
    logd_status: tuple[str, ...]
    seed: tuple[str, ...]
    site: tuple[str, ...]

    @property
    def url(self) -> str:
        """Returns the site's address."""
        return f"http://{HOST}:{self.port}"

    @property
    def logd(self) -> Path:
        """Returns logd's instance directory."""
        return self.var / "logd"

    @property
    def classroom(self) -> Path:
        """Returns the site's instance directory."""
        return self.var / "classroom"

    @property
    def config(self) -> Path:
        """Returns the configuration file that `logd init` creates."""
        return self.logd / "logd.toml"

    @property
    def has_history(self) -> bool:
        """Returns whether the demo history has been loaded completely."""
        return (self.classroom / "seeded").exists()

    @property
    def incomplete(self) -> bool:
        """Returns whether an earlier first run was interrupted before its history was loaded."""
        if self.has_history:
            return False
        # If only the key exists, `logd init` was interrupted,
        # and nothing was written with that key.
        key_only = (
            (self.logd / "logd.key").exists()
            and not self.config.exists()
            and not (self.logd / "activity.db").exists()
            and not self.classroom.exists()
        )
        return key_only or (self.classroom / "seeding").exists()

    def site_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment of the site's processes."""
        return {
            **environ,
            "CLASSROOM_DIR": str(self.classroom),
            "LOGD_DIR": str(self.logd),
            # Plain HTTP is allowed, since loopback traffic does not leave this machine.
            "CLASSROOM_INSECURE_HTTP": "1",
        }


def make_plan(environ: Mapping[str, str]) -> Plan:
    """Makes the plan from `PORT` (default 8000) and `VAR` (default var). Raises RunError."""
    text = environ.get("PORT") or "8000"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise RunError(f"PORT={text} is not a port: give a number from 1 to 65535.", os.EX_USAGE)
    port = int(text)
    var = Path(environ.get("VAR") or "var").expanduser().absolute()
    try:
        check_socket_path(var / "logd" / "query.sock")
    except PathTooLong as error:
        raise RunError(
            f"VAR={var} is too long a path: {error} For example: make run VAR=/tmp/classroom",
            os.EX_CONFIG,
        ) from None
    programs = Path(sys.executable).parent
    logd, python = str(programs / "logd"), sys.executable
    config = ("--config", str(var / "logd" / "logd.toml"))
    return Plan(
        port=port,
        var=var,
        logd_init=(logd, "init", str(var / "logd")),
        logd_run=(logd, "run", *config),
        logd_status=(logd, "status", *config, "--json"),
        # The accounts are left out here: they are printed once, when the site answers.
        seed=(python, "-m", "flask", "--app", "webapp", "seed", "--demo", "--no-accounts"),
        site=(
            *(python, "-m", "gunicorn", "--config", "python:webapp.classroom.gunicorn_conf"),
            *("--bind", f"{HOST}:{port}", "webapp.classroom.wsgi:application()"),
        ),
    )
