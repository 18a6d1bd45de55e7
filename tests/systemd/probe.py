"""Tries what a service must not be able to do, inside its sandbox; prints what succeeded.

Runs as the main process of a copy of the service's unit, with the installed Python alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def reads(path: str) -> Callable[[], object]:
    return lambda: Path(path).read_bytes()[:1]


def writes(directory: str) -> Callable[[], object]:
    def write() -> None:
        file = Path(directory, "probe")
        file.write_text("probe")
        file.unlink()

    return write


def connects(family: socket.AddressFamily, address: str | tuple[str, int]) -> Callable[[], object]:
    def connect() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(2)
            sock.connect(address)

    return connect


def calls(name: str, *arguments: int) -> Callable[[], object]:
    def call() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if getattr(libc, name)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return call


def core_file() -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        raise OSError("no byte of one")


TRIES: dict[str, Callable[[], object]] = {
    "read the key": reads("/etc/logd/logd.key"),
    "read the database": reads("/var/lib/logd/activity.db"),
    "read the site's database": reads("/var/lib/classroom/classroom.db"),
    "list the backups": lambda: os.listdir("/var/backups/logd"),
    "read /etc/shadow": reads("/etc/shadow"),
    "list /root": lambda: os.listdir("/root"),
    "list /home": lambda: Path("/home", "of-all").read_text(),
    "write /var/lib/logd": writes("/var/lib/logd"),
    "write /var/lib/classroom": writes("/var/lib/classroom"),
    "write /var/backups/logd": writes("/var/backups/logd"),
    "write /run/logd": writes("/run/logd"),
    "write outboxes": writes("/run/logd/writers/outboxes"),
    "read /var/tmp": reads("/var/tmp/of-all"),
    "write /dev/shm": writes("/dev/shm"),
    "write /run/test": writes("/run/test"),
    "write /etc": writes("/etc"),
    "write the program": writes("/usr/local/lib/logd"),
    "use IPv4": connects(socket.AF_INET, ("127.0.0.1", 8000)),
    "use IPv6": connects(socket.AF_INET6, ("::1", 8000)),
    "ask for reports": connects(socket.AF_UNIX, "/run/logd/query.sock"),
    "make namespaces": calls("unshare", 0x10000000),
    "trace a process": calls("ptrace", 16, os.getppid(), 0, 0),
    "mount": calls("mount", 0, 0, 0, 0, 0),
    "see other processes": lambda: Path("/proc/1/status").read_text(),
    "leave a core file": core_file,
}


def main() -> None:
    could = []
    for name, attempt in TRIES.items():
        with contextlib.suppress(OSError):
            attempt()
            could.append(name)
    json.dump(sorted(could), sys.stdout)


if __name__ == "__main__":
    main()
