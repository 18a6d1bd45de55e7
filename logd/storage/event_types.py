"""Event types: their numbers, and the limit on how many a user may introduce.

A type stays as a row of the database, and clients choose types freely: without a limit one client
could make millions. Past `event_types_per_user_max` types of one user id, or `event_types_max` of
all users, an event of an unknown type goes to quarantine. Known types stay open to everyone, and
those that this product itself logs are never refused.

At most `event_types_max` names are in memory; in a database with more, from before the limit, the
others are looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from logd.batch import Batch
from logd.storage.database import Connection, in_parts, question_marks
from logd_wire.requests import OTHER_REQUESTS, PAGE_VIEW
from logd_wire.schema import RESERVED_TYPES, SUBJECTS

# Types of the daemon, the client and the site, which are stored even when
# other clients have used up the limit: a login, or the reading of a report.
NEVER_REFUSED = (
    RESERVED_TYPES
    | frozenset(SUBJECTS)
    | {PAGE_VIEW}
    | OTHER_REQUESTS
    | {"login", "logout", "login_failed", "login_throttled"}
    | {"durable_unknown", "durable_settled"}
)
REFUSED = "too many event types"


@dataclass(frozen=True)
class TypeLimits:
    """How many types each user, and all users together, may introduce."""

    all_users: int = 5000
    per_user: int = 500


@dataclass(slots=True)
class BatchTypes:
    """The types of one batch: the number of each, and which are new."""

    ids: dict[str, int]
    # For each new type its number, and the uid that introduced it.
    new: dict[str, tuple[int, int]] = field(default_factory=dict)


class EventTypes:
    """The event types of one database. Those of a transaction count once it is committed."""

    def __init__(self, connection: Connection, limits: TypeLimits) -> None:
        self._connection = connection
        self._limits = limits
        self._known = load(connection, limits.all_users)
        self._newest_id, count = connection.execute(
            "SELECT coalesce(max(id), 0), count(*) FROM event_type"
        ).fetchone()
        self._all_known = count <= len(self._known)
        self._introduced = Counter(introduced_by(connection))
        # A user above a limit that was lowered counts only up to the limit in the sum of all.
        self._total = sum(min(n, limits.per_user) for n in self._introduced.values())

    def admit(self, batch: Batch) -> tuple[Batch, BatchTypes]:
        """Returns the batch without events of new types over a limit, and the types of the others.

        A refused event goes to quarantine with its sequence, in the same batch.
        """
        names = {event.type for _, _, event in batch.events}
        if names <= self._known.keys():
            return batch, BatchTypes(self._known)
        types = BatchTypes(self._look_up(names))
        if len(types.ids) == len(names):
            return batch, types
        less = batch.copy([])
        # The list is copied, since the batch itself may be committed again.
        less.quarantine_entries = list(batch.quarantine_entries)
        counted: Counter[int] = Counter()
        for entry in batch.events:
            producer, sequence, event = entry
            kind, uid = event.type, producer.uid
            if kind not in types.ids:
                if kind not in NEVER_REFUSED:
                    reason = self._one_too_many(uid, counted)
                    if reason is not None:
                        # Only the type is quoted, since other fields may contain personal data.
                        less.add_quarantine(
                            uid, producer.pid, reason, kind.encode(), producer, sequence
                        )
                        continue
                    counted[uid] += 1
                self._add(types, kind, uid)
            less.events.append(entry)
        return less, types

    def _one_too_many(self, uid: int, counted: Counter[int]) -> str | None:
        limits, own = self._limits, self._introduced[uid] + counted[uid]
        if own >= limits.per_user:
            return f"{REFUSED}: user {uid} has introduced {own:,} (event_types_per_user_max)"
        total = self._total + counted.total()
        if total >= limits.all_users:
            return f"{REFUSED}: all users have introduced {total:,} (event_types_max)"
        return None

    def require(self, types: BatchTypes, name: str, uid: int) -> None:
        """Adds an internal event's type to the types of the batch, whatever the limits are."""
        if name not in types.ids:
            types.ids = {**types.ids, **self._look_up((name,))}
            if name not in types.ids:
                self._add(types, name, uid)

    def _add(self, types: BatchTypes, name: str, uid: int) -> None:
        number = self._newest_id + len(types.new) + 1
        types.new[name] = number, uid
        types.ids[name] = number

    def _look_up(self, names: Iterable[str]) -> dict[str, int]:
        """Returns the numbers of the given types that the database has."""
        known = self._known
        ids = {name: known[name] for name in names if name in known}
        if not self._all_known:
            unknown = [name for name in names if name not in ids]
            ids.update(find(self._connection, unknown))
        return ids

    def mark_committed(self, types: BatchTypes) -> None:
        """Adds the types of a committed transaction to the known ones."""
        if types.ids is not self._known:
            for name, number in types.ids.items():
                self._remember(name, number)
        for name, (_, uid) in types.new.items():
            if name not in NEVER_REFUSED:
                self._introduced[uid] += 1
                self._total += 1
        self._newest_id += len(types.new)

    def _remember(self, name: str, number: int) -> None:
        known = self._known
        if name not in known and len(known) >= self._limits.all_users:
            del known[next(iter(known))]  # the oldest name is dropped, and can be looked up again
            self._all_known = False
        known[name] = number


def load(connection: Connection, names_max: int) -> dict[str, int]:
    """Returns the numbers of at most `names_max` types, those with the most events first."""
    return dict(
        connection.execute(
            "SELECT name, id FROM event_type ORDER BY events DESC, id LIMIT ?", (names_max,)
        ).fetchall()
    )


def find(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Returns the numbers of the given types that the database has."""
    return {
        name: number
        for part in in_parts(names)
        for name, number in connection.execute(
            f"SELECT name, id FROM event_type WHERE name IN ({question_marks(part)})",  # noqa: S608 - question marks only
            part,
        ).fetchall()
    }


def introduced_by(connection: Connection) -> dict[int, int]:
    """Returns how many types each user id has introduced, without those that are never refused."""
    never = sorted(NEVER_REFUSED)
    return dict(
        connection.execute(
            "SELECT uid, count(*) FROM event_type WHERE uid IS NOT NULL"  # noqa: S608 - question marks only
            f" AND name NOT IN ({question_marks(never)}) GROUP BY uid",
            never,
        ).fetchall()
    )


def insert(connection: Connection, types: BatchTypes) -> None:
    """Inserts the new types, inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO event_type (id, name, uid) VALUES (?, ?, ?)",
        [(number, name, uid) for name, (number, uid) in types.new.items()],
    )


def names(connection: Connection) -> dict[int, str]:
    """Returns the name of each type by its number."""
    return dict(connection.execute("SELECT id, name FROM event_type"))
