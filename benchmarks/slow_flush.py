"""A disk with slow flushes, for one process: a shim that sleeps after fsync and fdatasync."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("slow_flush.c")


class NoCompiler(Exception):
    """The shim cannot be built here; the text says why."""


def build(source: Path, directory: Path) -> Path:
    """A library that can be preloaded, built into `directory`. Raises NoCompiler."""
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
    """What a process needs in its environment for flushes that take `flush_ms` longer.

    Builds the shim into `directory`. Nothing for 0. Raises NoCompiler.
    """
    if flush_ms == 0:
        return {}
    return {"LD_PRELOAD": str(build(_SOURCE, directory)), "SLOW_FLUSH_MS": str(flush_ms)}
