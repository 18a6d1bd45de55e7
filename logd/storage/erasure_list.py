"""Forgotten persons, known again by a token only: what arrives late is erased, and so is a backup.

The token is HMAC-SHA256(pepper, user). The pepper lies in the database, so that a list of tokens
outside it tells nobody who was forgotten. That list is a file beside the database and beside every
backup: an older database that takes this one's place is brought up to it. It has no more than a
time for each; in the database `logd.storage.boundaries` tells before from after by sequence.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path

from logd.atomic_file import replace_file
from logd.batch import Producer
from logd.errors import DatabaseDamaged, cannot_write
from logd.storage import boundaries
from logd.storage.boundaries import Boundaries
from logd.storage.database import Connection
from logd_wire.schema import INT64_MAX

FILE_NAME = "forgotten"
TOKEN_BYTES = 32

# Tokens, each with the time in nanoseconds up to which that person's events are erased.
Entries = Mapping[bytes, int]


class Forgotten:
    """Who was forgotten, as the database has it, and how far producers had got then."""

    def __init__(
        self,
        pepper: bytes,
        entries: Entries,
        numbers: Mapping[bytes, int] | None = None,
        boundaries: Boundaries | None = None,
    ) -> None:
        self._pepper = pepper
        self._numbers = dict(numbers or {})  # of the forget of each; none of one from a list
        self.boundaries = boundaries or Boundaries({}, {})
        self.entries: dict[bytes, int] = {}
        self._newest_ns = self._newest_listed_ns = -1
        _merge(self.entries, entries)
        self._look()

    def add(self, entries: Entries) -> None:
        """Takes further entries of a list; of two of the same person the later counts."""
        for token, until_ns in entries.items():
            if until_ns > self.entries.get(token, -1):
                self.entries[token] = until_ns
                self._numbers.pop(token, None)  # how far who had got then, no list says
        self._look()

    def _look(self) -> None:
        listed = [at for token, at in self.entries.items() if not self._numbers.get(token)]
        self._newest_ns = max(self.entries.values(), default=-1)
        self._newest_listed_ns = max(listed, default=-1)

    def token(self, user: str) -> bytes:
        """What stands for that person."""
        return hmac.digest(self._pepper, user.encode(), "sha256")

    def covers(self, user: str, producer: Producer, sequence: int, ts_ns: int) -> bool:
        """Whether what that person did, or what names that person, is to be erased."""
        token = self.token(user)
        until_ns = self.entries.get(token)
        if until_ns is None:
            return False
        before = self.boundaries.is_before(producer, sequence, self._numbers.get(token, 0))
        return ts_ns <= until_ns if before is None else before

    def looked_at_until_ns(self, producer: Producer) -> int:
        """Up to which claimed time an event of that producer may be one to erase; -1: none is."""
        past_all = self.boundaries.is_past_all(producer)
        if past_all is None:
            return self._newest_ns
        return self._newest_listed_ns if past_all else INT64_MAX


def load(connection: Connection) -> Forgotten:
    """The list in the database."""
    (pepper,) = connection.execute("SELECT value FROM secret WHERE name = 'pepper'").fetchone()
    numbers = dict(connection.execute("SELECT token, forget FROM forgotten WHERE forget > 0"))
    return Forgotten(pepper, entries(connection), numbers, boundaries.load(connection))


def entries(connection: Connection) -> dict[bytes, int]:
    """The tokens and times of the list, also in a database of an earlier schema."""
    return dict(connection.execute("SELECT token, until_ns FROM forgotten"))


def save(connection: Connection, entries: Entries, number: int = 0) -> None:
    """Adds to the list in the database, inside the caller's transaction.

    `number` is the forget's (`logd.storage.boundaries`); 0 for entries of a list.
    """
    connection.executemany(
        "INSERT INTO forgotten (token, until_ns, forget) VALUES (?1, ?2, ?3)"
        " ON CONFLICT DO UPDATE SET until_ns = max(until_ns, ?2),"
        " forget = iif(?3 > 0, ?3, iif(?2 > until_ns, 0, forget))",
        [(token, until_ns, number) for token, until_ns in entries.items()],
    )


def file_beside(path: Path) -> Path:
    """Where the list lies for a database or a backup at `path`."""
    return path.with_name(FILE_NAME)


def read_file(path: Path) -> dict[bytes, int]:
    """The list in a file, empty when there is no such file.

    Raises DatabaseDamaged for a line that is no entry: to pass over it would bring a person back.
    """
    entries: dict[bytes, int] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseDamaged(
            f"{path}: the list of forgotten persons cannot be read: {error}"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            token, until_ns = line.split()
            entry = {bytes.fromhex(token): int(until_ns)}
            if len(token) != 2 * TOKEN_BYTES:
                raise ValueError
        except ValueError as error:
            raise DatabaseDamaged(
                f"{path}, line {number}: no entry of the list of forgotten persons (64 hexadecimal "
                "digits and a time). Restore the file from a backup, or take that line out."
            ) from error
        _merge(entries, entry)
    return entries


def merge_file(path: Path, entries: Entries) -> None:
    """Adds to the list in a file, whole or not at all, on the disk when this returns.

    Its mode is 0600 and its owner, where that can be chosen, its folder's. Raises LogdError kinds.
    """
    before = read_file(path)
    merged = dict(before)
    _merge(merged, entries)
    if merged == before:
        return
    text = "".join(f"{token.hex()} {until_ns}\n" for token, until_ns in sorted(merged.items()))
    try:
        replace_file(path, text.encode("ascii"), path.parent.stat())
    except OSError as error:
        raise cannot_write(path, error) from error


def _merge(into: dict[bytes, int], entries: Entries) -> None:
    for token, until_ns in entries.items():
        into[token] = max(until_ns, into.get(token, until_ns))
