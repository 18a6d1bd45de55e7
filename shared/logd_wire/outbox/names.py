"""Names of outbox files: the user and the producer that a file belongs to."""

from __future__ import annotations

SUFFIX = ".outbox"
TEMPORARY_PREFIX = ".new-"
UID_MAX = 2**32 - 1


def outbox_name(uid: int, producer_id: int) -> str:
    """Returns the name of an outbox file, from user and producer. The daemon checks both."""
    return f"{uid}-{producer_id:016x}{SUFFIX}"


def parse_name(name: str) -> tuple[int, int] | None:
    """Parses uid and producer id from a file's name; None if it is not an outbox's."""
    stem, dot, suffix = name.partition(".")
    uid, dash, producer = stem.partition("-")
    if dot + suffix != SUFFIX or not dash or len(producer) != 16:
        return None
    try:
        parsed = int(uid), int(producer, 16)
    except ValueError:
        return None
    return parsed if parsed[0] <= UID_MAX and outbox_name(*parsed) == name else None
