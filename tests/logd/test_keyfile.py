"""The key: of a file that only its owner reads, or of what the service manager hands over."""

from __future__ import annotations

from pathlib import Path

import pytest

from logd import keyfile
from logd.errors import KeyFileError


def test_a_credential_of_the_files_name_is_read_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    keyfile.create(credentials / "logd.key")
    (credentials / "logd.key").chmod(0o440)  # as systemd makes it; an access list says who may
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    absent = tmp_path / "logd.key"
    assert keyfile.read(absent).hex() == (credentials / "logd.key").read_text().strip()


def test_with_other_credentials_only_the_file_is_read_and_its_mode_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    key = tmp_path / "logd.key"
    keyfile.create(key)
    assert keyfile.read(key).hex() == key.read_text().strip()
    key.chmod(0o440)
    with pytest.raises(KeyFileError, match="open to others"):
        keyfile.read(key)
