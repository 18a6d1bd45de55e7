"""Pins the hashed bytes: a change would make every stored trail look tampered with."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import msgpack

from logd.storage import batch_hash, hash_chain, merkle


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def packed(*values: object) -> bytes:
    data: bytes = msgpack.packb(values)
    return data


def leaf(data: bytes) -> bytes:
    return sha256(b"\x00" + data)


def test_every_hash_is_over_these_bytes_and_no_others() -> None:
    salt, props, key = bytes(range(16)), b"\x81\xa1a\x01", "0123456789abcdef"
    event = 3, key, 5, 1_700_000_000_000_000_000, "quiz_submitted", "7", props
    assert batch_hash.event_data(salt, *event) == salt + packed(*event)
    nobody = 3, key, 5, 0, "page_view", None, b""
    assert batch_hash.event_data(salt, *nobody) == salt + packed(*nobody)
    for last in (4, None):
        loss = key, 1, last, "outbox damaged"
        assert batch_hash.loss_data(*loss) == packed("loss", *loss)
    assert merkle.leaf_hash(b"ab") == leaf(b"ab")
    assert merkle.node_hash(b"left", b"right") == sha256(b"\x01leftright")
    numbers = f"{b64encode(sha256(b'root')).decode()}\n"
    losses = [leaf(b"one"), leaf(b"other")]
    both = b64encode(sha256(b"\x01" + losses[0] + losses[1])).decode()
    assert batch_hash.entry(1, 2, 3, 4, sha256(b"root"), losses) == (
        f"logd/batch@v1\n1 2 3 4\n{numbers}2 {both}\n".encode()
    )
    nothing = b64encode(sha256(b"")).decode()
    assert batch_hash.entry(1, 2, 3, 4, sha256(b"root"), []) == (
        f"logd/batch@v1\n1 2 3 4\n{numbers}0 {nothing}\n".encode()
    )


def test_the_former_chain_is_over_these_bytes_and_no_others() -> None:
    assert hash_chain.plain(b"data") == sha256(b"data")
    assert hash_chain.combine([b"a", b"bc"]) == sha256(b"abc")
    linked = hash_chain.link(b"previous", 1, 2, 3, 4, b"leaves", b"losses")
    assert linked == sha256(b"previous" + packed(1, 2, 3, 4) + b"leaves" + b"losses")
    hashes = sha256(b"leaves"), sha256(b"link")
    lines = "".join(f"{b64encode(digest).decode()}\n" for digest in hashes)
    assert batch_hash.chained_entry(1, 2, 3, 4, *hashes) == (
        f"logd/chained-batch@v1\n1 2 3 4\n{lines}".encode()
    )


def test_a_removal_is_over_its_runs_and_its_redactions_whichever_came_first() -> None:
    made = []
    for runs_first in (True, False):
        removal = batch_hash.Removal()
        for add_runs in (runs_first, not runs_first):
            if add_runs:
                removal.add_run(1, 3)
                removal.add_run(7, 7)
            else:
                removal.add_redaction(5, b"leaf")
                removal.add_redaction(6, b"other")
        assert (removal.events, removal.redactions) == (4, 2)
        made.append(removal.hash(9, "prune"))
    runs = sha256(packed(1, 3) + packed(7, 7))
    redactions = sha256(packed(5, b"leaf") + packed(6, b"other"))
    assert made == [sha256(packed("removal", 9, "prune") + runs + redactions)] * 2


def test_salts_are_random_and_of_their_length() -> None:
    salts = batch_hash.new_salts(3)
    assert [len(salt) for salt in salts] == [batch_hash.SALT_BYTES] * 3
    assert len(set(salts)) == 3
    assert batch_hash.new_salts(0) == []
