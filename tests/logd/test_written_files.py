"""Files beside the database: whole or as they were, and on the disk before anything relies on them.

Each is written with every flush and rename noted, and then with each of those failing in turn.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from logd.atomic_file import whole_file
from logd.audit import anchor_file
from logd.errors import DatabaseDamaged, LogdError
from logd.storage import erasure_list, keyfile, last_runs, last_verification
from logd.storage.tree_head import Head
from tests.logd.trails import noted

OLD, NEW = b"o" * 32, b"n" * 32
FOLDER = "flush folder"


def write_list(path: Path) -> None:
    erasure_list.merge_file(path, {NEW: 5})


def write_export(path: Path) -> None:
    with whole_file(path, force=True) as file:
        file.write(b"new")


@dataclass(frozen=True)
class Case:
    """A file, what it has before, and the order in which it is put on the disk."""

    name: str
    before: bytes
    write: Callable[[Path], None]
    steps: tuple[str, ...]


LIST = Case(
    "forgotten",
    f"{OLD.hex()} 7\n".encode(),
    write_list,
    (r"flush \.forgotten-\w+", "name forgotten", FOLDER),
)
EXPORT = Case(
    "export.jsonl",
    b"old",
    write_export,
    (r"flush export\.jsonl\.partial", r"name export\.jsonl", FOLDER),
)
CASES = [LIST, EXPORT]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def is_in_order(happened: list[str], steps: tuple[str, ...]) -> bool:
    return len(happened) == len(steps) and all(map(re.fullmatch, steps, happened))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_gets_its_name_once_it_is_on_the_disk_and_then_the_name_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    with noted(monkeypatch) as happened:
        case.write(folder / case.name)
    assert is_in_order(happened, case.steps), happened
    assert [path.name for path in folder.iterdir()] == [case.name]
    assert (folder / case.name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("at", range(3), ids=["flush", "name", "flush of the folder"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_that_fails_is_an_error_and_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: Case, at: int, number: int
) -> None:
    path = folder / case.name
    path.write_bytes(case.before)
    calls = 0

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(number, os.strerror(number))
            real(*arguments, **options)

        return call

    with monkeypatch.context() as context:
        for name in ("fsync", "rename", "replace"):
            context.setattr(os, name, failing(getattr(os, name)))
        with pytest.raises(LogdError, match=re.escape(str(folder))):
            case.write(path)
    assert [path.name for path in folder.iterdir()] == [case.name], "nothing is left beside it"
    if at < 2:
        assert path.read_bytes() == case.before
    case.write(path)
    assert path.read_bytes() != case.before, "it can be tried again"


def test_what_raises_while_an_export_is_written_leaves_the_file_as_it_was(folder: Path) -> None:
    path = folder / "x"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with whole_file(path, force=True) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("x", b"old")]


def test_a_list_that_has_it_already_is_not_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(folder / "forgotten")
    with noted(monkeypatch) as happened:
        write_list(folder / "forgotten")
    assert happened == []


def test_a_key_and_its_name_are_on_the_disk_before_it_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it everything that is stored is lost."""
    with noted(monkeypatch) as happened:
        keyfile.create(folder / "logd.key")
    assert happened == ["flush logd.key", FOLDER]
    assert (folder / "logd.key").stat().st_mode & 0o777 == 0o600


def test_an_anchor_is_on_the_disk_and_the_first_one_its_files_name_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, head = folder / "anchors", Head(1, 2, bytes(32))
    with noted(monkeypatch) as happened:
        anchor_file.append(path, head, 5)
        anchor_file.append(path, head, 6)
    assert happened == [FOLDER, "flush anchors", "flush anchors"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_in_the_place_of_one_is_not_waited_for(
    directory: Path, make: Callable[[Path], None]
) -> None:
    """Before each, as many descriptors are open as after it."""
    database = directory / "activity.db"
    for path in (last_runs.path_of(database), last_verification.path_of(database)):
        make(path)
    make(erasure_list.file_beside(database))
    before = len(os.listdir("/proc/self/fd"))
    assert last_runs.read_runs(database) == {}
    assert last_verification.read_verification(database) is None
    with pytest.raises(DatabaseDamaged, match="the list of forgotten persons cannot be read"):
        erasure_list.read_file(erasure_list.file_beside(database))
    assert len(os.listdir("/proc/self/fd")) == before
