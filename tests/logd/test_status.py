"""What `logd status` says of losses: whose, from where to where, why and when; and that none is."""

from __future__ import annotations

import json
import re
import secrets
import socket
from typing import Any

from logd import status
from logd.instance import STATUS_LOSSES_MAX
from logd.reports import CAUSES
from shared.wire import datagram_head, encode_record, producer_seed
from tests.support import Instance, until
from tests.tally import Tally

NS = 10**9
ZEROS = {"entries": 0, "events": 0, "unknown_extent": 0}
EMPTY: dict[str, Any] = {
    "running_pid": None,
    "trouble": None,
    **dict.fromkeys(
        (
            "stored", "commits", "pending", "outboxes", "outboxes_unreadable", "lost",
            "unknown_extent", "quarantined", "quarantined_events", "refused_by_clients",
            "duplicates_ignored", "producers", "schema", "losses_entries", "outboxes_bytes",
        ),
        0,
    ),
    "last_stored_ns": None,
    "losses": [],
    "outboxes_by_user": [],
    "quarantine_senders": [],
    "losses_by_cause": {cause: dict(ZEROS) for cause in CAUSES},
    "config": "/srv/logd/logd.toml",
}  # fmt: skip


def shown(**state: Any) -> list[str]:
    return list(status.lines(EMPTY | state))


def loss(**fields: Any) -> dict[str, Any]:
    return {
        "id": 1, "producer": "1000-00000000000000ff", "first": 10, "last": 14, "events": 5,
        "cause": "not received", "detected_ns": 1_762_178_700 * NS, **fields,
    }  # fmt: skip


def test_that_nothing_is_lost_is_said_and_not_left_out() -> None:
    lines = shown()
    assert "lost         0 events; losses of unknown extent: 0" in lines
    assert "ledger       0 entries" in lines
    assert not any("by cause" in line for line in lines)


def test_senders_of_quarantined_datagrams_and_users_with_too_many_outboxes_are_named() -> None:
    lines = shown(
        quarantine_senders=[
            {"uid": 65534, "pid": 4711, "rows": 2000, "newest_reason": "truncated \x1b record"}
        ],
        outboxes_by_user=[
            {"uid": 1001, "files": 2, "bytes": 140_000, "surplus": False},
            {"uid": 65534, "files": 3000, "bytes": 210_000_000, "surplus": True},
        ],
    )
    (sender,) = [line for line in lines if "pid 4711" in line]
    assert "of user 65534, pid 4711: 2,000, the newest: truncated \\x1b record" in sender
    (user,) = [line for line in lines if "3,000" in line]
    assert "user 65534 has 3,000, 210,000,000 bytes: more than are open at once" in user
    assert not any("user 1001" in line for line in lines)


def test_a_loss_is_shown_with_producer_range_cause_and_time() -> None:
    lines = shown(
        lost=5,
        unknown_extent=1,
        losses_entries=2,
        losses=[
            loss(id=2, first=15, last=None, events=None, cause="tail unknown"),
            loss(),
        ],
        losses_by_cause=EMPTY["losses_by_cause"]
        | {
            "not received": {"entries": 1, "events": 5, "unknown_extent": 0},
            "tail unknown": {"entries": 1, "events": 0, "unknown_extent": 1},
        },
    )
    text = "\n".join(lines)
    assert "lost         5 events; losses of unknown extent: 1" in text
    assert "by cause     not received: 5 events" in text
    assert re.search(r"^ {13}tail unknown: 0 events, and 1 loss of unknown extent$", text, re.M)
    newest, oldest = lines[-2:]
    whose = "2025-11-03 14:05:00.000Z 1000-00000000000000ff"
    assert " ".join(newest.split()) == f"{whose} 15 to ? unknown tail unknown"
    assert " ".join(oldest.split()) == f"{whose} 10 to 14 5 events not received"


def test_of_many_losses_the_newest_are_shown_and_where_the_rest_is() -> None:
    lines = shown(losses_entries=1_213, losses=[loss() for _ in range(10)])
    assert lines[-1].strip() == "and 1,203 more: logd losses --config /srv/logd/logd.toml"


def test_no_control_character_of_a_ledger_reaches_a_terminal() -> None:
    assert "\x1b" not in "".join(shown(losses_entries=1, losses=[loss(cause="x\x1b[2J")]))


def skip_numbers(instance: Instance, gaps: int) -> None:
    """A client without an outbox, of which every second event never arrives."""
    producer_id = secrets.randbits(64)
    head, seed = datagram_head(producer_id), producer_seed(producer_id)
    payload = b"\x94\xa1x\x01\xc0\xc4\x01\x80"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)  # it waits where the queue is full
        for n in range(gaps + 1):
            sock.send(head + encode_record(seed, 2 * n + 1, payload))


def test_the_ledger_of_a_daemon_is_in_its_status_for_people_and_for_programs(
    instance: Instance, tally: Tally
) -> None:
    gaps = STATUS_LOSSES_MAX + 5
    before = json.loads(instance.cli("status", "--json"))
    assert (before["losses"], before["losses_entries"], before["lost"]) == ([], 0, 0)
    assert before["losses_by_cause"] == dict.fromkeys(CAUSES, ZEROS)
    instance.start()
    assert instance.cli("losses").strip() == "0 entries: no event is known to be lost"
    skip_numbers(instance, gaps)
    until(lambda: instance.status()["stored"] == gaps + 1, "all that was sent is stored")

    state = json.loads(instance.cli("status", "--json"))
    assert (state["lost"], state["losses_entries"]) == (gaps, gaps)
    assert len(state["losses"]) == STATUS_LOSSES_MAX
    assert [entry["first"] for entry in state["losses"]] == [
        2 * (gaps - n) for n in range(STATUS_LOSSES_MAX)
    ]
    assert set(state["losses"][0]) == {
        "id", "producer", "first", "last", "events", "cause", "detected_ns",
    }  # fmt: skip
    assert state["losses_by_cause"]["not received"] == {
        "entries": gaps, "events": gaps, "unknown_extent": 0,
    }  # fmt: skip
    text = instance.cli("status")
    assert f"lost         {gaps} events; losses of unknown extent: 0" in text
    assert text.count(state["losses"][0]["producer"]) == STATUS_LOSSES_MAX
    assert "and 5 more: logd losses --config" in text

    everything = instance.cli("losses").splitlines()
    assert len(everything) == gaps
    assert everything[:STATUS_LOSSES_MAX] == [
        line.strip() for line in text.splitlines() if state["losses"][0]["producer"] in line
    ]
    rows = [json.loads(line) for line in instance.cli("losses", "--format", "jsonl").splitlines()]
    assert rows[:STATUS_LOSSES_MAX] == state["losses"]
    assert [row["first"] for row in rows] == [2 * n for n in range(gaps, 0, -1)]
    sent = 2 * gaps + 1
    tally.account(instance.status(), instance.events(), attempted=sent, accepted=sent)
