"""The list of forgotten persons, by token: events of theirs that arrive late are erased.

The token is HMAC-SHA256(pepper, user), of the user's canonical spelling (`logd.storage.mentions`);
for a person of one sender, the key is a pepper made for that uid. The pepper is in the database, so
that a list of tokens outside it does not reveal who was forgotten. The list is also a file beside
the database and beside every backup: persons in it are erased from a restored database. It has only
a time for each token; in the database `logd.storage.boundaries` separates earlier from later events
by sequence.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path

from logd.atomic_file import read_regular, replace_file
from logd.batch import Producer
from logd.errors import DatabaseDamaged, cannot_write
from logd.storage import boundaries
from logd.storage.boundaries import Boundaries
from logd.storage.database import Connection
from logd.storage.mentions import Value, canonical
from logd_wire.schema import INT64_MAX

FILE_NAME = "forgotten"
TOKEN_BYTES = 32
_PEPPERS_MAX = 1000

# Tokens, each with the time in nanoseconds up to which the person's events are erased.
Entries = Mapping[bytes, int]


class ErasureList:
    """The persons who were forgotten, and the producers' boundaries at each forget."""

    def __init__(
        self,
        pepper: bytes,
        entries: Entries,
        numbers: Mapping[bytes, int] | None = None,
        boundaries: Boundaries | None = None,
    ) -> None:
        self._pepper = pepper
        self._peppers: dict[int, bytes] = {}  # the pepper of each uid
        # The number of each token's forget; none for a token from a file.
        self._numbers = dict(numbers or {})
        self.boundaries = boundaries or Boundaries({}, {})
        self.entries: dict[bytes, int] = {}
        self._newest_ns = self._newest_listed_ns = -1
        _merge(self.entries, entries)
        self._update_newest()

    def add(self, entries: Entries) -> None:
        """Adds entries from a file; of two entries for one person the later one is kept."""
        for token, until_ns in entries.items():
            if until_ns > self.entries.get(token, -1):
                self.entries[token] = until_ns
                self._numbers.pop(token, None)  # an entry from a file has no boundaries
        self._update_newest()

    def _update_newest(self) -> None:
        listed = [at for token, at in self.entries.items() if not self._numbers.get(token)]
        self._newest_ns = max(self.entries.values(), default=-1)
        self._newest_listed_ns = max(listed, default=-1)

    def token(self, user: Value, uid: int | None = None) -> bytes:
        """Returns the token of a person: for all senders, or for senders with that uid."""
        pepper = self._pepper if uid is None else self._pepper_of(uid)
        return hmac.digest(pepper, canonical(user).encode(), "sha256")

    def tokens(self, name: Value, uid: int | None = None) -> list[bytes]:
        """Returns the tokens that stand for a person of that name, for any sender.

        With the uid of a sender, they include the token of that sender's person.
        """
        tokens = [self.token(name)] if uid is None else [self.token(name), self.token(name, uid)]
        # An earlier version made tokens of the id as it was spelled.
        if isinstance(name, str) and canonical(name) != name:
            tokens.append(hmac.digest(self._pepper, name.encode(), "sha256"))
        return tokens

    def _pepper_of(self, uid: int) -> bytes:
        if uid not in self._peppers:
            if len(self._peppers) >= _PEPPERS_MAX:
                self._peppers.clear()
            self._peppers[uid] = hmac.digest(self._pepper, b"of uid %d" % uid, "sha256")
        return self._peppers[uid]

    def covers(
        self, name: Value, sender: int, producer: Producer, sequence: int, ts_ns: int
    ) -> bool:
        """Whether an event by or about the person `name` is to be erased.

        `sender` is the uid to which `logd.storage.senders` attributes the event.
        """
        for token in self.tokens(name, sender):
            until_ns = self.entries.get(token)
            if until_ns is None:
                continue
            before = self.boundaries.is_before(producer, sequence, self._numbers.get(token, 0))
            if ts_ns <= until_ns if before is None else before:
                return True
        return False

    def check_until_ns(self, producer: Producer) -> int:
        """Returns the claimed time up to which a producer's events may need erasing; -1: none."""
        past_all = self.boundaries.is_past_all(producer)
        if past_all is None:
            return self._newest_ns
        return self._newest_listed_ns if past_all else INT64_MAX


def load(connection: Connection) -> ErasureList:
    """Loads the list from a database."""
    (pepper,) = connection.execute("SELECT value FROM secret WHERE name = 'pepper'").fetchone()
    numbers = dict(connection.execute("SELECT token, forget FROM forgotten WHERE forget > 0"))
    return ErasureList(pepper, entries(connection), numbers, boundaries.load(connection))


def entries(connection: Connection) -> dict[bytes, int]:
    """Returns the tokens and times in the list, also from a database of an earlier schema."""
    return dict(connection.execute("SELECT token, until_ns FROM forgotten"))


def save(connection: Connection, entries: Entries, number: int = 0) -> None:
    """Adds entries to the list in the database, inside the caller's transaction.

    `number` is that of the forget (`logd.storage.boundaries`), or 0 for entries from a file.
    """
    connection.executemany(
        "INSERT INTO forgotten (token, until_ns, forget) VALUES (?1, ?2, ?3)"
        " ON CONFLICT DO UPDATE SET until_ns = max(until_ns, ?2),"
        " forget = iif(?3 > 0, ?3, iif(?2 > until_ns, 0, forget))",
        [(token, until_ns, number) for token, until_ns in entries.items()],
    )


def file_beside(path: Path) -> Path:
    """Returns the path of the list for a database or a backup at `path`."""
    return path.with_name(FILE_NAME)


def read_file(path: Path) -> dict[bytes, int]:
    """Reads the list in a file; empty if it does not exist.

    Raises DatabaseDamaged for an invalid line, since a person in a skipped line would not be
    erased.
    """
    entries: dict[bytes, int] = {}
    try:
        lines = read_regular(path).decode("ascii").splitlines()
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
            if len(token) != 2 * TOKEN_BYTES or not 0 <= int(until_ns) <= INT64_MAX:
                raise ValueError
        except ValueError as error:
            raise DatabaseDamaged(
                f"{path}, line {number}: not an entry of the list of forgotten persons (64 "
                "hexadecimal digits and a time). Restore it from a backup, or delete the line."
            ) from error
        _merge(entries, entry)
    return entries


def merge_file(path: Path, entries: Entries) -> None:
    """Adds entries to the list in a file, atomically; it is on disk on return.

    The file has mode 0600; if root makes it, it gets the owner of its folder. Raises LogdError
    kinds.
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
