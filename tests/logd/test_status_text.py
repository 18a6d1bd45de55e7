"""The text of `logd status`: each line, from a made-up status."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

from logd.runtime_stats import RuntimeStats
from logd.status import text as status
from tests.logd.made_status import EMPTY, NS


def shown(**state: Any) -> list[str]:
    return list(status.status_lines(EMPTY | state))


def loss(**fields: Any) -> dict[str, Any]:
    return {
        "id": 1, "producer": "1000-00000000000000ff", "first": 10, "last": 14, "events": 5,
        "cause": "not received", "detected_ns": 1_762_178_700 * NS, **fields,
    }  # fmt: skip


def test_files_that_are_missing_stand_first_with_what_to_do() -> None:
    file = {"path": "/run/logd/logd.sock\x1b", "since_ns": 1, "remedy": "Do something"}
    state = EMPTY | {
        "at_ns": 61 * NS,
        "runtime_files": [
            file | {"name": "socket", "problem": "not there", "restored": 0, "restored_ns": None},
            file | {"name": "token", "problem": None, "restored": 2, "restored_ns": NS},
            file | {"name": "key", "problem": None, "restored": 0, "restored_ns": None},
        ],
    }
    missing, put_back, *rest = status.status_lines(state)
    assert missing.startswith("missing      since 1970-01-01")
    assert missing.endswith("socket, /run/logd/logd.sock\\x1b: not there. Do something")
    assert "token, /run/logd/logd.sock\\x1b: 2 times, the last 1970-" in put_back
    assert put_back.endswith("(1 min ago)")
    assert not any("socket" in line for line in rest)


def test_that_nothing_is_lost_is_reported_and_not_left_out() -> None:
    lines = shown()
    assert "lost         0 events; losses of unknown extent: 0" in lines
    assert "ledger       0 entries" in lines
    assert not any("by cause" in line for line in lines)


def test_whoever_asks_most_reports_is_named() -> None:
    user = {"uid": 12345, "questions": 1057, "running_s": 30.25, "let_go": 37_427, "put_off": 12}
    lines = shown(readers=[{**user, "uid": uid} for uid in range(12345, 12361)])
    assert (
        "reports      user 12345 sent 1,057 requests, which took 30.2 s; deferred 12; closed"
        " 37,427 connections that sent nothing or did not read the answer"
    ) in lines
    assert sum(line.startswith("reports ") for line in lines) == 5


def test_senders_of_quarantined_datagrams_and_users_with_too_many_outboxes_are_named() -> None:
    lines = shown(
        quarantine_senders=[
            {"uid": 65534, "pid": 4711, "rows": 2000, "newest_reason": "truncated \x1b record"}
        ],
        outboxes_by_user=[
            {"uid": 1001, "files": 2, "bytes": 140_000, "pending": 0, "surplus": False},
            {"uid": 65534, "files": 3000, "bytes": 210_000_000, "pending": 9, "surplus": True},
        ],
    )
    (sender,) = [line for line in lines if "pid 4711" in line]
    assert "of user 65534, pid 4711: 2,000, the newest: truncated \\x1b record" in sender
    (user,) = [line for line in lines if "3,000" in line]
    assert "user 65534 has 3,000, 210,000,000 bytes: more than can be open at once" in user
    assert not any("user 1001" in line for line in lines)


def test_what_is_only_claimed_is_shown_by_user_and_beside_what_is_lost() -> None:
    nothing = {"entries": 0, "events": 0, "unknown_extent": 0, "claimed_unknown_extent": 0}
    lines = shown(
        lost=5,
        lost_claimed=40_000_000,
        unknown_extent_claimed=2,
        losses_by_cause=EMPTY["losses_by_cause"]
        | {"claimed": {"entries": 42, "events": 40_000_000, "unknown_extent": 2}},
        losses_by_user=[
            nothing | {"uid": 1000, "events": 5, "claimed": 0},
            nothing | {"uid": 12345, "claimed": 40_000_000, "claimed_unknown_extent": 2},
        ],
        outboxes_by_user=[
            {"uid": 1000, "files": 2, "bytes": 140_000, "pending": 3, "surplus": False},
            {"uid": 12345, "files": 1, "bytes": 70_000, "pending": 4096, "surplus": False},
        ],
    )
    assert "lost         5 events; losses of unknown extent: 0" in lines
    assert (
        "claimed      40,000,000 more events, reported by outboxes alone; of unknown extent: 2"
        in lines
    )
    assert "claimed      of user 12345: 40,000,000 events; of unknown extent: 2" in lines
    assert "pending      of user 1000: 3 events" in lines
    assert "pending      of user 12345: 4,096 events" in lines
    assert not any("user 1000: 0" in line or "by cause" in line for line in lines)


def test_senders_of_what_was_ignored_are_named_with_each_kind_of_it() -> None:
    kinds = {"duplicates": 0, "early": 0, "farewells": 0, "skipped": 0, "closings": 0}
    lines = shown(
        duplicate_senders=[
            {"uid": 65534, "pid": 4711, **kinds, "duplicates": 37_000_000, "skipped": 1},
            {"uid": 1001, "pid": None, **kinds, "early": 2, "farewells": 1},
        ]
    )
    assert (
        "ignored      of user 65534, pid 4711: 37,000,000 duplicates, 1 skipped datagram" in lines
    )
    assert "ignored      of user 1001: 2 early records, 1 farewell" in lines


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


def figures(**changed: Any) -> dict[str, Any]:
    counts = [0] * 14
    counts[3], counts[6] = 98, 2
    made = RuntimeStats(
        at_ns=EMPTY["at_ns"] - NS, started_ns=EMPTY["at_ns"] - 3 * 3600 * NS,
        events_per_s_1m=312.4, events_per_s_5m=0.25, commits=100, commit_last_s=0.0071,
        commit_longest_s=1.25, commit_counts=tuple(counts),
    )  # fmt: skip
    return asdict(replace(made, **changed))


def test_a_running_daemon_is_shown_with_its_rates_and_commit_times() -> None:
    lines = shown(running_pid=7, figures=figures(), room_s=7260.0)
    assert "daemon       running, pid 7, for 3 h" in lines
    assert "rate         312 events/s over 1 minute, 0.2 over 5" in lines
    assert "commits      half within 10 ms, 99 % within 100 ms; last 7.1 ms, longest 1.2 s" in lines
    (line,) = [line for line in lines if line.startswith("outboxes")]
    assert line.endswith("; at the current rate the first is full in 2 h 1 min if logd stops now")
    lines = shown(running_pid=7, figures=figures(at_ns=EMPTY["at_ns"] - 100 * NS))
    assert (
        "daemon       running, pid 7, but without a report for 1 min 40 s: check the disk" in lines
    )


def test_without_a_daemon_the_last_report_is_shown_and_no_rate() -> None:
    lines = shown(figures=figures(), room_s=0.5)
    assert "daemon       not running, last seen 2025-11-03 14:04:59.000Z (1 s ago)" in lines
    assert not any(line.startswith(("rate", "commits")) for line in lines)
    assert any("the first is full in less than a second from now" in line for line in lines)
    assert "daemon       not running" in shown()


def test_the_disk_is_shown_with_the_days_it_has_left() -> None:
    disk = {
        "database_bytes": 3 * 2**30, "wal_bytes": 2**22, "free_bytes": 2**35,
        "growth_days": 7.0, "growth_bytes_per_day": 2**27, "days_left": 256.0,
    }  # fmt: skip
    lines = shown(disk=disk)
    assert "disk         database 3.0 GiB, WAL 4.0 MiB; 32.0 GiB free" in lines
    assert "growth       128.0 MiB a day over the last 7 days: enough for 256 days" in lines
    assert any("FULL WITHIN A DAY" in line for line in shown(disk=disk | {"days_left": 0.5}))
    assert "growth       unknown before a day of events" in shown()


def test_when_it_was_verified_is_shown_and_how_that_ended() -> None:
    verified = {"at_ns": EMPTY["at_ns"] - 7200 * NS, "whole": True, "answer": "whole"}
    verified["events"] = 1000
    (line,) = [line for line in shown(integrity=verified) if line.startswith("integrity")]
    assert (
        line == "integrity    whole when verified 2025-11-03 12:05:00.000Z (2 h ago), 1,000 events"
    )
    by_parts = verified | {"proven": {"since_ns": verified["at_ns"] - 86_400 * NS}}
    (line,) = [line for line in shown(integrity=by_parts) if line.startswith("integrity")]
    assert line.endswith("1,000 events; all of it since 2025-11-02 12:05:00.000Z")
    lines = shown(integrity=verified | {"whole": False, "answer": "not_whole"})
    assert any("NOT WHOLE when verified 2025-11-03" in line for line in lines)
    lines = shown(integrity=verified | {"answer": "not_proven"})
    assert any("whole in itself, but not proven when verified 2025-11-03" in ln for ln in lines)
    assert "integrity    never verified; run logd verify" in shown()


def test_durations_are_shown_in_their_largest_units() -> None:
    times = (0, 1, 59, 60, 61, 3600, 8000, 40_000, 90_000, 10**6)
    assert [status.format_duration(time_s) for time_s in times] == [
        "less than a second", "1 s", "59 s", "1 min", "1 min 1 s", "1 h", "2 h 13 min", "11 h",
        "1 d 1 h", "11 d",
    ]  # fmt: skip
