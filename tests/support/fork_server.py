"""Starts daemons, commands and emitters as forks of a process that has imported what they need.

    python -m tests.support.fork_server FD

Importing is four fifths of the CPU time of a daemon's or a command's start, and tests start some
hundred. Each
process of pytest has one fork server, started with its first instance. A fork is a child of pytest
(CLONE_PARENT), so signals, exit codes and pipes are those of any other child; it runs its module as
`python -m` does. `Process` in tests/support/instance.py starts the rest, such as what gets
LD_PRELOAD or another command around it.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODULES = {"logd", "tests.support.daemon", "tests.support.emitter"}
IMPORTED = ("logd.cli", "logd.commands.run", "tests.support.daemon", "tests.support.emitter")
REQUEST_BYTES_MAX = 1 << 17
CLONE_PARENT = 0x8000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
ROOT = Path(__file__).resolve().parents[2]


def serves(command: Sequence[str], env: Mapping[str, str] | None) -> bool:
    """Whether a command may be a fork; `env` is what its environment has beside this process's."""
    plain = command[0] == "-m" and command[1] in MODULES and CLONE is not None
    plain = plain and list(command[1:3]) != ["logd", "run"]  # which is tried as it is started
    return plain and not any(name.startswith(("LD_", "PYTHON")) for name in env or ())


class Fork(subprocess.Popen[str]):
    """A command that the fork server starts, with pipes for its output."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._request = json.dumps([command[1:], dict(env)]).encode()
        (out, self._out), (err, self._err) = os.pipe(), os.pipe()
        super().__init__(command)
        os.close(self._out)
        os.close(self._err)
        self.stdout, self.stderr = open(out), open(err)  # noqa: SIM115 - the caller closes them

    def _execute_child(self, *_: object) -> None:
        """Called by `Popen.__init__` to start the process."""
        with _asking:
            server = _server(os.getpid())
            socket.send_fds(server, [self._request], [self._out, self._err])
            self.pid = int(server.recv(64))
        self._child_created = True


@functools.cache
def _server(_pid: int) -> socket.socket:
    """The connection to this process's fork server, which ends when the connection does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        _servers.append(subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()]))
    return ours


# Held from a request to its answer: threads that ask at once must not get each other's process.
_asking = threading.Lock()
_servers: list[subprocess.Popen[bytes]] = []  # kept: a Popen that goes away waits for its process


def _fork() -> int:
    """Forks a sibling of this process."""
    api, libc = ctypes.pythonapi, ctypes.PyDLL(None)
    api.PyOS_BeforeFork()
    pid = int(libc.syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    (api.PyOS_AfterFork_Parent if pid else api.PyOS_AfterFork_Child)()
    return pid


def _next_command(connection: socket.socket) -> Any:
    """Forks for each request; returns the request in a fork, and None at the end."""
    while True:
        request, fds, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 2)
        if not request:
            return None
        if _fork() == 0:
            connection.send(str(os.getpid()).encode())
            for number, fd in enumerate(fds, start=1):
                os.dup2(fd, number)
                os.close(fd)
            return json.loads(request)
        for fd in fds:
            os.close(fd)


def main(fd: str) -> None:
    """Serves until the connection ends."""
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    with socket.socket(fileno=int(fd)) as connection:
        command = _next_command(connection)
    if command is not None:
        (module, *sys.argv[1:]), environment = command
        os.environ.clear()
        os.environ.update(environment)
        gc.unfreeze()
        sys.modules.pop(module if module != "logd" else "logd.__main__", None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
