"""Damage of a page is found, and a state that the product itself leaves is not taken for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlcipher3

from logd.audit.page_check import _damaged, damaged_pages, damaged_pages_between
from logd.audit.verify import verify
from logd.storage import keyfile
from logd.storage.database import connect
from tests.support.instance import Instance, check_sums, emitters

PAGE_BYTES = 4096
PLACES = 50


@pytest.fixture
def stored(instance: Instance) -> Instance:
    instance.start()
    with emitters(instance, count=1, events=300) as (emitter,):
        emitter.finish()
    check_sums(instance.settle(), attempted=300, accepted=300)
    instance.stop()
    return instance


def opened(instance: Instance, *, read_only: bool = True) -> Any:
    key = keyfile.read(instance.config.key_file)
    return connect(instance.config.database, key, read_only=read_only)


@pytest.fixture
def held_back(stored: Instance) -> Iterator[Any]:
    """A reader of a database whose checkpoint another reader has held back for a while."""
    writer = opened(stored, read_only=False)
    writer.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, text TEXT)")
    fill = "INSERT INTO filler (text) SELECT hex(randomblob(1500)) FROM event LIMIT ?"
    writer.execute(fill, (30,))
    reader = opened(stored)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    writer.execute("UPDATE filler SET text = hex(randomblob(1500)) WHERE id BETWEEN 10 AND 20")
    writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    reader.execute("ROLLBACK")
    yield reader
    reader.close()
    writer.close()


class Failing:
    """A connection, one query of which fails."""

    def __init__(self, real: Any, of: str, code: int) -> None:
        self._real, self._of, self._code = real, of, code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if self._of in sql:
            error = sqlcipher3.OperationalError("by a test")
            error.sqlite_errorcode = self._code
            raise error
        return self._real.execute(sql, *values)


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_pages_that_a_checkpoint_has_not_written_yet_are_not_damaged(held_back: Any) -> None:
    alone = held_back.execute("PRAGMA cipher_integrity_check").fetchall()
    assert alone, "no page of the file is behind the WAL: this test tests nothing"
    verdict = verify(held_back)
    assert verdict.findings == []
    assert verdict.events == 300


@pytest.mark.parametrize("error", ["SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_NOMEM"])
@pytest.mark.parametrize("of", ["FROM counter", "FROM event e", "cipher_integrity_check"])
def test_what_cannot_be_read_now_is_not_taken_for_damage(
    error: str, of: str, stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any, **options: Any) -> Failing:
        return Failing(connect(*arguments, **options), of, getattr(sqlcipher3, error))

    monkeypatch.setattr("logd.storage.opening.connect", failing)
    assert "not checked: by a test" in stored.cli("verify", code=75)


def test_a_damaged_page_is_found_beside_those(held_back: Any, stored: Instance) -> None:
    flip(stored.config.database, 3 * PAGE_BYTES + 100)
    held_back.execute("BEGIN")
    held_back.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (problem,) = damaged_pages(held_back)
    held_back.execute("ROLLBACK")
    assert "page 4" in problem


def test_a_range_of_pages_is_checked_in_the_same_way(held_back: Any, stored: Instance) -> None:
    """As the nightly run does it, without SQLCipher."""
    path, key = stored.config.database, keyfile.read(stored.config.key_file)
    (pages,) = held_back.execute("PRAGMA page_count").fetchone()
    held_back.execute("BEGIN")
    held_back.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    assert _damaged(path, key, 1, pages), "no page of the file is behind the WAL"
    assert damaged_pages_between(held_back, key, 1, pages) == []
    flip(path, 3 * PAGE_BYTES + 100)
    assert damaged_pages_between(held_back, key, 1, pages) == damaged_pages(held_back)
    assert damaged_pages_between(held_back, key, 5, pages) == []
    # Of a file in another format nothing can be told by this: SQLCipher checks all of it.
    assert _damaged(path, bytes(32), 1, pages) is None
    assert "page 4" in damaged_pages_between(held_back, bytes(32), 5, pages)[0]
    held_back.execute("ROLLBACK")


def test_one_changed_byte_anywhere_is_found(stored: Instance) -> None:
    """But for the first page, without which no key opens the database."""
    path = stored.config.database
    numbers = random.Random(14)
    for _ in range(PLACES):
        place = numbers.randrange(PAGE_BYTES, path.stat().st_size)
        flip(path, place)
        assert "not whole" in stored.cli("verify", code=1), place
        flip(path, place)
    assert "whole: 300 events" in stored.cli("verify")
    flip(path, 1000)
    assert "the file is damaged" in stored.cli("verify", code=77)
