"""Reads how a machine treats its memory: swap, hibernation, logind.

Files are read below a given root directory, so that tests can simulate a machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOGIND = ("usr/lib/systemd", "run/systemd", "etc/systemd")  # the last file that has a setting wins


@dataclass(frozen=True)
class Swap:
    """A swap area. `encrypted` is None if unknown; `memory` is compressed memory, not on a disk."""

    name: str
    encrypted: bool | None
    memory: bool = False


def remove_ipc(root: Path) -> bool:
    """Returns whether logind removes users' files in /dev/shm at logout (logind.conf(5))."""
    value = "yes"
    for place in _LOGIND:
        file = root / place / "logind.conf"
        for path in (file, *sorted(file.with_name("logind.conf.d").glob("*.conf"))):
            try:
                lines = path.read_text(errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, given = line.partition("=")
                if name.strip() == "RemoveIPC":
                    value = given.strip().lower() or "yes"
    return value in ("yes", "true", "1", "on")


def swaps(root: Path) -> Iterator[Swap]:
    """Yields the swap areas in use."""
    try:
        lines = (root / "proc/swaps").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        name = line.split()[0]
        path = Path(os.path.realpath(root / name.lstrip("/")))
        if path.name.startswith("zram"):
            yield Swap(name, encrypted=True, memory=True)
        elif "/dev/" in str(path):
            yield Swap(name, _encrypted(root, root / "sys/class/block" / path.name))
        else:
            yield Swap(name, _encrypted_below(root, path))


def _encrypted_below(root: Path, file: Path) -> bool | None:
    """Returns whether the device below a swap file is encrypted."""
    try:
        device = file.stat().st_dev
    except OSError:
        return None
    return _encrypted(root, root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}")


def _encrypted(root: Path, block: Path) -> bool | None:
    """Returns whether a block device, or each device below it, is a dm-crypt device."""
    if not block.exists():
        return None
    try:
        if (block / "dm/uuid").read_text().startswith("CRYPT-"):
            return True
    except OSError:
        pass
    below = [root / "sys/class/block" / path.name for path in (block / "slaves").glob("*")]
    return bool(below) and all(_encrypted(root, path) for path in below)


def hibernation(root: Path) -> bool:
    """Returns whether this machine can hibernate, which writes all memory to the disk."""
    try:
        state = (root / "sys/power/state").read_text().split()
        disk = (root / "sys/power/disk").read_text()
    except OSError:
        return False
    return "disk" in state and "[disabled]" not in disk
