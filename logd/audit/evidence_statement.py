"""The statement of an evidence sheet: what is on the sheet, as the text of a signed note (pure).

    logd/evidence@v1
    trail logd/9f1c00112233aabb
    head 811 X4X+3PQl...=              a head of the trail: its batches and the root of their tree
    user "7"                           whose events, as JSON
    items ["quiz=q1&slug=python"]      about which items, as JSON; [] for all events
    since 1772323200000000000          from this time on, claimed by the events; - for all
    until -                            before this time
    up_to 20417                        of the events up to this one
    made 1772409600000000000           when, by logd's clock
    events 63 QmFz...=                 their number, and the root of the tree of their leaves
    caveats 1 c2Vl...=                    what may be missing: the number of lines, and their root

Both roots are those of RFC 9162: over the events' data as in a proof (`logd.audit.proof`), in the
order of storing, and over the lines of caveats. So whoever has the statement notices an event that
was left out, changed or moved since. The trail's key signs it like a head. The first line is no
trail's name, so that no statement can be taken for a head.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from logd.audit.checkpoint import Checkpoint
from logd.audit.signed_note import encode_base64
from logd.storage import merkle

TITLE = "logd/evidence@v1"


@dataclass(frozen=True)
class Statement:
    """What an evidence sheet has, and of which trail."""

    head: Checkpoint
    user: str
    items: Sequence[str]
    since_ns: int | None
    until_ns: int | None
    up_to: int
    made_ns: int
    events: int
    events_root: bytes
    caveats: Sequence[str]


def caveat_line(caveat: object) -> str:
    """Returns a caveat as the one line of JSON that the statement covers."""
    return json.dumps(caveat, sort_keys=True, separators=(",", ":"))


def format(statement: Statement) -> str:
    """Returns the statement as the text of a note."""
    head = statement.head
    caveats_root = merkle.root([merkle.leaf_hash(line.encode()) for line in statement.caveats])
    lines = (
        TITLE,
        f"trail {head.origin}",
        f"head {head.size} {encode_base64(head.root)}",
        f"user {json.dumps(statement.user)}",
        f"items {json.dumps(list(statement.items))}",
        f"since {_time(statement.since_ns)}",
        f"until {_time(statement.until_ns)}",
        f"up_to {statement.up_to}",
        f"made {statement.made_ns}",
        f"events {statement.events} {encode_base64(statement.events_root)}",
        f"caveats {len(statement.caveats)} {encode_base64(caveats_root)}",
    )
    return "".join(f"{line}\n" for line in lines)


def _time(ts_ns: int | None) -> str:
    return "-" if ts_ns is None else str(ts_ns)
