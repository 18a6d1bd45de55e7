"""Compares the files that a running daemon depends on with what it set up, and restores them. Pure.

Cleaners, an administrator or a container's restart may remove any of them at any time. The daemon
compares each once a second. It puts back what it can, and reports the rest for as long as it is
missing. `logd status` and `logd check` make the same comparison from what the daemon has published,
so that they are right even while the daemon hangs.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from logd.errors import CannotCreate, StorageBusy
from logd.log_limit import ThrottledLog
from logd_wire.rendezvous import NoOutbox

CHECK_INTERVAL_S = 1.0
# The longest text of a problem: the page in the lock file must hold one for each file.
PROBLEM_CHARS_MAX = 160

# Values of `Item.compare`: what must be as it was when the daemon set the file up.
PRESENT = "present"  # a file of this kind exists; it may be replaced (logd.toml, the key)
SAME = "same"  # it is the same inode too: the daemon has it open, and clients find it by name
OWNED = "owned"  # the file's inode, owner and mode are the same
UNCHANGED = "unchanged"  # the file's inode, owner, mode and content are the same

PUT_BACK = "logd puts it back within a second; where it cannot, its log says why"
_KINDS = {"link": "a symbolic link", "other": "something else"}


@dataclass(frozen=True)
class FileState:
    """A file as lstat(2) describes it. `kind` is None if it is missing, "?" if lstat fails."""

    kind: str | None
    device: int = 0
    inode: int = 0
    uid: int = -1
    mode: int = 0
    changed_ns: int = 0


def problem(expected: FileState, found: FileState, compare: str) -> str | None:
    """Returns what is wrong with a file; None if it is as the daemon set it up."""
    if found.kind is None:
        return "not there"
    if found.kind == "?":
        return "cannot be read"
    if found.kind != expected.kind:
        return f"{_KINDS.get(found.kind, f'a {found.kind}')} is in its place"
    if compare == PRESENT:
        return None
    if (found.device, found.inode) != (expected.device, expected.inode):
        return f"another {found.kind} has its name"
    if compare == SAME:
        return None
    if found.uid != expected.uid:
        return f"belongs to user {found.uid}, not {expected.uid}"
    if found.mode != expected.mode:
        return f"has mode {found.mode:04o}, not {expected.mode:04o}"
    if compare == UNCHANGED and found.changed_ns != expected.changed_ns:
        return "was changed"
    return None


@dataclass(eq=False)
class Item:
    """A runtime file: how it was set up, how it is restored, and what has happened to it.

    `put_back` creates it again; it is None if only an administrator can, as `remedy` says. `locate`
    returns its path, which may change. `failing` says what fails without it.
    """

    name: str
    locate: Callable[[], str]
    compare: str
    failing: str
    remedy: str = ""
    put_back: Callable[[], None] | None = None
    optional: bool = False  # an optional file may be created after the start
    expected: FileState = field(default_factory=lambda: FileState(None))
    problem: str | None = None
    since_ns: int = 0
    restored: int = 0
    restored_ns: int | None = None

    def published(self) -> dict[str, Any]:
        """Returns what other processes need to compare the file, and what was done to it."""
        return {
            "name": self.name,
            "path": self.locate(),
            "compare": self.compare,
            "remedy": self.remedy if self.put_back is None else PUT_BACK,
            "expected": asdict(self.expected),
            "problem": self.problem and self.problem[:PROBLEM_CHARS_MAX],
            "since_ns": self.since_ns if self.problem else None,
            "restored": self.restored,
            "restored_ns": self.restored_ns,
        }


class RuntimeFiles:
    """All runtime files, in the order in which they are to be restored.

    `read_state` returns a file's present state, `now_ns` is the wall clock. Errors that have to end
    the process are not caught, such as another daemon's lock on the lock file.
    """

    def __init__(
        self,
        items: Iterable[Item],
        read_state: Callable[[str], FileState],
        now_ns: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        self.items = tuple(items)
        self._read_state = read_state
        self._now_ns = now_ns
        self._log = log
        self._throttled = ThrottledLog(log, lambda: self._now_s)
        self._now_s = self._due_s = 0.0
        for item in self.items:
            item.expected = read_state(item.locate())

    def replace(self, items: Iterable[Item]) -> None:
        """Replaces the items; one with the same name and path as before keeps its history."""
        former = {(item.name, item.locate()): item for item in self.items}
        kept = []
        for item in items:
            known = former.get((item.name, item.locate()))
            if known is None:
                item.expected = self._read_state(item.locate())
            kept.append(known or item)
        self.items = tuple(kept)

    def is_due(self, now_s: float) -> bool:
        """Returns whether the next comparison is due."""
        return now_s >= self._due_s

    def check(self, now_s: float) -> bool:
        """Compares all items, and restores what can be restored. `now_s` is monotonic.

        Returns whether a change has to be published.
        """
        self._now_s, self._due_s = now_s, now_s + CHECK_INTERVAL_S
        changed = False
        for item in self.items:
            found = self._read_state(item.locate())
            if item.expected.kind is None and (item.optional or found.kind is not None):
                # The file did not exist before, so this is its expected state.
                item.expected = found
                continue
            wrong = problem(item.expected, found, item.compare)
            if wrong is not None:
                changed = self._mend(item, wrong) or changed
            elif item.problem is not None:
                self._log.info("%s: %s is there again", item.name, item.locate())
                item.problem = None
                changed = True
        return changed

    def _mend(self, item: Item, wrong: str) -> bool:
        where = item.locate()
        if item.put_back is None:
            return self._report(item, wrong)
        try:
            item.put_back()
        except (NoOutbox, CannotCreate, StorageBusy) as error:
            return self._report(item, f"{wrong}; cannot be put back: {error}")
        except OSError as error:
            reason = error.strerror or errno.errorcode.get(error.errno or 0, "error")
            return self._report(item, f"{wrong}; cannot be put back: {reason}")
        for other in self.items:
            # The call has restored all items that have the same function.
            if other.put_back == item.put_back:
                other.expected = self._read_state(other.locate())
        item.problem = None
        item.restored += 1
        item.restored_ns = self._now_ns()
        # The item's name is part of the message, so that each item is throttled separately.
        self._throttled.warning(f"{item.name}: %s: %s: put back", where, wrong)
        return True

    def _report(self, item: Item, wrong: str) -> bool:
        changed = item.problem != wrong
        if item.problem is None:
            item.since_ns = self._now_ns()
        item.problem = wrong
        todo = f". {item.remedy}" if item.remedy else ""
        self._throttled.warning(
            f"{item.name}: %s: %s: %s%s", item.locate(), wrong, item.failing, todo
        )
        return changed

    def published(self) -> list[dict[str, Any]]:
        """Returns all items, as published for other processes."""
        return [item.published() for item in self.items]


def observed(
    published: Iterable[Mapping[str, Any]], read_state: Callable[[str], FileState], now_ns: int
) -> list[dict[str, Any]]:
    """Compares each file with the state that the running daemon has published."""
    found = []
    for entry in published:
        try:
            found.append(_observed(entry, read_state, now_ns))
        except (KeyError, TypeError):
            continue  # an entry published by another version
    return found


def _observed(
    entry: Mapping[str, Any], read_state: Callable[[str], FileState], now_ns: int
) -> dict[str, Any]:
    wrong, expected = entry["problem"], FileState(**entry["expected"])
    if wrong is None and expected.kind is not None:
        wrong = problem(expected, read_state(entry["path"]), entry["compare"])
    return {
        "name": entry["name"],
        "path": entry["path"],
        "problem": wrong,
        "since_ns": None if wrong is None else entry["since_ns"] or now_ns,
        "remedy": entry["remedy"],
        "restored": entry["restored"],
        "restored_ns": entry["restored_ns"],
    }
