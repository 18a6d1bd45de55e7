"""Remembers files that were refused as outboxes, in bounded memory per user. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

# How many files of one user are quarantined and remembered as refused.
# Further files are only checked. Past twice as many, or REFUSED_MAX of all users,
# files that pass the checks wait too, since a later failure would have to be remembered.
REFUSED_PER_USER_MAX = 1000
REFUSED_MAX = 10_000
REFUSED_OF_ANY_USER = 16


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A refused file's identity at the time of the refusal, and its owner."""

    inode: int
    ctime_ns: int
    uid: int


class RefusedFiles:
    """Remembers files that were refused as outboxes; each is opened again only after a change.

    Otherwise the daemon would be woken by its own closing of them, again and again.
    """

    def __init__(self) -> None:
        self._files: dict[str, FileIdentity] = {}
        self._of_user: Counter[int] = Counter()
        self._newer: set[str] = set()  # the refused files whose version is newer

    def add(self, name: str, identity: FileIdentity, *, newer: bool = False) -> None:
        """Remembers a refused file in its present state; `newer` if its version is newer."""
        self.drop(name)
        self._files[name] = identity
        self._of_user[identity.uid] += 1
        if newer:
            self._newer.add(name)

    def drop(self, name: str) -> None:
        """Drops the entry of a file that no longer exists."""
        identity = self._files.pop(name, None)
        if identity is not None:
            self._of_user[identity.uid] -= 1
            if not self._of_user[identity.uid]:
                del self._of_user[identity.uid]
            self._newer.discard(name)

    def is_unchanged(self, name: str, identity: FileIdentity | None) -> bool:
        """Returns whether the file was refused and has not changed since."""
        return identity is not None and self._files.get(name) == identity

    def is_newer(self, name: str) -> bool:
        """Returns whether the file was refused because its version is newer."""
        return name in self._newer

    def names(self) -> set[str]:
        """Returns the names of the refused files."""
        return set(self._files)

    def has_room(self, uid: int) -> bool:
        """Returns whether one more file of this user may be remembered."""
        own = self._of_user[uid]
        few = own < REFUSED_OF_ANY_USER or len(self._files) < REFUSED_MAX
        return few and own < 2 * REFUSED_PER_USER_MAX

    def is_over_quota(self, uid: int) -> bool:
        """Returns whether a further file of this user is only checked, not quarantined."""
        return self._of_user[uid] >= REFUSED_PER_USER_MAX or not self.has_room(uid)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __len__(self) -> int:
        return len(self._files)
