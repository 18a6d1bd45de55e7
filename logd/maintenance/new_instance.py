"""`logd init`: makes a self-contained instance in one directory."""

from __future__ import annotations

import os
from pathlib import Path

from logd.config import settings
from logd.config.settings import Config
from logd.errors import CannotCreate
from logd.ingest.outbox_directory import OutboxDirectory
from logd.storage import keyfile


def init(directory: Path) -> Config:
    """Makes the directory, its logd.toml and logd.key. Raises CannotCreate if they exist.

    The outboxes' directory is made as well, so that clients may start before the first daemon.
    """
    file = (directory / "logd.toml").absolute()
    config = settings.parse(settings.TEMPLATE, file)  # a path too long fails here
    for path in (file, config.key_file):
        if os.path.lexists(path):
            raise CannotCreate(
                f"{path}: already exists. An instance is made once; nothing changed."
            )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyfile.create(config.key_file)
        file.write_text(settings.TEMPLATE, encoding="utf-8")
    except OSError as error:
        raise CannotCreate(f"{directory}: {error.strerror}") from error
    outboxes = OutboxDirectory(config.outbox_directory)
    outboxes.prepare(str(config.socket))
    outboxes.close()
    return config
