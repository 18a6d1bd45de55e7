"""`logd run` with a sampling profiler that prints the CPU time of each step at the end.

`python -m benchmarks.ingest.cpu_split --config FILE` runs the daemon with a timer that fires every
few milliseconds of CPU time. The time since the last signal is charged to the running function. A
call into C, such as SQLite's, is not interrupted and is charged to its caller as a whole. Only the
main thread is sampled; the daemon has no other.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

MARK = "split: "
INTERVAL_S = 0.002
OTHER = "other"

# Steps by frame; the innermost listed frame decides. An entry is a module, or a function of one.
STEPS = {
    "receive": (
        "logd.ingest.receiver",
        "logd.ingest.open_outbox",
        "logd.ingest.outbox_directory",
        "logd.ingest.wakeups",
        "logd.serve.loop:wait",
        "logd_wire.outbox.layout",
        "logd_wire.outbox.reader",
        "logd_wire.wire:decode_record",
        "logd_wire.wire:decode_head",
    ),
    "decode": ("logd_wire.wire", "logd_wire.schema"),
    "order": (
        "logd.ingest.delivery",
        "logd.ingest.drain",
        "logd.ingest.ordering",
        "logd.ingest.outbox_finder",
        "logd.ingest.outbox_lifecycle",
        "logd.ingest.outbox_opener",
        "logd.ingest.outbox_poller",
        "logd.ingest.outbox_reader",
        "logd.ingest.scheduling",
        "logd.batch",
    ),
    "hash": (
        "logd.storage.batch_hash",
        "logd.storage.batch_rows:_add_events",
        "logd.storage.merkle",
    ),
    "roll-ups": ("logd.storage.rollups", "logd.storage.time_blocks"),
    "commit": ("logd.storage.store:commit", "logd.storage.wal", "logd.storage.store:close"),
    "insert": ("logd.storage.store", "logd.storage.batch_rows", "logd.storage.row_writer"),
}
_STEP_OF = {name: step for step, names in STEPS.items() for name in names}


def missing_names(names: Iterable[str] = tuple(_STEP_OF)) -> list[str]:
    """Return the names of STEPS that the daemon's code does not have."""
    return [name for name in names if not _exists(*name.partition(":")[::2])]


def _exists(module: str, function: str) -> bool:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return False
    nodes = ast.walk(ast.parse(Path(spec.origin).read_text()))
    return not function or any(
        isinstance(node, ast.FunctionDef) and node.name == function for node in nodes
    )


def step_of(frames: Iterator[tuple[str, str]]) -> str:
    """Return the step of a stack of (module, function), innermost first."""
    for module, function in frames:
        step = _STEP_OF.get(f"{module}:{function}") or _STEP_OF.get(module)
        if step is not None:
            return step
    return OTHER


def _walk(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    while frame is not None:
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name
        frame = frame.f_back


class Sampler:
    """Counts CPU time by step, in ns."""

    def __init__(self) -> None:
        self.by_step: Counter[str] = Counter()
        self._last_ns = time.thread_time_ns()

    def sample(self, _number: int, frame: FrameType | None) -> None:
        now_ns = time.thread_time_ns()
        took_ns, self._last_ns = now_ns - self._last_ns, now_ns
        self.by_step[step_of(_walk(frame))] += took_ns


@contextmanager
def sampling() -> Iterator[Sampler]:
    """Sample this thread, which must be the main thread."""
    sampler = Sampler()
    before = signal.signal(signal.SIGPROF, sampler.sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        yield sampler
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main(config: str) -> None:
    """Run `logd run` with the sampler."""
    from logd import log_format
    from logd.config import settings as configuration
    from logd.serve import run as service

    log_format.log_to_stderr()
    with sampling() as sampler:
        service.run(configuration.load(config))
    print(MARK + json.dumps(sampler.by_step), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[-1])
