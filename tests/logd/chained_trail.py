"""Trails of schemas before the Merkle tree, with removals, and what an upgrade must keep."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from logd.audit.anchor_comparison import compare
from logd.audit.anchors import Anchor
from logd.audit.verify import verify
from logd.storage.database import Connection, connect
from logd.storage.hash_chain import Chained, read_chained
from logd.storage.migrations import MIGRATIONS, schema_version
from logd.storage.tree_head import has_tree
from tests.logd.made_up_trail import KEY
from tests.logd.naive_tree import expected_nodes, nodes
from tests.logd.older_acts import anchors_of, older_with_acts

NEWEST = len(MIGRATIONS)
TREE = [name for name, _ in MIGRATIONS].index("the Merkle tree")  # the last schema without
OLDER = range(1, TREE + 1)
EVENTS = 900
PER_BATCH = 3


def some(*schemas: int) -> list[Any]:
    """These schemas for each run, the others for the long ones."""
    return [
        schema if schema in schemas else pytest.param(schema, marks=pytest.mark.long(minutes=1))
        for schema in OLDER
    ]


def make(path: Path, schema: int, key: bytes = KEY) -> tuple[list[Anchor], Chained]:
    """Makes a trail of that schema; returns what its daemon has logged, and where it ends."""
    older_with_acts(path, key, schema, random.Random(schema), EVENTS, PER_BATCH)
    connection = connect(path, key)
    anchors = anchors_of(connection)
    end = Chained(
        *connection.execute("SELECT max(id), max(first_event + events - 1) FROM batch").fetchone()
    )
    found = verify(connection)
    assert (found.findings, found.batches) == ([], end.batches), "by the chain"
    assert not has_tree(connection)
    assert not compare(connection, anchors).findings
    if schema >= 3:
        (removed,) = connection.execute("SELECT sum(events) FROM removal").fetchone()
        (redacted,) = connection.execute("SELECT count(*) FROM redacted").fetchone()
        (leaves,) = connection.execute("SELECT count(*) FROM leaf").fetchone()
        assert found.removed == removed > 200 and redacted > 40 and leaves > 100
    (losses,) = connection.execute("SELECT count(*) FROM loss").fetchone()
    assert losses > 20
    connection.close()
    assert len(anchors) == end.batches > 256
    return anchors, end


def check_migrated(connection: Connection, anchors: list[Anchor], end: Chained) -> None:
    """A trail right after the migration: whole, with the right tree, and anchors match."""
    assert schema_version(connection) == NEWEST
    assert verify(connection).findings == []
    assert read_chained(connection) == end
    assert nodes(connection) == expected_nodes(connection) != []
    found = compare(connection, anchors)
    assert (found.compared, found.findings, found.not_proven) == (len(anchors), [], None)
    assert found.last == anchors[-1]
