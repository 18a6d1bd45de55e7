"""A database that is removed or replaced under a running daemon: nothing more is confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.batch import Batch, Producer
from logd.errors import DatabaseGone, StorageFailed
from logd.storage import keyfile
from logd.storage.database import connect, shm_path, wal_path
from logd.storage.store import Store
from logd_wire.wire import Event
from tests.support.instance import Instance

OWN = Producer(uid=1, id=2, seed=3)


def batch(*sequences: int) -> Batch:
    made = Batch(100, 10_000)
    for sequence in sequences:
        made.add(OWN, sequence, Event("page_view", 5, None, b"\x80"), 1)
        OWN.taken = sequence
    return made


@pytest.fixture
def store(instance: Instance) -> Iterator[Store]:
    OWN.row, OWN.stored, OWN.taken = None, 0, 0
    made = instance.open_store()
    made.commit(batch(1), 2)
    yield made
    made.connection.close()


def stored(instance: Instance, path: Path) -> int:
    opened = Store(path, keyfile.read(instance.config.key_file), 1, 10)
    (count,) = opened.connection.execute("SELECT count(*) FROM event").fetchone()
    opened.connection.close()
    return int(count)


@pytest.mark.parametrize("left", ["nothing", "another database"])
def test_what_is_committed_to_a_file_without_a_name_is_not_confirmed_and_saved(
    instance: Instance, store: Store, left: str
) -> None:
    path = instance.config.database
    for file in (path, wal_path(path), shm_path(path)):
        file.unlink()
    if left == "another database":
        path.write_bytes(b"")
    with pytest.raises(DatabaseGone, match="Everything it held is saved in") as raised:
        store.commit(batch(2), 3)
    assert raised.value.exit_code == 65
    assert ("was removed" if left == "nothing" else "was replaced") in str(raised.value)
    (saved,) = path.parent.glob("activity.db.saved-*")
    assert saved.stat().st_mode & 0o077 == 0
    assert OWN.stored == 0, "the caller never settles it"
    assert stored(instance, saved) == 2


def test_a_database_whose_folder_was_renamed_is_not_copied(
    instance: Instance, store: Store
) -> None:
    path = instance.config.database
    aside = path.with_name("elsewhere.db")
    path.rename(aside)
    with pytest.raises(DatabaseGone, match="has another name now"):
        store.check_files()
    assert not list(path.parent.glob("activity.db.saved-*"))


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("left", ["nothing", "another file"])
def test_without_its_wal_nothing_is_confirmed_and_what_was_is_in_the_database(
    instance: Instance, store: Store, suffix: str, left: str
) -> None:
    path = instance.config.database
    file = path.with_name(path.name + suffix)
    # SQLite moves the WAL into the database when the last one that has it open closes it.
    reader = connect(path, keyfile.read(instance.config.key_file), read_only=True)
    file.unlink()
    if left == "another file":
        file.write_bytes(b"not the WAL of this database")
    with pytest.raises(StorageFailed, match=r"What was confirmed is in the database") as raised:
        store.commit(batch(2), 3)
    assert raised.value.exit_code == 74
    assert str(file) in str(raised.value)
    assert not file.exists()
    aside = list(path.parent.glob("*.foreign-*"))
    assert [one.read_bytes() for one in aside] == (
        [b"not the WAL of this database"] if left == "another file" else []
    )
    assert stored(instance, path) == 2
    reader.close()


def test_nothing_is_wrong_with_a_database_that_is_there(store: Store) -> None:
    store.check_files()
    assert store.vacuum(lambda: True)
    assert store.truncate_wal()
    store.commit(batch(2), 3)
    store.check_files()
