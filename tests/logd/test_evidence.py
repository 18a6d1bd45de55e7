"""Evidence sheets: which events are on one, how they are proven, and what is signed."""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit import proof, signed_note
from logd.audit.proof import Keys
from logd.audit.signed_note import Verifier
from logd.batch import Batch
from logd.clock import readings
from logd.maintenance import stored_times
from logd.reports import evidence, evidence_events
from logd.reports.context import Context
from logd.reports.parameters import BadParameter, Parameters
from logd.reports.registry import REPORTS
from logd.storage import merkle
from logd_wire.wire import Event
from tests.logd import proven_trail
from tests.logd.evidence_log import HOUR_NS, NOW, Log, events, lines, pages, sheet, tree
from tests.logd.made_up_trail import DAY_NS, Trail
from tests.support.instance import Instance


@pytest.fixture
def log(directory: Path) -> Iterator[Log]:
    made = Log(directory)
    yield made
    made.store.close()


# -- which events ----------------------------------------------------------------------------------


def test_a_sheet_has_each_event_of_the_person_and_the_time_in_the_order_of_storing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_events, "_CHUNK_EVENTS", 9)
    trail = Trail(directory, random.Random(4))
    trail.fill(600)
    connection = trail.store.connection
    for user in ("0", "3", "unknown"):
        for since, until in ((None, None), (5 * DAY_NS, 21 * DAY_NS), (0, 1), (9 * DAY_NS, None)):
            wanted = [
                event_id
                for event_id, event in sorted(trail.stored.items())
                if event.user == user
                and (since or 0) <= event.ts_ns < (10**19 if until is None else until)
            ]
            times = {
                name: ns
                for name, ns in (("since_ns", since), ("until_ns", until))
                if ns is not None
            }
            row = sheet(connection, user=user, **times)
            found = events(connection, user=user, up_to=row["up_to"], limit=7, **times)
            assert [one["id"] for one in found] == wanted
            assert row["events"] == len(wanted)
            leaves = [b64decode(one["leaf"]) for one in found]
            assert lines(row["statement"])["events"] == (
                f"{len(wanted)} {b64encode(tree(leaves)).decode()}"
            )
            for one in found:
                stored = trail.stored[one["id"]]
                assert (one["ts_ns"], one["type"], one["user"]) == (stored.ts_ns, stored.type, user)
                assert one["props"] == msgpack.unpackb(stored.props)
                assert one["stored_ns"] == trail.stored_ns[one["id"]]
    trail.store.close()


def test_pages_have_no_gap_and_no_repeat_while_events_are_stored(log: Log) -> None:
    for number in range(30):
        log.put(NOW + number)
    up_to = sheet(log.store.connection, user="7")["up_to"]
    found = []
    for page in pages(log.store.connection, user="7", up_to=up_to, limit=4):
        found += [row["id"] for row in page.rows]
        log.put(NOW + 5)  # of the same range
    assert found == list(range(1, 31))
    assert sheet(log.store.connection, user="7", up_to=up_to)["events"] == 30


ITEMS: list[tuple[list[str], list[int]]] = [
    ([], [1, 2, 3, 4, 5, 6, 7]),
    (["task=a"], [1]),
    (["task=a", "task_id=a"], [1, 2]),
    (["slug=c&lesson_slug=l"], [3]),
    (["slug=c"], [3, 4]),
    (["quiz=12"], [5]),
    (["quiz=true"], []),
    (["text=a%26b%3Dc"], [6]),
    (["a=1&b=2"], []),
    (["none="], [7]),
]


@pytest.mark.parametrize(("items", "wanted"), ITEMS)
def test_an_item_is_named_by_properties_or_by_a_map_in_them(
    log: Log, items: list[str], wanted: list[int]
) -> None:
    for props in (
        {"task": "a"}, {"view_args": {"task_id": "a"}},
        {"view_args": {"slug": "c", "lesson_slug": "l"}},
        {"view_args": {"slug": "c", "lesson_slug": "k"}}, {"quiz": 12},
        {"text": "a&b=c", "a": "1", "deep": {"b": "2", "deeper": {"task": "a"}}},
        {"none": "", "quiz": True, "list": ["task", "a"]},
    ):  # fmt: skip
        log.put(NOW, **props)
    found = events(log.store.connection, user="7", items=items, up_to=99)
    assert [row["id"] for row in found] == wanted
    assert sheet(log.store.connection, user="7", items=items)["events"] == len(wanted)


