"""Files that were refused as outboxes: remembered until they change, in bounded memory."""

from __future__ import annotations

import pytest

from logd.ingest import refused_files
from logd.ingest.refused_files import FileIdentity, RefusedFiles


def test_a_refused_file_is_unchanged_until_its_identity_changes() -> None:
    files, identity = RefusedFiles(), FileIdentity(1, 2, 1000)
    files.add("a", identity, newer=True)
    assert files.is_unchanged("a", identity) and files.is_newer("a") and "a" in files
    assert not files.is_unchanged("a", FileIdentity(1, 3, 1000))
    assert not files.is_unchanged("a", None)
    files.add("a", FileIdentity(1, 3, 1000))
    assert not files.is_newer("a"), "it is of this version now"
    assert (files.names(), len(files)) == ({"a"}, 1)
    files.drop("a")
    assert not files and "a" not in files


def test_a_user_over_the_quota_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_files, "REFUSED_PER_USER_MAX", 2)
    monkeypatch.setattr(refused_files, "REFUSED_MAX", 5)
    monkeypatch.setattr(refused_files, "REFUSED_OF_ANY_USER", 1)
    files = RefusedFiles()
    for n in range(4):
        assert files.is_over_quota(1000) == (n >= 2)
        assert files.has_room(1000)
        files.add(f"{n}", FileIdentity(n, 0, 1000))
    assert not files.has_room(1000), "twice the quota is the end"
    files.add("x", FileIdentity(9, 0, 1001))
    assert not files.has_room(1001), "all users together have too many"
    assert files.has_room(1002) and not files.is_over_quota(1002), "but a first one is remembered"
    files.drop("0")
    assert files.has_room(1000)
