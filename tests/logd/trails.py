"""Helpers for tests of copies: fill a trail, read one, and a silent progress bar."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.maintenance.database_copy import Bar, Stop
from logd_client import Client
from tests.support.instance import Instance, short_directory, until


def emit(instance: Instance, user: str, count: int) -> None:
    """Emits that many events; they are on disk on return."""
    with Client(instance.socket) as client:
        assert all(client.emit("page_view", user=user, props={"n": n}) for n in range(count))
        assert client.flush(20)


@contextmanager
def original_instance() -> Iterator[Instance]:
    """An instance whose files the tests of a module copy."""
    directory = short_directory()
    instance = Instance(directory / "i")
    try:
        yield instance
    finally:
        instance.close()
        shutil.rmtree(directory)


def back_up(instance: Instance) -> Path:
    """A backup by the command, which the trail of the running daemon records."""
    made = json.loads(instance.cli("backup", "--json"))
    until(lambda: instance.status()["own"] >= 1, "the backup is recorded")
    return Path(made["backup"])


def restore(instance: Instance, backup: Path, *arguments: str, code: int = 0) -> str:
    """Runs the command; its output."""
    return instance.cli("restore", str(backup), "--yes", *arguments, code=code)


def users(instance: Instance, path: Path | None = None) -> dict[str, int]:
    """Events of each user in a database that is whole."""
    with instance.database(path, read_only=True) as connection:
        assert verify(connection).findings == []
        return dict(
            connection.execute("SELECT user, count(*) FROM event WHERE user <> '' GROUP BY user")
        )


@contextmanager
def silent(_label: str, _length: int) -> Iterator[Callable[[int], None]]:
    yield lambda _step: None


def interrupting(stop: Stop, at: str) -> Bar:
    """A bar that has a signal come when that begins."""

    @contextmanager
    def bar(label: str, _length: int) -> Iterator[Callable[[int], None]]:
        if label == at:
            stop.handle_signal(signal.SIGTERM)
        yield lambda _step: None

    return bar


@contextmanager
def noted(patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collects what is flushed and what is renamed, by name, in that order."""
    happened: list[str] = []
    fsync = os.fsync

    def flush(fd: int) -> None:
        happened.append(f"flush {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def naming(real: Callable[..., None]) -> Callable[..., None]:
        def name(old: Path, new: Path, **options: Any) -> None:
            happened.append(f"name {Path(new).name}")
            real(old, new, **options)

        return name

    with patch.context() as patched:
        patched.setattr(os, "fsync", flush)
        for call in ("rename", "replace"):
            patched.setattr(os, call, naming(getattr(os, call)))
        yield happened
