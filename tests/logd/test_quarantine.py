"""`logd quarantine`: what was refused, by whom and why, with untrusted bytes escaped."""

from __future__ import annotations

import json

import pytest

from logd.batch import Batch
from tests.support.instance import Instance

NASTY = b'\x1b[2J\x00"\\\x9b\xff' + b"x" * 100


@pytest.fixture
def refused(instance: Instance) -> Instance:
    """Five refusals, of which the newest four are kept; one of them used up a sequence."""
    store = instance.open_store(quarantine_rows_max=4)
    batch = Batch(100, 10**6)
    batch.add_quarantine(1, 11, "gone", b"")
    batch.add_quarantine(33, 20, "other version: 9, this daemon speaks 1", NASTY)
    batch.add_quarantine(33, 21, "other version: \x1b[31m", b"LGD\x09")
    producer = store.producer(1000, 7)
    producer.taken = 1
    batch.add_quarantine(1000, 30, "malformed: event type 'X'", b"\x93", producer, 1)
    batch.add_quarantine(33, 20, "not a datagram of this protocol", b"")
    store.commit(batch, 10**18)
    store.close()
    return instance


def test_each_refusal_is_a_line_with_sender_reason_and_a_printable_excerpt(
    refused: Instance,
) -> None:
    lines = refused.cli("quarantine").splitlines()
    assert lines[-1] == "5 refused, of which 4 are kept"
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)
    newest, malformed, _coloured, nasty = lines[1:5]
    assert newest.endswith("not a datagram of this protocol  -")
    assert "1000/30 1000-0000000000000007 #1" in malformed and '"\\x93"' in malformed
    assert '"\\x1b[2J\\x00\\x22\\x5c\\x9b\\xffxxx' in nasty and nasty.endswith('x"...')
    assert "33/20" in nasty and "2001-09-09" in nasty


def test_programs_get_every_field_and_the_whole_excerpt(refused: Instance) -> None:
    rows = [
        json.loads(line) for line in refused.cli("quarantine", "--format", "jsonl").splitlines()
    ]
    assert [row["id"] for row in rows] == [5, 4, 3, 2]
    assert bytes.fromhex(rows[3]["excerpt"]) == NASTY
    assert set(rows[0]) == {
        "id", "detected_ns", "detected_time", "uid", "pid",
        "reason", "producer", "sequence", "bytes", "excerpt",
    }  # fmt: skip
    (newest,) = refused.cli("quarantine", "--format", "jsonl", "--limit", "1").splitlines()
    assert json.loads(newest) == rows[0]


def test_the_summary_is_by_reason_and_user_without_what_a_reason_quotes(
    refused: Instance,
) -> None:
    lines = refused.cli("quarantine", "--summary", "--format", "jsonl").splitlines()
    rows = [json.loads(line) for line in lines]
    names = ("reason", "uid", "rows", "events", "pids")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("other version", 33, 2, 0, 2),
        ("malformed", 1000, 1, 1, 1),
        ("not a datagram of this protocol", 33, 1, 0, 1),
    ]
    assert {row["last_ns"] for row in rows} == {10**18}
    table = refused.cli("quarantine", "--summary").splitlines()
    assert len(table) == 5 and table[1].endswith("other version")
    assert len(refused.cli("quarantine", "--summary", "--limit", "1").splitlines()) == 3


def test_an_empty_quarantine_is_reported_as_empty(instance: Instance) -> None:
    instance.open_store().close()
    assert "0 refused" in instance.cli("quarantine")
    assert instance.cli("quarantine", "--format", "jsonl") == ""


def test_a_summary_has_every_sender_however_many_there_are(instance: Instance) -> None:
    store = instance.open_store(quarantine_rows_max=2000)
    batch = Batch(2000, 10**6)
    for uid in range(1005):
        batch.add_quarantine(uid, 1, "malformed: it", b"")
    store.commit(batch, 10**18)
    store.close()
    lines = instance.cli("quarantine", "--summary", "--format", "jsonl").splitlines()
    assert {json.loads(line)["uid"] for line in lines} == set(range(1005))
