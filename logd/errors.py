"""What can go wrong for good, each with the exit code a sysadmin's unit can act on.

The numbers are sysexits.h's where one fits. Restarting helps with TEMPORARY and INPUT_OUTPUT only.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_NOT_WHOLE = 1
EXIT_DAMAGED = 65
EXIT_UNAVAILABLE = 69
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
