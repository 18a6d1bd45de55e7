"""A migration of a million events from each earlier schema, killed in the middle, ends right."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from logd.audit.anchor_comparison import compare
from logd.audit.anchors import Anchor
from logd.audit.verify import verify
from logd.storage import rollups, tree
from logd.storage.database import connect
from logd.storage.hash_chain import read_chained
from logd.storage.migrations import MIGRATIONS, schema_version, split
from logd.storage.tree_head import has_tree
from tests.logd.chained_trail import NEWEST, OLDER, TREE
from tests.logd.made_up_trail import KEY
from tests.logd.naive_tree import expected_nodes, nodes
from tests.logd.older_acts import REMOVALS_SINCE, anchors_of, older_with_acts
from tests.logd.test_upgrade_tree_killed import remove
from tests.support.progress import Progress

EVENTS = 1_000_000
PER_BATCH = 15  # of 65,536 batches the tree has a node of level 16
PEAK_MIB_MAX = 56  # by the migration to the tree; those before it make indexes of all events
# Opens the store in a process of its own; kills it at a report of progress in the migration to a
# schema that begins with a prefix. Prints how many reports each migration made, and what it took.
OPEN = """
import json, os, signal, sys, time
from collections import Counter
from pathlib import Path
from logd.storage import migration_progress
from logd.storage.store import Store
path, key, prefix, number = sys.argv[1:]
reports, matching = Counter(), 0
def report(_progress, what, _now_s):
    global matching
    reports[what.split(":")[0]] += 1
    matching += what.startswith(prefix)
    if matching == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
migration_progress.PROGRESS_STEPS = 10_000
migration_progress.MigrationProgress._report = report
began_s = time.monotonic()
Store(Path(path), bytes.fromhex(key), 2, 10)
took_s = time.monotonic() - began_s
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0])  # ru_maxrss has what the parent had, too
print(json.dumps({"reports": reports, "took_s": took_s, "peak_mib": peak // 1024}))
"""


def open_store(path: Path, prefix: str = "", number: int = 0) -> dict[str, Any] | None:
    """What it took; None if it was killed."""
    run = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), KEY.hex(), prefix, str(number)],
        stdout=subprocess.PIPE,
        check=False,
    )
    if run.returncode == -signal.SIGKILL:
        return None
    assert run.returncode == 0
    made: dict[str, Any] = json.loads(run.stdout)
    return made


def migrate_to(path: Path, schema: int) -> None:
    """Brings a trail to an earlier schema, as the program of that time did."""
    connection = connect(path, KEY)
    rollups.add_functions(connection)
    tree.add_functions(connection)
    for version in range(schema_version(connection) + 1, schema + 1):
        name, script = MIGRATIONS[version - 1]
        connection.execute("BEGIN")
        for statement in split(script):
            connection.execute(statement)
        connection.execute("INSERT INTO migration VALUES (?, ?, 1)", (version, name))
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def check(path: Path, anchors: list[Anchor], *, killed: bool) -> None:
    connection = connect(path, KEY)
    assert (schema_version(connection) < NEWEST) == killed
    assert has_tree(connection) is not killed
    found = compare(connection, anchors)
    assert (found.compared, found.findings) == (len(anchors), [])
    if not killed:
        assert verify(connection).findings == []
        assert nodes(connection) == expected_nodes(connection)
        assert nodes(connection)[-1][0] == 16
        assert read_chained(connection).batches == anchors[-1].head.batch
    connection.close()


@pytest.mark.long(minutes=25)
def test_1000000_events_of_each_older_schema_end_right_after_kills_in_the_middle(
    directory: Path, progress: Progress
) -> None:
    """One trail of before removals were kept, and one with some, which older programs brought to
    each later schema.
    """
    path, anchors = directory / "a.db", list[Anchor]()
    for schema in progress(OLDER, "schemas"):
        original = directory / f"{schema}.db"
        if schema in (1, REMOVALS_SINCE):
            remove(directory / f"{schema - 1}.db")
            older_with_acts(original, KEY, schema, random.Random(schema), EVENTS, PER_BATCH)
            connection = connect(original, KEY)
            every = anchors_of(connection)
            anchors = [*every[::100], every[-1]]
            connection.close()
        else:
            (directory / f"{schema - 1}.db").rename(original)
            migrate_to(original, schema)
        remove(path)
        shutil.copy(original, path)
        whole = open_store(path)
        assert whole is not None
        remove(path)
        shutil.copy(original, path)
        last = f"schema {TREE + 1}"
        reports = whole["reports"]
        for prefix, number in (("", sum(reports.values()) // 2), (last, reports[last] // 2)):
            assert open_store(path, prefix, number) is None
            check(path, anchors, killed=True)
        assert open_store(path) is not None
        check(path, anchors, killed=False)
        progress.note = (
            f"from schema {schema} in {whole['took_s']:.1f} s, at most {whole['peak_mib']} MiB"
        )
        print(progress.note)
        assert schema < TREE or whole["peak_mib"] <= PEAK_MIB_MAX
