"""Counts what a `forget` would erase."""

from __future__ import annotations

from functools import lru_cache

from logd.storage.database import Connection, question_marks
from logd.storage.mentions import PersonKeys
from logd.storage.senders import Person, Senders
from logd_wire.schema import Malformed


def preview(connection: Connection, person: Person, keys: PersonKeys) -> dict[str, int]:
    """Counts what would be erased: `events`, `redacted` events of others, `quarantine` excerpts."""
    is_named = lru_cache(10_000)(person.is_named)
    senders = Senders(connection)
    events = redacted = 0
    for producer, type_id, user, props in connection.execute(
        "SELECT producer, type, user, props FROM event"
    ):
        theirs = user is not None and is_named(user)
        if not (theirs or keys.may_name(props)) or not person.is_of(
            senders.find(producer, type_id, props)
        ):
            continue
        events += theirs
        try:
            redacted += not theirs and keys.mentions(props, is_named)
        except Malformed:
            continue  # In invalid properties no mention is counted: `verify` reports them.
    of, uids = "1", person.uids or ()
    if person.uids is not None:
        of = f"uid IN ({question_marks(person.uids)})"
    (excerpts,) = connection.execute(
        f"SELECT count(*) FROM quarantine WHERE (excerpt <> x'' OR instr(reason, ':')) AND {of}",  # noqa: S608 - question marks only
        uids,
    ).fetchone()
    return {"events": events, "redacted": redacted, "quarantine": excerpts}
