"""Finds who may access a file that a command could not open, by its owner, group and mode."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from logd.errors import NoPermission


def refused_path(error: BaseException) -> Path | None:
    """Returns the path to which access was denied, from an error or its causes, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoPermission):
            return cause.path
        if isinstance(cause, PermissionError) and isinstance(cause.filename, str | bytes):
            return Path(os.fsdecode(cause.filename))
        cause = cause.__cause__
    return None


def no_permission(path: Path) -> NoPermission:
    """Returns the error for a denied file, with the group to join or the user to become."""
    return NoPermission(path, f"{path}: no permission. {_remedy(path)}")


def _remedy(path: Path) -> str:
    """Returns what to do about a denied file: the group to join, or the user to become."""
    place = _obstacle(path.absolute())
    try:
        status = place.stat()
    except OSError:
        return "Run it as root."
    needed = stat.S_IXGRP if stat.S_ISDIR(status.st_mode) else stat.S_IRGRP
    owner = _name(pwd.getpwuid, status.st_uid, "user")
    group = _name(grp.getgrgid, status.st_gid, "group")
    mode = f"{place} is {owner}:{group}, mode {stat.S_IMODE(status.st_mode):04o}"
    others = "root" if owner == "root" else f"root or {owner}"
    if status.st_uid == os.geteuid():
        return f"{mode}, which refuses its owner too: change the mode."
    if status.st_mode & needed and status.st_gid not in (0, os.getegid(), *os.getgroups()):
        user = _name(pwd.getpwuid, os.geteuid(), "user")
        return f"{mode}: join its group (`usermod -aG {group} {user}`, as root), or be {others}."
    return f"{mode}: run it as {others}."


def _obstacle(path: Path) -> Path:
    """Returns the outermost folder that may not be entered, else the file, or its folder."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return path if path.exists() else path.parent


def _name(find: Callable[[int], Sequence[Any]], number: int, kind: str) -> str:
    try:
        return str(find(number)[0])
    except KeyError:
        return f"{kind} {number}"
