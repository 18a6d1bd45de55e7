"""The errors that end a command or the daemon, each with an exit code that a unit file can use.

The codes are those of sysexits.h where one fits. A restart can help only after EXIT_TEMPORARY and
EXIT_INPUT_OUTPUT.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EXIT_OK = 0
EXIT_NOT_WHOLE = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3  # the exit code of systemctl for a unit that is not running
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
    """The meaning of an exit code, and whether a restart can help."""

    meaning: str
    restart: str = "no"


# The exit codes that any command may end with.
ANY_COMMAND_EXITS = (
    EXIT_SOFTWARE,
    EXIT_INPUT_OUTPUT,
    EXIT_TEMPORARY,
    EXIT_KEY,
    EXIT_INTERRUPTED,
)

# The meaning of each exit code, for help texts, man pages and systemd/README.md.
EXITS: Mapping[int, Exit] = {
    EXIT_OK: Exit("success; for `run`: stopped after storing everything that had arrived", "-"),
    EXIT_NOT_WHOLE: Exit(
        "the trail is not whole, or a check failed; the output says what and where", "-"
    ),
    EXIT_USAGE: Exit("wrong command line"),
    EXIT_NOT_RUNNING: Exit("no daemon is running (only for `status --exit-code`)", "-"),
    EXIT_DAMAGED: Exit(
        "the database is damaged, truncated, empty or gone, or newer than this program; or a file"
        " that was named is no proof, or no head that the right key has signed",
        "no: restore a backup, or install the newer program",
    ),
    EXIT_UNAVAILABLE: Exit(
        "a package that the command needs, or the journal, is not available; for `prove`: the event"
        " was removed or redacted, as the message says",
        "no: install it",
    ),
    EXIT_SOFTWARE: Exit("an internal error of logd: please report it"),
    EXIT_SYSTEM: Exit(
        "a limit of the system is too low (open files, memory)",
        "no: raise the limit that the message names",
    ),
    EXIT_CANNOT_CREATE: Exit(
        "a file, directory or socket cannot be created, is in the way, or has another owner; or"
        " there is no database yet, or the disk is read-only"
    ),
    EXIT_INPUT_OUTPUT: Exit(
        "a write or flush failed, also to standard output; none of it was confirmed",
        "perhaps: check the disk first",
    ),
    EXIT_TEMPORARY: Exit(
        "temporary: another daemon runs this instance, a disk is full, the database is locked or"
        " waits for its migration by a newer daemon, or the clock is wrong; for `verify`: whole in"
        " itself but not proven, for want of anchors, or not checked",
        "later",
    ),
    EXIT_KEY: Exit(
        "no permission (the message names the file, and the group to join or the user to be);"
        " or the key is missing, readable by others, malformed, or not the key of this database"
        " (or the database's first page is damaged, which looks the same)"
    ),
    EXIT_CONFIG: Exit("the configuration has an error; the message names the line"),
    EXIT_INTERRUPTED: Exit("interrupted by Ctrl-C, or not confirmed; the work is incomplete", "-"),
}


class LogdError(Exception):
    """An error whose message says what happened, to what, and what to do; it has an exit code."""

    exit_code = EXIT_SOFTWARE


class ConfigError(LogdError):
    """The configuration has an error."""

    exit_code = EXIT_CONFIG


class NoPermission(LogdError):
    """The system denies this user access to a file."""

    exit_code = EXIT_KEY

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path = path


class KeyFileError(LogdError):
    """The key is missing, readable by others, malformed, or not the key of this database."""

    exit_code = EXIT_KEY


class DatabaseDamaged(LogdError):
    """The database cannot be read by this program."""

    exit_code = EXIT_DAMAGED


class DatabaseCorrupt(DatabaseDamaged):
    """A page of the database does not hold the content that was written."""


class DatabaseGone(DatabaseDamaged):
    """The database was removed or replaced while the daemon had it open."""


class CannotCreate(LogdError):
    """A file, directory or socket cannot be created."""

    exit_code = EXIT_CANNOT_CREATE


class NoDatabase(CannotCreate):
    """There is no database yet."""


class StorageFailed(LogdError):
    """A write or flush failed: nothing is confirmed, and the process has to end (fsync(2))."""

    exit_code = EXIT_INPUT_OUTPUT


class AlreadyRunning(LogdError):
    """Another daemon holds the lock of this instance."""

    exit_code = EXIT_TEMPORARY


class StorageBusy(LogdError):
    """The database cannot commit now, because it is full or locked; the batch is kept."""

    exit_code = EXIT_TEMPORARY


class NotChecked(LogdError):
    """The trail could not be read to its end, so that the check has no result."""

    exit_code = EXIT_TEMPORARY


class ClockRefused(LogdError):
    """The clock is wrong, so an operation that cannot be undone was not done."""

    exit_code = EXIT_TEMPORARY


class NotInstalled(LogdError):
    """The operation needs a package that is not installed."""

    exit_code = EXIT_UNAVAILABLE


class SystemRefused(LogdError):
    """The operating system refused a resource: descriptors, memory."""

    exit_code = EXIT_SYSTEM


# Errors for a lack of something that a process or machine may have again later.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR}


def is_shortage(error: OSError) -> bool:
    """Returns whether the error is a shortage, so that the same operation may succeed later."""
    return error.errno in _SHORTAGES


def cannot_write(path: Path | str, error: OSError) -> LogdError:
    """Returns the error for a failed write to a file of the instance."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageBusy(
            f"{path}: {error.strerror}. Free some space, then start again; events wait."
        )
    if error.errno == errno.EIO:
        return StorageFailed(f"{path}: {error.strerror}. Check the disk before starting again.")
    return CannotCreate(f"{path}: cannot be written: {error.strerror}.")
