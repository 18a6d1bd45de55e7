"""Standard streams that print any text, and that report their own failures.

A command may be started with a stream closed, with a full disk behind it, in a locale that lacks
characters, or beside a program that made the terminal non-blocking.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING

from logd.atomic_file import cannot_be_written
from logd.errors import StorageFailed
from logd.render import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_OUTPUT = "standard output"
_ESCAPES = "logd_escapes"
_WITHOUT_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Stream(io.FileIO):
    """Writes to a descriptor that it does not close; waits if that is non-blocking and full."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)

    def write(self, data: ReadableBuffer, /) -> int:
        # Write() returns None for EAGAIN: the stream is full.
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


class _Stdout(_Stream):
    """Writes to stdout; drops the rest after a failed write, so that the failure is reported once.

    Raises BrokenPipeError when the reader has left and `ends_with_reader`, else a LogdError.
    """

    ends_with_reader = True

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                if self.ends_with_reader:
                    raise
                return memoryview(data).nbytes
            if error.errno in _WITHOUT_ROOM:
                raise cannot_be_written(STANDARD_OUTPUT, error) from error
            why = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise StorageFailed(f"{STANDARD_OUTPUT}: {why}. Not all was printed.") from error


class _Stderr(_Stream):
    """Writes to stderr; drops what cannot be written, so that no message changes the exit code."""

    def write(self, data: ReadableBuffer, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


class _TerminalText(io.TextIOWrapper):
    """Escapes control characters in everything that a command prints to a terminal.

    Names of files, findings and stored texts may hold them. Commands print no terminal codes
    themselves.
    """

    def write(self, text: str, /) -> int:
        super().write("\n".join(map(printable, text.split("\n"))))
        return len(text)


def prepare() -> None:
    """Replaces the process's standard streams, unless a caller has replaced them."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # A closed stream's number would go to the next file opened:
            # take it, read-only so that writes fail.
            os.open(os.devnull, os.O_RDONLY)
    codecs.register_error(_ESCAPES, _escape)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - empty, not absent
    if sys.stdout is sys.__stdout__:
        stdout = _Stdout(1)
        kind = _TerminalText if stdout.isatty() else io.TextIOWrapper
        sys.stdout = _text(stdout, sys.stdout, kind)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Stderr(2), sys.stderr)


def continue_without_reader() -> None:
    """Lets the command end with its own exit code even if the reader of stdout has left."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Stdout):
        raw.ends_with_reader = False


def _text(
    raw: _Stream, before: io.TextIOBase | None, kind: type[io.TextIOWrapper] = io.TextIOWrapper
) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    return kind(io.BufferedWriter(raw), encoding, errors=_ESCAPES, line_buffering=raw.isatty())


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escapes characters that an encoding lacks in JSON's form, so that JSON lines stay valid."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2] for at in range(0, len(units), 2))
    return "".join(f"\\u{pair.hex()}" for pair in pairs), error.end
