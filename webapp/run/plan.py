"""What `make run` is going to do, and what it refuses to begin: no process is started here.

`Plan` holds every path and every command; the checks raise RunError with the one line to print.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from logd_wire.paths import PathTooLong, check_socket_path
from logd_wire.rendezvous import NoOutbox, read_rendezvous, read_token

HOST = "127.0.0.1"


class RunError(Exception):
    """Why the run cannot begin or go on: one message for a person, and the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Plan:
    """One run: where its files are, on which port the site answers, and what is executed."""

    port: int
    var: Path  # absolute
    logd_init: tuple[str, ...]
    logd_run: tuple[str, ...]
    logd_status: tuple[str, ...]
    seed: tuple[str, ...]
    site: tuple[str, ...]

    @property
    def url(self) -> str:
        """The site's address."""
        return f"http://{HOST}:{self.port}"

    @property
    def logd(self) -> Path:
        """logd's instance directory."""
        return self.var / "logd"

    @property
    def classroom(self) -> Path:
        """The site's instance directory."""
        return self.var / "classroom"

    @property
    def config(self) -> Path:
        """The configuration that `logd init` makes."""
        return self.logd / "logd.toml"

    @property
    def has_history(self) -> bool:
        """Whether a demo history has been played to its end."""
        return (self.classroom / "seeded").exists()

    @property
    def incomplete(self) -> bool:
        """Whether an earlier first run was cut short, before the end of its history."""
        if self.has_history:
            return False
        # A key alone: `logd init` came no further, and nothing was ever written with it.
        key_only = (
            (self.logd / "logd.key").exists()
            and not self.config.exists()
            and not (self.logd / "activity.db").exists()
            and not self.classroom.exists()
        )
        return key_only or (self.classroom / "seeding").exists()

    def site_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of the site's processes."""
        return {
            **environ,
            "CLASSROOM_DIR": str(self.classroom),
            "LOGD_DIR": str(self.logd),
            # Plain HTTP: the address is this machine's loopback, which nobody else can listen to.
            "CLASSROOM_INSECURE_HTTP": "1",
        }


def make_plan(environ: Mapping[str, str]) -> Plan:
    """The plan for `PORT` (default 8000) and `VAR` (default var). Raises RunError."""
    text = environ.get("PORT") or "8000"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise RunError(f"PORT={text} is no port: give a number from 1 to 65535.", os.EX_USAGE)
    port = int(text)
    var = Path(environ.get("VAR") or "var").expanduser().absolute()
    try:
        check_socket_path(var / "logd" / "query.sock")
    except PathTooLong as error:
        raise RunError(
            f"VAR={var} is too deep: {error} For example: make run VAR=/tmp/classroom",
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
        # How to log in is said once, when the site answers.
        seed=(python, "-m", "flask", "--app", "webapp", "seed", "--demo", "--no-accounts"),
        site=(
            *(python, "-m", "gunicorn", "--config", "python:webapp.classroom.gunicorn_conf"),
            *("--bind", f"{HOST}:{port}", "webapp.classroom.wsgi:application()"),
        ),
    )


def take_directory(plan: Plan) -> IO[str]:
    """Makes VAR and locks it for this run; the lock lasts as long as the file is open.

    Raises RunError when VAR cannot be written, or another run has it.
    """
    try:
        plan.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(plan.var / "run.lock", "a+", encoding="ascii")  # noqa: SIM115 - held by the run
    except OSError as error:
        raise RunError(
            f"{plan.var} cannot be written ({error.strerror}). "
            "Name a directory of yours: make run VAR=...",
            os.EX_CANTCREAT,
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "of unknown number"
        lock.close()
        raise RunError(
            f"another `make run` (process {holder}) already uses {plan.var}. "
            "Stop it, or name another directory: make run VAR=... PORT=...",
            os.EX_TEMPFAIL,
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def check_port(port: int) -> None:
    """Raises RunError when the site could not listen on the port."""
    with socket.socket() as sock:
        # As gunicorn does: a port whose last connections still linger is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"port {port} is in use by another program."
            else:
                reason = f"port {port} cannot be used ({error.strerror})."
            raise RunError(
                f"{reason} Choose another one: make run PORT={port % 65535 + 1}", os.EX_UNAVAILABLE
            ) from error


def remove_incomplete(plan: Plan) -> None:
    """Removes the files of an interrupted first run, and nothing else in VAR. Raises RunError."""
    # The outboxes first, while the file that names them is there: what a killed player of history
    # left in them would be stored a second time by the next daemon.
    with contextlib.suppress(NoOutbox):
        rendezvous = read_rendezvous(str(plan.logd / "logd.sock"))
        outboxes = Path(rendezvous.directory)
        if read_token(rendezvous.directory) == rendezvous.token and not outboxes.is_symlink():
            shutil.rmtree(outboxes, ignore_errors=True)
    try:
        # The marker lies in `classroom`: it goes last, so that being cut short here is safe too.
        for directory in (plan.logd, plan.classroom):
            if directory.is_dir():
                shutil.rmtree(directory)
    except OSError as error:
        raise RunError(
            f"{error.filename} cannot be removed ({error.strerror}).", os.EX_CANTCREAT
        ) from error


def ready_text(plan: Plan, accounts: Iterable[tuple[str, str, str]]) -> str:
    """What a person needs once the site answers. `accounts` are role, user name, password."""
    rows = [("role", "user name", "password"), *accounts]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = (f"    {row[0]:<{widths[0]}}   {row[1]:<{widths[1]}}   {row[2]}" for row in rows)
    logd = shown(Path(plan.logd_run[0]))
    return "\n".join(
        [
            "",
            f"  The Classroom is open: {plan.url}",
            "",
            *table,
            "",
            f"    files   {shown(plan.var)}",
            f"    watch   {logd} tail --follow --config {shown(plan.config)}",
            "    stop    Ctrl-C",
            "",
        ]
    )


def shown(path: Path) -> str:
    """A path as a person would type it: relative when it lies below the current directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def sums_text(status: Mapping[str, object]) -> str:
    """How the run ended, from `logd status --json`."""
    return ", ".join(f"{name} {status.get(name, '?')}" for name in ("stored", "pending", "lost"))
