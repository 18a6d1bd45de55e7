"""A disk with slow flushes, for one process: a preloaded shim sleeps after fsync and fdatasync.

The shim also counts flushes, and a process may change its own delay while it runs (`set_ms`).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("slow_flush.c")
_MS = "SLOW_FLUSH_MS"


class NoCompiler(Exception):
    """The shim cannot be built; the text says why."""


def build(source: Path, directory: Path) -> Path:
    """Build a library to preload, in `directory`. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("no C compiler (on Debian and Ubuntu: apt-get install build-essential)")
    library = directory / source.with_suffix(".so").name
    built = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
    )
    if built.returncode != 0:
        raise NoCompiler(f"{compiler} failed: {built.stderr.strip()}")
    return library


def environment(directory: Path, flush_ms: int) -> dict[str, str]:
    """Return the environment in which a process's flushes take `flush_ms` longer.

    Builds the shim in `directory`; for 0 the environment is empty. Raises NoCompiler.
    """
    return counting(directory, flush_ms) if flush_ms else {}


def counting(directory: Path, flush_ms: int = 0) -> dict[str, str]:
    """Return an environment with the shim, which counts flushes also at 0 ms. Raises NoCompiler."""
    return {"LD_PRELOAD": str(build(_SOURCE, directory)), _MS: str(flush_ms)}


def count() -> int | None:
    """Return how many flushes this process has made; None without the shim."""
    try:
        return int(ctypes.CDLL(None).flush_count())
    except AttributeError:
        return None


def set_ms(flush_ms: int) -> None:
    """Set how much longer this process's flushes take. No effect without the shim."""
    os.environ[_MS] = str(flush_ms)
