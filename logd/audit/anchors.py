"""Anchors: the trail's head as the daemon logged it, kept outside the reach of the database's key.

    anchor batch=812 events=20417 root=5f85efdc... trail=9f1c... signature=t1D7wlFf...

Whoever has the key can cut off the trail's end, rebuild its tree, or put an older copy in its
place, and the result verifies. Anchors logged meanwhile, in the journal or on another machine, no
longer match it (`logd.audit.anchor_comparison`). The id of the trail, which older anchors lack,
tells a rebuilt trail from another one. The signature, if there is a key for it, is that of the
head's checkpoint (`logd.audit.head_signer`). Anchors from before there was a tree have `head=`, the
hash of the batch in the chain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from logd.audit.signed_note import KEY_ID_BYTES, decode_base64, encode_base64
from logd.render import format_time
from logd.storage.tree_head import Head

# An anchor is logged at least this often, so that every day of a log has anchors.
REPEAT_S = 43_200.0

_ANCHOR = re.compile(
    r"(?:\A|[\s:>])anchor batch=(\d{1,18}) events=(\d{1,18}) (head|root)=([0-9a-f]{64})"
    # Longer signatures than those of today are read, since a newer daemon may have written them.
    r"(?: trail=([0-9a-f]{16})(?: signature=([A-Za-z0-9+/]{4,8192}={0,2}))?)?\s*\Z"
)


def format_anchor(head: Head, trail_id: str | None = None, signature: bytes | None = None) -> str:
    """Returns the anchor as the daemon logs it; its signature begins with the id of the key."""
    text = f"anchor batch={head.batch} events={head.events} root={head.hash.hex()}"
    if trail_id is not None:
        text += f" trail={trail_id}"
    return text if signature is None else f"{text} signature={encode_base64(signature)}"


@dataclass(frozen=True)
class Anchor:
    """A head as it was logged, and the time of logging in nanoseconds since 1970, None if unknown.

    `trail_id` is None in anchors from before trails had an id, and `signature` in anchors that were
    not signed. `chained` says that the hash is of the former hash chain.
    """

    head: Head
    anchored_ns: int | None = None
    trail_id: str | None = None
    chained: bool = False
    signature: bytes | None = None  # the id of the key, then the signature of the head's checkpoint

    def __str__(self) -> str:
        time = f", anchored {format_time(self.anchored_ns)}" if self.anchored_ns is not None else ""
        return f"batch {self.head.batch} ({self.head.events} events{time})"


def parse(text: str, anchored_ns: int | None = None) -> Anchor | None:
    """Returns the anchor at the end of a log line; None if there is none."""
    found = _ANCHOR.search(text)
    if found is None:
        return None
    batch, events, form, digest, trail_id, signed = found.groups()
    head = Head(int(batch), int(events), bytes.fromhex(digest))
    try:
        signature = decode_base64(signed or "")
    except ValueError:  # the signature is of no known form, and nothing follows from it
        signature = b""
    return Anchor(
        head,
        anchored_ns,
        trail_id,
        form == "head",
        signature if len(signature) > KEY_ID_BYTES else None,
    )


class AnchorSchedule:
    """Decides when the daemon logs an anchor: at most once in `interval_s` seconds.

    An anchor is due if the head has moved or the last anchor is REPEAT_S seconds old. With an
    interval of 0 no anchor is ever due. Times are of the monotonic clock.

    The head of the last complete tile is logged as well if the trail has passed that tile since the
    last anchor: some of the heads in between cannot be computed any more once their events are
    removed.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._logged: Head | None = None
        self._due_s = self._repeat_due_s = 0.0

    def set_interval(self, interval_s: float) -> None:
        """Changes the interval between anchors from now on."""
        if interval_s != self._interval_s:
            self._interval_s, self._due_s = interval_s, 0.0

    def due_heads(
        self, head: Head, lasting: Head | None, now_s: float, *, now: bool = False
    ) -> list[Head]:
        """Returns the heads to log if an anchor is due; with `now`, whenever the head has moved.

        `lasting` is the head of the last complete tile, if it is known.
        """
        if self._interval_s == 0 or not (now or now_s >= self._due_s):
            return []
        if head == self._logged and now_s < self._repeat_due_s:
            return []
        before = -1 if self._logged is None else self._logged.batch
        self._logged, self._due_s = head, now_s + self._interval_s
        self._repeat_due_s = now_s + REPEAT_S
        return (
            [head]
            if lasting is None or not before < lasting.batch < head.batch
            else [lasting, head]
        )
