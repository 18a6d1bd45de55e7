"""Determines the sender of an event: the uid of its producer, as the kernel reports it.

`report_read` is written by logd itself; its sender is the one who requested the report. Other
internal events belong to no application.
"""

from __future__ import annotations

from dataclasses import dataclass

from logd.storage import event_types
from logd.storage.database import Connection
from logd.storage.mentions import Value, canonical
from logd_wire.schema import REPORT_READ, Malformed
from logd_wire.wire import unpack_props

_PRODUCERS_MAX = 10_000


@dataclass(frozen=True)
class Person:
    """A person: the user's id, and the uids of the senders that mean this person by it.

    `uids` is None if all senders mean this person.
    """

    user: str
    uids: tuple[int, ...] | None = None

    def is_named(self, value: Value) -> bool:
        """Whether a value in the place of a person is this person's id, in any spelling."""
        return canonical(value) == canonical(self.user)

    def is_of(self, uid: int) -> bool:
        """Whether an event from the sender with that uid can be about this person."""
        return self.uids is None or uid in self.uids


def sender_of(producer_uid: int, event_type: str, props: bytes) -> int:
    """Returns the uid of the sender of an event."""
    if event_type != REPORT_READ:
        return producer_uid
    try:
        asker = unpack_props(props).get("peer_uid")
    except Malformed:
        return producer_uid
    return asker if type(asker) is int else producer_uid


class Senders:
    """Finds the senders of stored events."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._uids: dict[int, int] = {}
        self._reading: int | None = event_types.find(connection, [REPORT_READ]).get(REPORT_READ)

    def find(self, producer: int, type_id: int, props: bytes) -> int:
        """Returns the uid of the sender of an event, given the rows of its producer and type."""
        if type_id == self._reading:
            return sender_of(self._uid(producer), REPORT_READ, props)
        return self._uid(producer)

    def _uid(self, producer: int) -> int:
        if producer not in self._uids:
            if len(self._uids) >= _PRODUCERS_MAX:
                # The cache is emptied, since clients may have made any number of producers.
                self._uids.clear()
            row = self._connection.execute("SELECT uid FROM producer WHERE id = ?", (producer,))
            (self._uids[producer],) = row.fetchone()
        return self._uids[producer]

    @property
    def reading_type(self) -> int | None:
        """The row of the type `report_read`; None if there is none."""
        return self._reading
