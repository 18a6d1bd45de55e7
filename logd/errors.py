"""What can go wrong for good, each with the exit code a sysadmin's unit can act on.

The numbers are sysexits.h's where one fits. Restarting helps with TEMPORARY and INPUT_OUTPUT only.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EXIT_OK = 0
EXIT_NOT_WHOLE = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3  # as systemctl's
EXIT_DAMAGED = 65
EXIT_UNAVAILABLE = 69
EXIT_SOFTWARE = 70
EXIT_SYSTEM = 71
EXIT_CANNOT_CREATE = 73
EXIT_INPUT_OUTPUT = 74
EXIT_TEMPORARY = 75
EXIT_KEY = 77
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Exit:
    """What a code means, and whether to start again helps."""

    meaning: str
    restart: str = "no"


# The help of a command, the man pages and the README's table say this, and nothing else.
EXITS: Mapping[int, Exit] = {
    EXIT_OK: Exit("done; of `run`: stopped, and everything that had arrived is stored", "-"),
    EXIT_NOT_WHOLE: Exit(
        "the trail is not whole, or a check fails: what, and where, was printed", "-"
    ),
    EXIT_USAGE: Exit("the command line was not understood"),
    EXIT_NOT_RUNNING: Exit("no daemon runs (only where it was asked: `status --exit-code`)", "-"),
    EXIT_DAMAGED: Exit(
        "the database is damaged, cut short, empty or gone, or newer than this program",
        "no: restore a backup, or install the newer program",
    ),
    EXIT_UNAVAILABLE: Exit(
        "what this needs is not there: a package, the journal", "no: install it"
    ),
    EXIT_SOFTWARE: Exit("an error of logd's own: please report it"),
    EXIT_SYSTEM: Exit(
        "the system allows less than is needed (open files, memory)",
        "no: raise the limit it names",
    ),
    EXIT_CANNOT_CREATE: Exit(
        "a file, directory or socket cannot be made, is in the way, or is somebody else's; there is"
        " no database yet; the disk is read-only"
    ),
    EXIT_INPUT_OUTPUT: Exit(
        "a write or flush failed; nothing of it is confirmed", "perhaps: look at the disk first"
    ),
    EXIT_TEMPORARY: Exit(
        "not now: another daemon serves this instance, a disk is full, the database is locked, it"
        " is of an older logd and no daemon has brought it up to date yet, or the clock cannot be"
        " believed",
        "later",
    ),
    EXIT_KEY: Exit(
        "the key is missing, open to others, malformed, or not this database's (or its first page"
        " is damaged: the two look the same)"
    ),
    EXIT_CONFIG: Exit("the configuration has a mistake, named with its line"),
    EXIT_INTERRUPTED: Exit("ended by Ctrl-C; what was begun is not complete", "-"),
}


class LogdError(Exception):
    """A message that says what happened, to what, and what to do; and the exit code."""

    exit_code = EXIT_SOFTWARE


class ConfigError(LogdError):
    """The configuration cannot be used as it stands."""

    exit_code = EXIT_CONFIG


class KeyFileError(LogdError):
    """The key is missing, unsafe, malformed, or not this database's."""

    exit_code = EXIT_KEY


class DatabaseDamaged(LogdError):
    """The file is not a database that this program can read."""

    exit_code = EXIT_DAMAGED


class DatabaseGone(DatabaseDamaged):
    """The database was removed or replaced while the daemon has it open."""


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


class StorageBusy(LogdError):
    """The database cannot commit now: the disk is full, or it is locked. The caller may retry."""

    exit_code = EXIT_TEMPORARY


class ClockRefused(LogdError):
    """The clock cannot be believed, and what was asked for cannot be undone: it was not done."""

    exit_code = EXIT_TEMPORARY


class NotInstalled(LogdError):
    """What was asked for needs a package that is not installed."""

    exit_code = EXIT_UNAVAILABLE


class SystemRefused(LogdError):
    """The operating system gave this process less than it needs: descriptors, memory."""

    exit_code = EXIT_SYSTEM


# What a process or machine is short of for a while.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR}


def is_shortage(error: OSError) -> bool:
    """Whether the operation may succeed later: nothing is wrong with the file that it was for."""
    return error.errno in _SHORTAGES


def cannot_write(path: Path | str, error: OSError) -> LogdError:
    """What a failed write to a file of ours means, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageBusy(f"{path}: {error.strerror}. Free some, then start again: events wait.")
    if error.errno == errno.EIO:
        return StorageFailed(f"{path}: {error.strerror}. Look at the disk before a new start.")
    return CannotCreate(f"{path}: cannot be written: {error.strerror}.")
