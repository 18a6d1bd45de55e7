"""Pins the hashed bytes: a change would make every stored trail look tampered with."""

from __future__ import annotations

import hashlib

import msgpack

from logd.storage import hash_chain


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def packed(*values: object) -> bytes:
    data: bytes = msgpack.packb(values)
    return data


def test_every_hash_is_over_these_bytes_and_no_others() -> None:
    salt, props, key = bytes(range(16)), b"\x81\xa1a\x01", "0123456789abcdef"
    event = 3, key, 5, 1_700_000_000_000_000_000, "quiz_submitted", "7", props
    assert hash_chain.leaf(salt, *event) == sha256(salt + packed(*event))
    nobody = 3, key, 5, 0, "page_view", None, b""
    assert hash_chain.leaf(salt, *nobody) == sha256(salt + packed(*nobody))
    for last in (4, None):
        loss = key, 1, last, "outbox damaged"
        assert hash_chain.loss_leaf(*loss) == sha256(packed("loss", *loss))
    assert hash_chain.combine([b"a", b"bc"]) == sha256(b"abc")
    linked = hash_chain.link(b"previous", 1, 2, 3, 4, b"leaves", b"losses")
    assert linked == sha256(b"previous" + packed(1, 2, 3, 4) + b"leaves" + b"losses")


def test_a_removal_is_over_its_runs_and_its_redactions_whichever_came_first() -> None:
    made = []
    for runs_first in (True, False):
        removal = hash_chain.Removal()
        for add_runs in (runs_first, not runs_first):
            if add_runs:
                removal.add_run(1, 3)
                removal.add_run(7, 7)
            else:
                removal.add_redaction(5, b"leaf")
                removal.add_redaction(6, b"other")
        assert removal.events == 4
        made.append(removal.hash(9, "prune"))
    runs = sha256(packed(1, 3) + packed(7, 7))
    redactions = sha256(packed(5, b"leaf") + packed(6, b"other"))
    assert made == [sha256(packed("removal", 9, "prune") + runs + redactions)] * 2


def test_salts_are_random_and_of_their_length() -> None:
    salts = hash_chain.new_salts(3)
    assert [len(salt) for salt in salts] == [hash_chain.SALT_BYTES] * 3
    assert len(set(salts)) == 3
    assert hash_chain.new_salts(0) == []
