"""What `make run` checks and removes before it starts a process: its directory and its port."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import IO

from logd_wire.rendezvous import NoOutbox, read_rendezvous, read_token
from webapp.run.plan import HOST, Plan, RunError


def take_directory(plan: Plan) -> IO[str]:
    """Creates VAR and locks it for this run; the lock is held while the file is open.

    Raises RunError if VAR cannot be written, or another run has locked it.
    """
    try:
        plan.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(plan.var / "run.lock", "a+", encoding="ascii")  # noqa: SIM115 - held by the run
    except OSError as error:
        raise RunError(
            f"{plan.var} cannot be written ({error.strerror}). "
            "Choose a directory of your own: make run VAR=...",
            os.EX_CANTCREAT,
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "of unknown id"
        lock.close()
        raise RunError(
            f"another `make run` (process {holder}) is using {plan.var}. "
            "Stop it, or choose another directory: make run VAR=... PORT=...",
            os.EX_TEMPFAIL,
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def check_port(port: int) -> None:
    """Raises RunError if the site could not listen on the port."""
    with socket.socket() as sock:
        # The option is set as gunicorn sets it:
        # a port whose last connections are in TIME_WAIT can be used.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"port {port} is in use by another program."
            else:
                reason = f"port {port} cannot be used ({error.strerror})."
            raise RunError(
                f"{reason} Choose another: make run PORT={port % 65535 + 1}", os.EX_UNAVAILABLE
            ) from error


def remove_incomplete(plan: Plan) -> None:
    """Removes the files of an interrupted first run, and nothing else in VAR. Raises RunError."""
    # Outboxes are removed first, while the file that names their directory exists.
    # The next daemon would store again what an interrupted `seed` left in them.
    with contextlib.suppress(NoOutbox):
        rendezvous = read_rendezvous(str(plan.logd / "logd.sock"))
        outboxes = Path(rendezvous.directory)
        if read_token(rendezvous.directory) == rendezvous.token and not outboxes.is_symlink():
            shutil.rmtree(outboxes, ignore_errors=True)
    try:
        # `classroom` is removed last, since it has the marker by which an interruption is detected.
        for directory in (plan.logd, plan.classroom):
            if directory.is_dir():
                shutil.rmtree(directory)
    except OSError as error:
        raise RunError(
            f"{error.filename} cannot be removed ({error.strerror}).", os.EX_CANTCREAT
        ) from error
