"""A disk with slow flushes, for one process: a shim that sleeps after fsync and fdatasync."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("slow_flush.c")


class NoCompiler(Exception):
    """The shim cannot be built here; the text says why."""


def environment(directory: Path, flush_ms: int) -> dict[str, str]:
    """What a process needs in its environment for flushes that take `flush_ms` longer.

    Builds the shim into `directory`. Nothing for 0. Raises NoCompiler.
    """
    if flush_ms == 0:
        return {}
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("no C compiler (on Debian and Ubuntu: apt-get install build-essential)")
    library = directory / "slow_flush.so"
    built = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"],
        capture_output=True,
        text=True,
    )
    if built.returncode != 0:
        raise NoCompiler(f"{compiler} failed: {built.stderr.strip()}")
    return {"LD_PRELOAD": str(library), "SLOW_FLUSH_MS": str(flush_ms)}
