"""Creates a self-contained instance in one directory, for `logd init`."""

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
    """Creates the directory, its logd.toml and logd.key. Raises CannotCreate if they exist.

    It also creates the directory of the outboxes, so that clients can log before the first start.
    """
    file = (directory / "logd.toml").absolute()
    text = template()
    config = settings.parse(text, file)  # fails here if a path is too long
    for path in (file, config.key_file):
        if os.path.lexists(path):
            raise CannotCreate(f"{path}: exists already, so nothing was created.")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyfile.create(config.key_file)
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
