"""Properties are ruled out by their bytes only if they have the id in no spelling and encoding."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logd.storage.mention_bytes import may_have
from logd.storage.mentions import Value, canonical

WIDTHS = {1: (0xCC, 0xD0), 2: (0xCD, 0xD1), 4: (0xCE, 0xD2), 8: (0xCF, 0xD3)}


def encodings(value: Value) -> Iterator[bytes]:
    """All encodings of a value in MessagePack, also those that are longer than they need be."""
    yield msgpack.packb(value)
    if isinstance(value, str):
        text = value.encode()
        yield b"\xda" + struct.pack(">H", len(text)) + text
        yield b"\xdb" + struct.pack(">I", len(text)) + text
        if len(text) < 256:
            yield b"\xd9" + bytes([len(text)]) + text
    elif isinstance(value, int):
        for width, (unsigned, signed) in WIDTHS.items():
            if 0 <= value < 2 ** (8 * width):
                yield bytes([unsigned]) + value.to_bytes(width, "big")
            if -(2 ** (8 * width - 1)) <= value < 2 ** (8 * width - 1):
                yield bytes([signed]) + value.to_bytes(width, "big", signed=True)
    else:
        yield b"\xcb" + struct.pack(">d", value)
        if value != value or (abs(value) < 1e38 and canonical(_short(value)) == canonical(value)):
            yield b"\xca" + struct.pack(">f", value)


def _short(value: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


def spellings(value: Value) -> Iterator[Value]:
    """Values with the same canonical spelling."""
    text = canonical(value)
    candidates: list[Value] = [value, text, f"{text}.0", f"{text}.000"]
    candidates += [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    candidates += [text.replace("K", "\u212a"), text.replace(";", "\u037e")]
    for number in (int, float):
        try:
            candidates.append(number(text))
        except (ValueError, OverflowError):
            continue
    candidates += [-0.0, 0.0, float("nan")]
    for one in candidates:
        is_wide = isinstance(one, int) and not -(2**63) <= one < 2**64
        if canonical(one) == text and not is_wide:
            yield one


IDS = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-300, 70_000)
    | st.floats()
    | st.floats(width=32)
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
    | st.text(st.sampled_from("0123456789.-eK;é"), min_size=1, max_size=6)
)


@given(IDS)
@example("K1")
@example("0")
@example(-0.0)
@example("nan")
@example("inf")
@example(1e17)
@example("x" * 255)
@example(128)
@example(-129)
def test_no_spelling_or_encoding_of_an_id_is_ruled_out(user: Value) -> None:
    check = may_have(str(user))
    for value in {repr(one): one for one in spellings(str(user))}.values():
        for packed in encodings(value):
            assert msgpack.unpackb(packed) == value or value != value
            assert check(b"\x81\xa4user" + packed), (value, packed)
            assert check(b"\x81" + packed + b"\x01") or not isinstance(value, str)


@pytest.mark.parametrize("user", ["4711", "-4711", "anna", "2.5", "300"])
def test_properties_without_the_id_are_ruled_out(user: str) -> None:
    check = may_have(user)
    for other in ("4712", "hanna", "47", 4712, 2.25, 299, -4710, "2.75", "x300", "24711", None):
        assert not check(msgpack.packb({"user": other, "request_id": "6664366ae62c669f95c7d1801"}))
