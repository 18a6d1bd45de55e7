"""An upgrade to the tree that is killed leaves the old trail, and the next start ends right."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logd.audit.anchor_comparison import compare
from logd.audit.anchors import Anchor
from logd.audit.verify import verify
from logd.storage import migration_progress
from logd.storage.database import connect
from logd.storage.hash_chain import Chained
from logd.storage.migrations import schema_version
from logd.storage.store import Store
from logd.storage.tree_head import has_tree
from tests.logd.chained_trail import NEWEST, TREE, check_migrated, make, some
from tests.logd.killing import in_child
from tests.logd.made_up_trail import KEY

pytestmark = pytest.mark.usefixtures("clocks_from_1970")


def killed_at(path: Path, when: Callable[[Any, Callable[[], None]], None]) -> bool:
    """Opens the database in a fork that may kill itself; whether it did.

    `when` gets the connection before the migration, and what kills.
    """

    def work() -> None:
        def connecting(*arguments: Any) -> Any:
            connection = connect(*arguments)
            when(connection, lambda: os.kill(os.getpid(), signal.SIGKILL))
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("logd.storage.store.connect", connecting)
            Store(path, KEY, 2, 10)

    return in_child(work)


def at_statement(number: int) -> Callable[[Any, Callable[[], None]], None]:
    def when(connection: Any, kill: Callable[[], None]) -> None:
        left = number

        def count(_sql: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                kill()

        connection.set_trace_callback(count)

    return when


def at_step(number: int, of: int) -> Callable[[Any, Callable[[], None]], None]:
    """Within a statement of the migration: after `number` times `of` steps of SQLite's machine."""

    def when(_connection: Any, kill: Callable[[], None]) -> None:
        left = number

        def report(_progress: object, _what: str, _now_s: float) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                kill()

        migration_progress.PROGRESS_STEPS = of
        migration_progress.MigrationProgress._report = report  # type: ignore[assignment] # in a fork

    return when


def check_killed(path: Path, schema: int, anchors: list[Anchor], end: Chained) -> int:
    """After a kill: an earlier state is there, whole; returns its schema. The next start ends."""
    connection = connect(path, KEY, read_only=True)
    version = schema_version(connection)
    assert schema <= version <= NEWEST
    assert has_tree(connection) == (version > TREE)
    found = verify(connection)
    assert (found.findings, found.batches) == ([], end.batches)
    assert compare(connection, anchors).findings == []
    connection.close()
    again = Store(path, KEY, 3, 10)
    check_migrated(again.connection, anchors, end)
    again.close()
    return version


@pytest.mark.parametrize("schema", some(1, TREE))
def test_killed_before_any_statement_the_next_start_ends_right(
    schema: int, directory: Path
) -> None:
    """From the first schema at statements of all migrations, else at those of the last."""
    path, original = directory / "a.db", directory / "original.db"
    anchors, end = make(original, schema)
    shutil.copy(original, path)

    def listing(connection: Any, _kill: Callable[[], None]) -> None:
        file = open(directory / "statements", "w", buffering=1)  # noqa: SIM115 - until it ends
        connection.set_trace_callback(lambda sql: file.write(f"{' '.join(sql.split())}\n"))

    assert not killed_at(path, listing)
    statements = (directory / "statements").read_text().splitlines()
    tree = next(n for n, sql in enumerate(statements) if sql.startswith("CREATE TABLE chained"))
    first = statements.index("BEGIN IMMEDIATE") if schema == 1 else tree - 1
    assert statements[first] == "BEGIN IMMEDIATE"
    commits = [n for n, sql in enumerate(statements) if sql == "COMMIT" and n > tree]
    committed, last = commits[0], commits[NEWEST - TREE - 1]
    seen = {}
    places = {*range(first, last, 2 if schema == TREE else 5)}
    places |= {committed, committed + 1, last, last + 1}
    for number in sorted(places):
        remove(path)
        shutil.copy(original, path)
        assert killed_at(path, at_statement(number + 1))
        seen[number] = check_killed(path, schema, anchors, end)
    assert all((version > TREE) == (number > committed) for number, version in seen.items())
    assert all((version == NEWEST) == (number > last) for number, version in seen.items())
    assert {TREE, NEWEST} <= set(seen.values())


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@pytest.mark.parametrize("schema", [1, TREE])
def test_killed_within_a_statement_the_next_start_ends_right(schema: int, directory: Path) -> None:
    path, original = directory / "a.db", directory / "original.db"
    anchors, end = make(original, schema)
    kills, number, killed = 0, 1, True
    while killed:
        remove(path)
        shutil.copy(original, path)
        killed = killed_at(path, at_step(number, 100))
        kills += killed
        version = check_killed(path, schema, anchors, end)
        assert version < NEWEST or not killed
        number += 1 + number // 2
    assert kills > 8