@pytest.mark.parametrize("item", ["", "task", "a=1&&b=2", "a=1&b", "&"])
def test_an_item_that_is_no_pair_is_refused(log: Log, item: str) -> None:
    with pytest.raises(BadParameter, match=r"^items: expected name=value"):
        sheet(log.store.connection, user="7", items=[item])


def test_pages_are_bounded_in_events_looked_at_and_in_bytes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        log.put(NOW + number, task="a" if number % 13 == 12 else "b", more="x" * 100)
    monkeypatch.setattr(evidence, "LOOKED_MAX", 10)
    found = list(pages(log.store.connection, user="7", items=["task=a"], up_to=99))
    assert [[row["id"] for row in page.rows] for page in found] == [[], [13], [26], [39], []][
        : len(found)
    ]
    assert len(found) > 3
    monkeypatch.setattr(evidence, "LOOKED_MAX", 10**6)
    monkeypatch.setattr(evidence, "PAGE_PROPS_MAX", 400)
    sizes = [len(page.rows) for page in pages(log.store.connection, user="7", up_to=99)]
    assert set(sizes[:-1]) == {3} and sum(sizes) == 40


@pytest.mark.parametrize("bound", ["SHEET_EVENTS_MAX", "SHEET_BYTES_MAX", "LOOKED_MAX"])
def test_too_many_events_have_no_statement_and_a_time_that_divides_them(
    log: Log, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    for number in range(40):
        log.put(NOW + number * HOUR_NS, text="x" * 96)
    connection = log.store.connection
    whole = sheet(connection, user="7")
    assert (whole["events"], whole["more"], whole["split_ns"]) == (40, False, None)
    monkeypatch.setattr(evidence, bound, 20 * 104 if bound == "SHEET_BYTES_MAX" else 20)
    row = sheet(connection, user="7")
    assert row["more"] and row["statement"] is None and row["events"] <= 21
    asked: list[dict[str, int]] = [{}]
    parts: list[dict[str, Any]] = []
    while asked:
        part = asked.pop()
        row = sheet(connection, user="7", **part)
        if row["more"]:
            asked += [{**part, "until_ns": row["split_ns"]}, {**part, "since_ns": row["split_ns"]}]
        else:
            parts.append(row)
    assert sum(row["events"] for row in parts) == 40 and len(parts) < 6


def test_events_of_one_time_that_are_too_many_cannot_be_divided(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(12):
        log.put(NOW)
    monkeypatch.setattr(evidence, "SHEET_EVENTS_MAX", 5)
    row = sheet(log.store.connection, user="7")
    assert row["more"] and row["split_ns"] is None


# -- proofs ----------------------------------------------------------------------------------------


def test_each_event_is_proven_or_it_says_why_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a trail with batches from before the tree, prunes, a collapse, erasures and redactions."""
    for module in (readings, stored_times):
        monkeypatch.setattr(module, "EARLIEST_NS", 0)
    scene = proven_trail.make(directory, 420, 3, random.Random(2))
    connection = scene.trail.store.connection
    head, keys = scene.head(), scene.keys
    unproven = 0
    seen = []
    for user in map(str, range(6)):
        row = sheet(connection, user=user)
        assert row["batches"] == scene.size
        found = events(connection, user=user, up_to=row["up_to"], size=row["batches"], limit=40)
        seen += [one["id"] for one in found]
        leaves = []
        for one in found:
            leaves.append(b64decode(one["leaf"]))
            if one["proof"] is None:
                assert "redacted" in one["unproven"] and one["id"] not in scene.proofs
                assert merkle.leaf_hash(b64decode(one["data"])) == leaves[-1]
                unproven += 1
                continue
            assert one["unproven"] is None is one["data"]
            text = one["proof"] + signed_note.format(head)
            assert text == scene.proofs[one["id"]]
            assert proof.check_event(text, keys).id == one["id"]
        assert lines(row["statement"])["events"] == (
            f"{len(found)} {b64encode(tree(leaves)).decode()}"
        )
    assert unproven > 0
    assert set(seen) >= {
        event_id for event_id, text in scene.proofs.items() if scene.check(text).user is not None
    }
    scene.trail.store.close()


CHANGES = {
    "props": "UPDATE event SET props = x'81a161a162' WHERE id = 3",
    "user": "UPDATE event SET user = '7' WHERE id = 3",
    "time": "UPDATE event SET ts_ns = ts_ns + 1 WHERE id = 3",
    "salt": "UPDATE event SET salt = zeroblob(16) WHERE id = 3",
    "the batch": "UPDATE batch SET stored_ns = stored_ns + 1 WHERE id = 3",
    "the batch's events": "UPDATE batch SET leaves_hash = zeroblob(32) WHERE id = 3",
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_an_event_that_is_not_what_was_stored_has_no_proof_and_says_so(
    log: Log, change: str
) -> None:
    for number in range(6):
        log.put(NOW + number, user="8" if change == "user" and number == 2 else "7")
    log.store.connection.execute(CHANGES[change])
    found = events(log.store.connection, user="7", up_to=99, size=6)
    assert len(found) == 6
    for one in found:
        assert (one["proof"] is None) is (one["id"] == 3), one
    assert found[2]["unproven"].startswith("CHANGED: ")


def test_a_proof_that_is_too_long_for_a_page_is_left_out_and_named(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.put(NOW)
    monkeypatch.setattr(evidence, "PROOF_CHARS_MAX", 10)
    (one,) = events(log.store.connection, user="7", up_to=9, size=1)
    assert one["proof"] is None and "`logd prove 1` makes it" in one["unproven"]


def test_pages_with_proofs_are_bounded_in_bytes(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        log.put(NOW + number)
    monkeypatch.setattr(evidence, "PAGE_PROOFS_MAX", 1500)
    sizes = [len(page.rows) for page in pages(log.store.connection, user="7", up_to=99, size=9)]
    assert max(sizes) < 5 and sum(sizes) == 9


def test_the_statement_and_the_head_are_signed_by_the_trails_key(instance: Instance) -> None:
    store = instance.open_store()
    producer, batch = store.producer(1000, 7), Batch(10, 10**6)
    producer.taken = 1
    batch.add(producer, 1, Event("page_view", NOW, "7\n", b"\x80"), 10)
    store.commit(batch, NOW)
    parameters = Parameters(
        {"user": "7\n", "items": ['a="\n'], "since_ns": 5, "up_to": 10**9},
        Context(config=instance.config),
    )
    (row,) = REPORTS["evidence"].run(store.connection, parameters).rows
    key = Verifier.from_vkey(row["public_key"])
    keys = Keys(lambda _origin: key)
    assert row["unsigned"] is None
    assert row["public_key"] == instance.cli("checkpoint", "--public-key").strip()
    head = proof.check_head(signed_note.parse(row["head"]), keys).checkpoint
    assert (head.size, head.root.hex()) == (row["batches"], row["root"])
    note = signed_note.parse(row["statement"])
    assert key.verify(note) is not None
    assert lines(row["statement"]) == {
        "trail": head.origin,
        "head": f"{head.size} {b64encode(head.root).decode()}",
        "user": '"7\\n"',
        "items": '["a=\\"\\n"]',
        "since": "5",
        "until": "-",
        "up_to": str(row["up_to"]),
        "made": str(row["made_ns"]),
        "events": lines(row["statement"])["events"],
        "caveats": (
            f"{len(row['caveats'])} "
            + b64encode(
                tree([merkle.leaf_hash(caveat.encode()) for caveat in row["caveats"]])
            ).decode()
        ),
    }
    # No statement can be taken for a head of the trail.
    with pytest.raises((proof.NotAProof, proof.Refuted)):
        proof.check_head(note, keys)
    store.close()


@pytest.mark.parametrize("how", ["none", "open to others"])
def test_without_a_signing_key_a_sheet_is_unsigned_and_says_why(
    instance: Instance, how: str
) -> None:
    instance.open_store().close()
    if how == "none":
        instance.config.signing_key_file.unlink()
    else:
        instance.config.signing_key_file.chmod(0o644)
    with instance.database(read_only=True) as connection:
        (row,) = (
            REPORTS["evidence"]
            .run(connection, Parameters({"user": "7"}, Context(config=instance.config)))
            .rows
        )
    assert row["public_key"] is None and "—" not in row["statement"] + row["head"]
    assert ("logd genkey" if how == "none" else "logd-signing.key") in row["unsigned"]
