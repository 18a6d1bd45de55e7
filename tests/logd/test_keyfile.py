"""The key: of a file that only its owner reads, or of what the service manager hands over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from logd.errors import KeyFileError, SystemRefused
from logd.storage import keyfile
from tests.support.instance import Instance


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


def test_a_key_that_is_there_is_never_replaced(instance: Instance) -> None:
    before = instance.config.key_file.read_text()
    assert "logd.key: the key cannot be created: File exists" in instance.cli("genkey", code=73)
    assert instance.config.key_file.read_text() == before


def test_genkey_makes_the_key_that_the_configuration_names(instance: Instance) -> None:
    instance.config.key_file.unlink()
    instance.cli("genkey")
    assert instance.config.key_file.stat().st_mode & 0o777 == 0o600
    assert len(keyfile.read(instance.config.key_file)) == 32


def test_genkey_prints_a_new_key_for_systemd_creds(instance: Instance) -> None:
    printed = instance.cli("genkey", "--stdout").strip()
    assert len(bytes.fromhex(printed)) == 32
    assert printed != instance.config.key_file.read_text().strip()


def test_a_shortage_of_descriptors_is_not_taken_for_a_missing_key(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    key_file = instance.config.key_file
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(SystemRefused, match="Too many open files"):
        keyfile.read(key_file)
