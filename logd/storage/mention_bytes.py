"""Rules out, by their bytes, packed properties that cannot name a person (pure).

Most events do not have the id at all, in no place and in no spelling. To see that in their bytes
takes a small part of the time of unpacking them, which counts where all events are searched.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from logd.storage.mentions import NORMAL_OF_ANOTHER, canonical

MayHave = Callable[[bytes], bool]


def may_have(user: str) -> MayHave:
    """Returns a check that is true for all packed properties that have the id as some value.

    It is true for some others, too. The values are those that `canonical` makes the id: texts,
    whole numbers and floats, in any of the encodings that MessagePack has for them.
    """
    wanted = canonical(user)
    number = _float(wanted)
    if (
        not wanted.isascii()
        or not NORMAL_OF_ANOTHER.isdisjoint(wanted)
        or (number is not None and not math.isfinite(number))
    ):
        return lambda _props: True
    forms = _text_forms(wanted.encode()) | _whole_forms(wanted)
    if number is not None:
        forms |= _float_forms(number)

    def check(props: bytes) -> bool:
        for form in forms:  # noqa: SIM110 - a generator would take three times as long
            if form in props:
                return True
        return False

    return check


def _text_forms(text: bytes) -> set[bytes]:
    """Returns what the encodings of a text have in common: the length's last byte, and the text.

    Another spelling of a whole number begins with it and a point.
    """
    forms = {bytes([len(text) & 0xFF]) + text, text + b".0"}
    return forms | ({bytes([0xA0 | len(text)]) + text} if len(text) < 32 else set())


def _whole_forms(wanted: str) -> set[bytes]:
    """Returns the last bytes of a whole number: its encodings differ in what is before them."""
    try:
        number = int(wanted)
    except ValueError:
        return set()
    if canonical(number) != wanted or not -(2**63) <= number < 2**64:
        return set()
    size = next(size for size in (1, 2, 4, 8) if -(2 ** (8 * size - 1)) <= number < 2 ** (8 * size))
    return {number.to_bytes(size, "big", signed=number < 0)}


def _float(wanted: str) -> float | None:
    """Returns the float of which the text is the canonical spelling; None if there is none."""
    try:
        number = float(wanted)
    except (ValueError, OverflowError):
        return None
    return number if canonical(number) == wanted else None


def _float_forms(number: float) -> set[bytes]:
    forms = {struct.pack(">d", number)}
    if number == 0:
        forms |= {struct.pack(">d", -0.0), struct.pack(">f", -0.0)}
    try:
        short = struct.pack(">f", number)
    except OverflowError:
        return forms
    return forms | {short} if struct.unpack(">f", short)[0] == number else forms
