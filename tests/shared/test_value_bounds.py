"""The work that a value can cause is bounded: what is too large is refused before it is read."""

from __future__ import annotations

import tracemalloc
import types
from typing import Any

import msgpack
import numpy as np
import pytest

from logd_client import payload as payload_module
from logd_client.payload import event_payload
from logd_client.values import Conversion, TooLarge, plain_props
from logd_wire import schema as schema_module
from logd_wire.schema import PAYLOAD_BYTES_MAX, Malformed
from logd_wire.wire import unpack_payload, unpack_props
from tests.shared.sample_values import HUGE, Loud, Role, stored


@pytest.mark.parametrize("what", HUGE)
@pytest.mark.parametrize("within", [False, True])
def test_what_is_too_large_is_refused_before_it_is_looked_through_or_packed(
    monkeypatch: pytest.MonkeyPatch, what: str, within: bool
) -> None:
    visited = packed = 0
    visit = Conversion.value

    def counted(self: Conversion, value: Any, depth_left: int) -> Any:
        nonlocal visited
        visited += 1
        return visit(self, value, depth_left)

    def pack(value: object) -> bytes:
        nonlocal packed
        made: bytes = msgpack.packb(value)
        packed += len(made)
        return made

    monkeypatch.setattr(Conversion, "value", counted)
    monkeypatch.setattr(payload_module, "_spare_pack", pack)
    value = HUGE[what]
    props = {"a": [value]} if within else value if type(value) is dict else {"a": value, "b": 1}
    with pytest.raises(Malformed, match="too large"):
        event_payload("page_view", 1, None, props, strict=False)
    assert visited <= PAYLOAD_BYTES_MAX
    assert packed <= 2 * PAYLOAD_BYTES_MAX


class _Looked(set[str]):
    """A set that lists what is looked up in it: that reads all of a text that is new."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0

    def __contains__(self, text: object) -> bool:
        self.longest = max(self.longest, len(str(text)))
        return super().__contains__(text)


def test_a_type_that_is_too_long_is_refused_before_it_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = _Looked()
    monkeypatch.setattr(payload_module, "_known_types", known)
    monkeypatch.setattr(schema_module, "_known_types", known)
    event_payload("page_view", 1, None, None, strict=False)
    with pytest.raises(Malformed, match="event type"):
        event_payload("x" * 10**6, 1, None, None, strict=False)
    assert known.longest == len("page_view")


class _Unequal(str):
    """A key of the caller's own that cannot be compared."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("compared")


def test_a_key_that_raises_in_a_look_up_is_logged_as_its_text() -> None:
    event_payload("page_view", 1, None, {"path": "/"}, strict=False)
    payload = event_payload("page_view", 1, None, {_Unequal("path"): "/"}, strict=False)
    assert unpack_props(unpack_payload(payload).props) == {"path": "/"}


def test_keys_are_remembered_up_to_a_number_and_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()
    monkeypatch.setattr(payload_module, "_known_keys", known)
    monkeypatch.setattr(payload_module, "_KNOWN_KEYS_MAX", 3)
    props = {"x" * 65: 1, "y" * 64: 2, "a": 3, "b": 4, "c": 5}
    for _ in range(2):
        payload = event_payload("page_view", 1, None, props, strict=False)
        assert unpack_props(unpack_payload(payload).props) == props
    assert known == {"y" * 64, "a", "b"}


@pytest.mark.parametrize("key", [1, b"path", None, Role.STUDENT])
def test_a_key_that_is_not_plain_text_is_not_remembered(
    key: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: set[str] = set()
    monkeypatch.setattr(payload_module, "_known_keys", known)
    payload = event_payload("page_view", 1, None, {key: 1}, strict=False)
    assert all(type(name) is str for name in unpack_props(unpack_payload(payload).props))
    assert known == set()


def test_keys_of_a_mapping_are_measured_before_any_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converted: list[object] = []
    visit = Conversion.value

    def noted(self: Conversion, value: Any, depth_left: int) -> Any:
        converted.append(value)
        return visit(self, value, depth_left)

    monkeypatch.setattr(Conversion, "value", noted)
    keys = types.MappingProxyType({1: 1, "k" * (PAYLOAD_BYTES_MAX + 1): 2})
    with pytest.raises(TooLarge):
        plain_props(keys)
    assert not converted


def test_a_record_of_numpy_that_is_too_large_is_not_copied() -> None:
    record = np.zeros(1, dtype="V10000000")[0]
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            plain_props({"a": record})
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10**6


def test_the_largest_text_is_taken_and_a_byte_more_is_not() -> None:
    room = PAYLOAD_BYTES_MAX - len(event_payload("a", 1, None, {"v": "x" * 1000}, False)) + 1000
    for value in ("x", Loud("x")):
        assert len(event_payload("a", 1, None, {"v": value * room}, False)) == PAYLOAD_BYTES_MAX
        with pytest.raises(Malformed, match="too large"):
            event_payload("a", 1, None, {"v": value * (room + 1)}, False)


def test_as_many_values_as_bytes_are_taken() -> None:
    assert len(stored([1] * 32_000)) == 32_000
    with pytest.raises(TooLarge):
        plain_props({"a": [[1] * 20_000, [1] * 20_000]})
