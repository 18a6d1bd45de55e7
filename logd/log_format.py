"""Formats log lines on stderr: with a level for the journal, plain for a terminal.

The journal takes `<4>` at the start of a line for its level (sd-daemon(3)), so that `journalctl -p
warning` shows problems only. The journal records the unit's name itself.
"""

from __future__ import annotations

import logging
import os
import sys
from types import TracebackType

_LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7

_log = logging.getLogger("logd")


def reads_stderr() -> bool:
    """Returns whether stderr goes to the journal: JOURNAL_STREAM has its device and inode."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def format_line(level: int, text: str, *, journal: bool) -> str:
    """Returns a text as log lines of a level of `logging`, for the journal or for a terminal."""
    if not journal:
        return f"logd: {text}"
    number = next((number for least, number in _LEVELS if level >= least), _DEBUG)
    return "\n".join(f"<{number}>{part}" for part in text.splitlines() or [""])


class _Lines(logging.Formatter):
    def __init__(self, part: str, *, journal: bool) -> None:
        super().__init__(f"{part}%(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        return format_line(record.levelno, super().format(record), journal=self._journal)


def log_to_stderr(part: str = "") -> None:
    """Sends all log messages to stderr, also the traceback of an uncaught exception."""
    journal = reads_stderr()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(part, journal=journal))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    _log.setLevel(logging.INFO)
    if journal:
        sys.excepthook = _log_uncaught


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    _log.critical("logd ended because of a bug in it", exc_info=(kind, error, trace))
