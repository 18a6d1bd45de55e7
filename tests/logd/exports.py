"""Helpers of tests of exports: hostile events, the command, and programs that read it back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack

from logd.batch import Batch
from logd.storage import copy_registry, keyfile
from logd.storage.store import Store
from logd_wire.wire import Event
from tests.support.instance import ROOT, Instance, Process, until

HOSTILE = (
    'a\nb\rc\r\nd,"e";\'\x00\x1b[2J\x7f\x9b\x85\u2028\u2029\ufeff'
    "\u202e\u2066\u061c\U000e0001é\U0001f600=1+1"
)
PROPS: list[dict[str, Any]] = [
    {},
    {HOSTILE: HOSTILE, "": ""},
    {"most": 2**64 - 1, "least": -(2**63), "past_a_double": 2**53 + 1, "f": 0.1, "t": [True, None]},
    {"nan": float("nan"), "inf": [float("inf"), {"deep": float("-inf")}], "n": -0.0},
    {"bytes": b"\x00\xff\x1b", "deep": [{"b": b""}]},
    {"large": "x" * 8_000},
]
USERS = [None, HOSTILE, "7", "-", " ", "null"]

# The forms that hold exactly what is stored, each with a program of its own that knows nothing of
# logd: rows as JSON lines.
READERS = {
    "jsonl": """
import calendar, json, sys, time
def ns(text):
    assert len(text) == 30 and text[-1] == "Z", text
    seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    return seconds * 10**9 + int(text[20:29])
for line in open(sys.argv[1], encoding="utf-8", newline="\\n"):
    row = json.loads(line)
    for time_ns, text in (("ts_ns", "time"), ("stored_ns", "stored_time")):
        assert row[time_ns] == ns(row.pop(text)), line
    print(json.dumps(row))
""",
    "csv": """
import csv, json, sys
csv.field_size_limit(2**24)
for row in csv.DictReader(open(sys.argv[1], encoding="utf-8", newline="")):
    row |= {name: int(row[name]) for name in ("id", "ts_ns", "stored_ns", "sequence")}
    row["user"] = row["user"] or None
    print(json.dumps(row | {"props": json.loads(row["props"])}))
""",
    "parquet": """
import json, sys
import pyarrow.parquet
for group in pyarrow.parquet.ParquetFile(sys.argv[1]).iter_batches():
    for row in group.to_pylist():
        print(json.dumps(row | {"props": json.loads(row["props"])}))
""",
}


def fill(instance: Instance, repeats: int = 1) -> None:
    """Stores the hostile events `repeats` times, without a daemon."""
    config = instance.config
    store = Store(config.database, keyfile.read(config.key_file), 1, 10)
    producer = store.producer(1000, 2**64 - 1)
    producer.ended = True
    for _ in range(repeats):
        batch = Batch(10**6, 10**9)
        for user in USERS:
            for props in PROPS:
                producer.taken += 1
                packed = msgpack.packb(props)
                event = Event("page_view", 2**63 - 1 - producer.taken, user, packed)
                batch.add(producer, producer.taken, event, 1)
        store.commit(batch, 2**62)
        batch.mark_committed()
    store.close()


def stored_events(instance: Instance) -> list[dict[str, Any]]:
    """The stored events, without those of the exports themselves."""
    return [event for event in instance.events() if not event["type"].startswith("trail_")]


def read_back(form: str, path: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", READERS[form], str(path)],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def run_export(
    instance: Instance, form: str, *options: str, program: tuple[str, ...] = ("-m", "logd"),
    **how: Any,
) -> subprocess.CompletedProcess[Any]:  # fmt: skip
    """Runs `logd export`, or `program`, arguments of Python, with the same options."""
    if not how and program == ("-m", "logd"):
        process = Process(*program, "export", "--format", form, *options,
                          "--config", str(instance.config.path))  # fmt: skip
        code, out, errors = process.finish()
        return subprocess.CompletedProcess(program, code, out, errors)
    command = [*program, "export", "--format", form, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False}
    return subprocess.run(
        [sys.executable, *command, "--config", str(instance.config.path)],
        **{**pipes, "cwd": ROOT, **how},
    )


def export(instance: Instance, form: str, *options: str, code: int = 0) -> tuple[Path, str]:
    """Exports into a file; returns its path and stderr."""
    output = instance.directory / f"out.{form}"
    done = run_export(instance, form, "-o", str(output), *options)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return output, done.stderr


def the_notes(instance: Instance, ended: int = 1) -> list[dict[str, Any]]:
    """The events of exports, once the daemon has stored that `ended` of them have ended."""
    types = ("--type", "trail_export_started", "--type", "trail_exported")
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        found[:] = instance.events(*types)
        return [event["type"] for event in found].count("trail_exported") == ended

    until(are_there, "the end is stored")
    return found


def copies(instance: Instance) -> list[tuple[str, str]]:
    """Kind and place of each registered copy."""
    with instance.database(read_only=True) as connection:
        return [(copy.kind, copy.place) for copy in copy_registry.list_copies(connection)]
