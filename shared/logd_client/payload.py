"""Checks and packs an event before the client's guard is taken, with bounded work.

Reading the caller's values may take a moment and run the caller's code, which may itself emit
events. The packed bytes contain nothing of a producer, so they stay valid after a fork, a close, or
a change of the producer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from logd_client.values import plain_props, plain_text
from logd_wire.schema import (
    EVENT_TYPE_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    USER_CHARS_SURE,
    Malformed,
    check_event_type,
    check_user,
    type_name,
)
from logd_wire.wire import NO_PROPS, pack_payload, too_large

# A property takes at least two packed bytes, so more than this cannot fit.
_FLAT_MAX = PAYLOAD_BYTES_MAX // 2
# Types and keys that were found valid, looked up without a call; and the most that are kept.
_known_types: set[str] = set()
_KNOWN_TYPES_MAX = 1000
_known_keys: set[str] = set()
_KNOWN_KEYS_MAX = 1000
_KNOWN_KEY_CHARS_MAX = 64
# The pack method of an idle msgpack.Packer, or None while one is in use.
# A signal handler, a finalizer or another thread that packs meanwhile makes a new one,
# and so does the call after a failure or an interruption.
_spare_pack: Callable[[object], bytes] | None = None


def event_payload(
    event_type: str,
    ts_ns: int,
    user: str | int | None,
    props: object,
    strict: bool,
) -> bytes:
    """Packs an event whose time is checked already. Raises Malformed if another field is invalid.

    A value that an event cannot carry is replaced by its plain form, or marked; with `strict` one
    that would be marked raises.
    """
    global _spare_pack
    # The length is checked first, since looking up a type hashes all of it.
    if (
        type(event_type) is not str
        or len(event_type) > EVENT_TYPE_CHARS_MAX
        or event_type not in _known_types
    ):
        event_type = plain_type(event_type)
    if user is not None and not (
        # Most users are valid by this condition, which saves a call of `check_user`.
        type(user) is str and 0 < len(user) <= USER_CHARS_SURE and user.isprintable()
    ):
        user = check_user(user)
    own: dict[str, Any] | None = None
    is_flat = False
    if type(props) is dict and len(props) <= _FLAT_MAX:
        # Most properties are flat and plain. They are copied, since another thread may change them.
        own = props.copy()
        try:
            chars = 0 if _known_keys.issuperset(own) else _key_chars(own)
        except Exception:  # noqa: BLE001 - of a key's own __eq__
            chars = PAYLOAD_BYTES_MAX + 1
        for value in own.values():
            kind = type(value)
            if kind is str:
                chars += len(value)
            elif not (kind is int or kind is float or value is None or kind is bool):
                break
        else:
            is_flat = chars <= PAYLOAD_BYTES_MAX
    if not is_flat and props is not None:
        own = plain_props(props, strict)
    # This is one statement without a call, so that no other thread or
    # signal handler runs in the middle of it: see `logd_wire.forks`.
    pack, _spare_pack = _spare_pack, None
    if pack is None:
        pack = msgpack.Packer().pack
    try:
        # This does the same as `wire.pack_payload`, and saves its call.
        payload = pack((event_type, ts_ns, user, pack(own) if own else NO_PROPS))
    except (ValueError, OverflowError) as error:
        if not is_flat:
            raise Malformed(f"the event cannot be packed: {error}") from error
        # msgpack refuses text with lone surrogates and numbers of over 64 bits: convert them.
        plain = plain_props(own, strict)
        return pack_payload(msgpack.Packer(), event_type, ts_ns, user, plain)
    _spare_pack = pack
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise too_large(len(payload))
    return payload


def _key_chars(props: dict[str, Any]) -> int:
    """Counts the characters of the keys; if one is not plain text, returns more than allowed."""
    chars = 0
    for key in props:
        if type(key) is not str:
            return PAYLOAD_BYTES_MAX + 1
        chars += len(key)
        if len(key) <= _KNOWN_KEY_CHARS_MAX and len(_known_keys) < _KNOWN_KEYS_MAX:
            _known_keys.add(key)
    return chars


def plain_type(event_type: object) -> str:
    """Checks the event's type; returns it as plain text, also if it is an enumeration's member."""
    plain = plain_text(event_type)
    if type(plain) is not str:  # isinstance could run code of the value's `__class__`
        raise Malformed(f"event type: a value of type {type_name(type(plain))}; expected text")
    checked = check_event_type(plain)
    if len(_known_types) < _KNOWN_TYPES_MAX:
        _known_types.add(checked)
    return checked
