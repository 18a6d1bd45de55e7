"""A process that starts sites on request, each under a gunicorn of its own.

Starting an interpreter with Flask and gunicorn takes longer than many measurements, so it is done
once for each disk (the slow one is an environment, see `slow_flush`). Every site is a fork of this
process: a master and its workers in a process group of their own, killed as one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import gunicorn.workers.gthread  # noqa: F401 - loaded before the forks
from gunicorn.app.base import BaseApplication

from benchmarks.harness.processes import READY_TIMEOUT_S, Failed, cpu_s, running
from benchmarks.request.site import create_app
from benchmarks.request.ways import THREADS, WORKERS

# Settings as in `make run`, but connections may stay open for the whole run.
_SETTINGS: dict[str, Any] = {
    "workers": WORKERS,
    "worker_class": "gthread",
    "threads": THREADS,
    "keepalive": 60,
    "loglevel": "warning",
    "timeout": 60,
    "control_socket_disable": True,
}
_BACKLOG = 256
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True)
class Order:
    """The site to start: a way of logging with its directory, or the Classroom with settings."""

    way: str = ""
    directory: str = ""
    classroom: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Site:
    """A running site: its port and its process group."""

    port: int
    group: int

    def cpu_s(self) -> float:
        """Return the CPU time of its web processes so far."""
        children = Path(f"/proc/{self.group}/task/{self.group}/children").read_text()
        return sum(cpu_s(int(pid)) for pid in children.split())

    def kill(self) -> None:
        """Send `kill -9` to the whole process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)


class Server:
    """The process that starts sites, as the benchmark uses it."""

    def __init__(self, orders: Connection) -> None:
        self._orders = orders

    @contextlib.contextmanager
    def site(self, order: Order) -> Iterator[Site]:
        """Run a site for the length of a `with`; kill it at the end. Raises Failed."""
        try:
            self._orders.send(order)
            if not self._orders.poll(READY_TIMEOUT_S):
                raise Failed("the site did not start in time")
            site: Site = self._orders.recv()
        except (OSError, EOFError) as error:
            raise Failed(f"the process that starts sites is gone: {error!r}") from error
        try:
            yield site
        finally:
            site.kill()


@contextlib.contextmanager
def serving(directory: Path, name: str, env: Mapping[str, str]) -> Iterator[Server]:
    """Run a server of sites in the environment `env`. Raises Failed."""
    address = str(directory / f"{name}.sock")
    with running("server", ["-m", "benchmarks.request.server", address], env) as process:
        process.wait_for_line("ready")
        with Client(address, "AF_UNIX") as orders:
            try:
                yield Server(orders)
            except Failed as error:  # the output holds the errors of the sites
                raise Failed("\n".join([str(error), *process.stop()])) from error


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, make: Callable[[], Any], settings: Mapping[str, Any]) -> None:
        self._make = make
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._make()


def _make(order: Order) -> Any:
    if order.classroom is None:
        return create_app(order.way, order.directory)
    from webapp.classroom.factory import create_app as create_classroom

    return create_classroom(order.classroom)


def _die_with_parent(_arbiter: object = None, _worker: object = None) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(order: Order, listener: socket.socket) -> None:
    """Run gunicorn's master in this child process."""
    code = 1
    try:
        _die_with_parent()
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        settings = {**_SETTINGS, "bind": f"fd://{listener.detach()}", "post_fork": _die_with_parent}
        _Gunicorn(lambda: _make(order), settings).run()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _start(order: Order) -> Site:
    # The socket listens at once, so that early connections wait for the workers.
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        port = int(listener.getsockname()[1])
        pid = os.fork()
        if pid == 0:
            _serve(order, listener)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # parent and child both set it, whichever runs first
        return Site(port, pid)


def main(address: str) -> None:
    """Start sites until the benchmark closes the connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel reaps the children
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Listener(address, "AF_UNIX") as listener:
        print("ready", flush=True)
        with listener.accept() as orders, contextlib.suppress(EOFError):
            while True:
                orders.send(_start(orders.recv()))


if __name__ == "__main__":
    # Imported under its full name, with which orders are pickled.
    from benchmarks.request import server

    server.main(sys.argv[1])
