"""What can go wrong for good, each with the exit code a sysadmin's unit can act on.

The numbers are sysexits.h's where one fits. Restarting helps with TEMPORARY and INPUT_OUTPUT only.
"""

from __future__ import annotations

import errno
from pathlib import Path

EXIT_OK = 0
EXIT_NOT_WHOLE = 1
EXIT_NOT_RUNNING = 3  # as systemctl's
EXIT_DAMAGED = 65
EXIT_UNAVAILABLE = 69
EXIT_SYSTEM = 71
EXIT_CANNOT_CREATE = 73
EXIT_INPUT_OUTPUT = 74
EXIT_TEMPORARY = 75
EXIT_KEY = 77
EXIT_CONFIG = 78


class LogdError(Exception):
    """A message that says what happened, to what, and what to do; and the exit code."""

    exit_code = 70


class ConfigError(LogdError):
    """The configuration cannot be used as it stands."""

    exit_code = EXIT_CONFIG


class KeyFileError(LogdError):
    """The key is missing, unsafe, malformed, or not this database's."""

    exit_code = EXIT_KEY


class DatabaseDamaged(LogdError):
    """The file is not a database that this program can read."""

    exit_code = EXIT_DAMAGED


class CannotCreate(LogdError):
    """A file, directory or socket cannot be made."""

    exit_code = EXIT_CANNOT_CREATE


class NoDatabase(CannotCreate):
    """There is no database yet."""


class StorageFailed(LogdError):
    """A write or flush failed. Nothing of it is confirmed; the process ends (fsync(2))."""

    exit_code = EXIT_INPUT_OUTPUT


class AlreadyRunning(LogdError):
    """Another daemon holds this instance's lock."""

    exit_code = EXIT_TEMPORARY


class NotYet(LogdError):
    """The database takes no commit at the moment: full, or locked. What was tried is kept."""

    exit_code = EXIT_TEMPORARY


class NotInstalled(LogdError):
    """What was asked for needs a package that is not installed."""

    exit_code = EXIT_UNAVAILABLE


class SystemRefused(LogdError):
    """The operating system gave this process less than it needs: descriptors, memory."""

    exit_code = EXIT_SYSTEM


def cannot_write(path: Path | str, error: OSError) -> LogdError:
    """What a failed write to a file of ours means, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotYet(f"{path}: {error.strerror}. Free some, then start again: events wait.")
    if error.errno == errno.EIO:
        return StorageFailed(f"{path}: {error.strerror}. Look at the disk before a new start.")
    return CannotCreate(f"{path}: cannot be written: {error.strerror}.")
