"""Creates a self-contained instance in one directory, and the keys of an installed one."""

from __future__ import annotations

import os
from pathlib import Path

from logd.config import settings
from logd.config.settings import Config
from logd.config.table import template
from logd.errors import CannotCreate
from logd.ingest.outbox_directory import OutboxDirectory
from logd.storage import keyfile


def init(directory: Path) -> Config:
    """Creates the directory, its logd.toml and its keys. Raises CannotCreate if they exist.

    It also creates the directory of the outboxes, so that clients can log before the first start.
    """
    file = (directory / "logd.toml").absolute()
    text = template()
    config = settings.parse(text, file)  # parsing raises ConfigError if a path is too long
    for path in (file, config.key_file, config.signing_key_file):
        if os.path.lexists(path):
            raise CannotCreate(f"{path}: exists already, so nothing was created.")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyfile.create(config.key_file)
        keyfile.create(config.signing_key_file)
        file.write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise CannotCreate(
            f"{directory}: exists and is not a directory. Name another directory."
        ) from error
    except OSError as error:
        raise CannotCreate(f"{directory}: cannot be created: {error.strerror}.") from error
    outboxes = OutboxDirectory(config.outbox_directory)
    outboxes.prepare(str(config.socket))
    outboxes.close()
    return config


def create_keys(config: Config) -> list[Path]:
    """Creates the keys that the instance lacks, of its two; returns their files.

    A key that systemd has encrypted (NAME.cred) exists, and the key of an existing database cannot
    be made again. Raises CannotCreate if neither key is missing.
    """
    key, signing = config.key_file, config.signing_key_file
    lacking = [
        path
        for path, needed in ((key, not os.path.lexists(config.database)), (signing, True))
        if needed and not (os.path.lexists(path) or os.path.lexists(f"{path}.cred"))
    ]
    if not lacking:
        why = "File exists" if os.path.lexists(key) else "the database has one, restore your copy"
        raise CannotCreate(f"{key}: the key cannot be created: {why}; {signing} exists too")
    for path in lacking:
        keyfile.create(path)
    return lacking
