"""Places where things go wrong: small, read-only or broken file systems, other mount namespaces.

What they need (root, mounts, loop devices) is looked for, and a test skips with the reason.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, until


def mount(*arguments: str) -> None:
    """Runs mount(8); skips the test if this machine does not allow it."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount {' '.join(arguments)}: {done.stderr.strip().splitlines()[0]}")


def unmount(place: Path) -> None:
    """Runs umount(8), once no process has files open there."""
    subprocess.run(["umount", str(place)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    """A file system mounted at `place`, unmounted at the end even if files are open in it."""
    place.mkdir(exist_ok=True)
    mount(*arguments, str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


def small_disk(place: Path, kib: int) -> contextlib.AbstractContextManager[Path]:
    """A file system of that size."""
    return mounted(place, "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs")


@contextlib.contextmanager
def breakable_disk(place: Path) -> Iterator[Path]:
    """An ext4 that turns read-only at an error, as after a failing disk: `break_disk` makes one."""
    image = place.with_suffix(".image")
    make = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if make is None:
        pytest.skip("mkfs.ext4 is not there")
    with open(image, "wb") as file:
        file.truncate(24 * 1024 * 1024)
    subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
    with mounted(place, "-o", "loop,errors=remount-ro", str(image)):
        yield place


def break_disk(place: Path) -> None:
    """Makes the kernel find an error in that ext4, and refuse further writes."""
    device = os.stat(place).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    trigger = Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel's ext4 has no trigger_fs_error")
    trigger.write_text("by a test of logd")


def fill(directory: Path) -> Path:
    """A file that takes all remaining space."""
    filler = directory / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


@contextlib.contextmanager
def instance_at(directory: Path) -> Iterator[Instance]:
    """An instance in the given place; its daemon is killed at the end."""
    instance = Instance(directory)
    try:
        yield instance
    finally:
        instance.close()


def in_own_mounts(script: str) -> list[str]:
    """A command prefix: runs `script` in a new mount namespace, then the command."""
    return ["unshare", "--mount", "sh", "-c", f'set -e; {script}; exec "$@"', "sh"]


def wait_until_full(instance: Instance) -> None:
    """Waits until `status` reports that no space is left."""
    until(
        lambda: "no space left" in str(instance.status()["trouble"]),
        "status shows that the disk is full",
    )


def _unshares() -> bool:
    command = [*in_own_mounts("mount -t tmpfs tmpfs /mnt"), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


unshare_works = pytest.mark.skipif(
    os.geteuid() == 0 and not _unshares(), reason="no mount namespaces here (unshare --mount)"
)
