"""Anchors detect what someone with the key did to the trail."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest

from logd.audit.anchors import format_anchor, parse
from logd.storage.database import Connection
from logd.storage.tree_head import NOTHING, Head
from logd_client import Client
from tests.logd.anchored import (
    DAYS,
    anchors_in,
    batch_id,
    change,
    entries,
    first_of_day_3,
    journal,
    logged_anchors,
    look_in_file,
    original,
    restore,
    run_for_a_day,
    trail_id,
)
from tests.logd.rebuilding import cut_and_rebuild, cut_off, rebuild
from tests.logd.trails import emit
from tests.support.instance import Instance, until

__all__ = ["original"]  # a fixture


@pytest.fixture(params=["file", "journal", "without ids"])
def look(
    request: pytest.FixtureRequest, stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], str]:
    """Runs verify with the anchors, as lines of a file and from the journal; returns its output."""
    log = stored.directory / "anchors.log"
    if request.param == "without ids":  # as versions before logged them
        log.write_text(re.sub(r" trail=[0-9a-f]{16}( signature=\S+)?", "", log.read_text()))
    if request.param != "journal":
        return lambda code: stored.cli("verify", "--anchors", str(log), code=code)
    journal(stored, monkeypatch, entries(log.read_text().splitlines(), "logd.service"))
    return lambda code: stored.cli("verify", "--anchor", code=code)


# -- what the daemon logs


def test_an_anchor_is_logged_at_the_start_and_at_the_stop(stored: Instance) -> None:
    daemon = stored.start()
    emit(stored, "d", 5)
    stored.stop()
    said = [parse(line) for line in anchors_in(daemon.lines)]
    assert len(said) == 2 and said[0] is not None and said[1] is not None
    assert said[1].head.events == said[0].head.events + 5
    assert said[1].head.hash.hex() in stored.cli("verify")
    again = stored.start()
    stored.stop()
    assert len(anchors_in(again.lines)) == 1, "it has not moved"


def test_anchors_are_logged_at_intervals_while_the_head_moves(stored: Instance) -> None:
    stored.configure(anchor_interval_s=1)
    daemon = stored.start()
    with Client(stored.socket) as client:

        def emit_until(count: int) -> None:
            assert client.emit("page_view", user="d", durable=True)
            until(lambda: len(anchors_in(daemon.lines)) >= count, "another")

        emit_until(2)
        emit_until(3)
    stored.stop()


def test_with_an_interval_of_0_no_anchor_is_logged(stored: Instance) -> None:
    stored.configure(anchor_interval_s=0)
    daemon = stored.start()
    stored.stop()
    assert anchors_in(daemon.lines) == []


# -- what they show


def test_an_unchanged_trail_matches_its_anchors(
    stored: Instance, look: Callable[[int], str]
) -> None:
    said = look(0)
    assert "whole: 181 events" in said
    assert f"anchors: {2 * DAYS} compared, up to batch {batch_id(stored)} " in said
    assert "0 batches are newer" in said


def test_one_byte_is_found(stored: Instance, look: Callable[[int], str]) -> None:
    change(
        stored,
        lambda c: c.execute(
            "UPDATE event SET props = CAST(substr(props, 1, length(props) - 1) || x'01' AS BLOB)"
            " WHERE id = 90"
        ),
    )
    assert f"batch {batch_id(stored, 90)} (" in look(1)


def test_one_changed_byte_is_found_after_the_tree_was_rebuilt(
    stored: Instance, look: Callable[[int], str]
) -> None:
    def work(connection: Connection) -> None:
        connection.execute("UPDATE event SET user = 'mallory' WHERE id = 150")
        rebuild(connection)

    change(stored, work)
    assert "whole" in stored.cli("verify"), "by itself it is"
    said = look(1)
    assert f"batch {batch_id(stored)} (" in said and "the tree was rebuilt" in said
    assert f"matches the anchors up to batch {first_of_day_3(stored) - 1}" in said


def test_one_event_removed_is_found(stored: Instance, look: Callable[[int], str]) -> None:
    change(stored, lambda c: c.execute("DELETE FROM event WHERE id = 90"))
    said = look(1)
    assert f"batch {batch_id(stored, 90)} (" in said and "removed or added" in said


@pytest.mark.parametrize("rebuilt", [False, True])
def test_the_last_batch_cut_off_is_found(
    stored: Instance, look: Callable[[int], str], rebuilt: bool
) -> None:
    last = batch_id(stored)

    change(stored, lambda c: (cut_and_rebuild if rebuilt else cut_off)(c, last))
    stored.cli("verify", code=0 if rebuilt else 1)
    said = look(1)
    assert f"batch {last} (" in said and f"the trail ends with batch {last - 1}" in said
    assert "its end was cut off" in said


def test_the_last_day_cut_off_and_the_chain_rebuilt_is_found(
    stored: Instance, look: Callable[[int], str]
) -> None:
    last, first = batch_id(stored), first_of_day_3(stored)

    change(stored, lambda c: cut_and_rebuild(c, first))
    assert "whole" in stored.cli("verify"), "by itself it is"
    said = look(1)
    assert f"batch {last} (" in said and f"the trail ends with batch {first - 1}" in said
    assert "it does not match the anchors" in said


def test_a_day_changed_and_the_chain_rebuilt_from_there_is_found_in_every_later_anchor(
    stored: Instance, look: Callable[[int], str]
) -> None:
    def work(connection: Connection) -> None:
        connection.execute("UPDATE event SET ts_ns = ts_ns + 1 WHERE id = 1")
        rebuild(connection)

    change(stored, work)
    said = look(1)
    assert "has another hash" in said and "anchors do not match" in said


@pytest.mark.parametrize("goes_on", [False, True])
def test_an_older_backup_in_the_databases_place_is_found(
    stored: Instance, look: Callable[[int], str], goes_on: bool
) -> None:
    last, lost = batch_id(stored), logged_anchors(stored)[2].head.batch
    shutil.copy(stored.directory / "day1.db", stored.config.database)
    if goes_on:
        stored.start()
        for n in range(last):
            emit(stored, f"later{n}", 1)
        stored.stop()
    assert "whole" in stored.cli("verify"), "by itself it is"
    said = look(1)
    assert f"batch {lost} (" in said
    assert ("an older copy was put" if not goes_on else "another database was put") in said


def test_another_trail_in_the_databases_place_is_found(
    stored: Instance, look: Callable[[int], str]
) -> None:
    change(stored, lambda c: cut_and_rebuild(c, 1))
    assert "the trail ends with batch 0" in look(1)


# -- another trail


def test_a_changed_id_is_found(stored: Instance, look: Callable[[int], str]) -> None:
    change(stored, lambda c: c.execute("UPDATE trail SET name = '0123456789abcdef'"))
    if " trail=" in (stored.directory / "anchors.log").read_text():
        assert "is of another trail" in look(1)
    else:
        look(0)  # the hash is right, and anchors without an id know no more


# -- restores that are declared


def test_a_declared_restore_is_reported_and_not_an_error(
    stored: Instance, look: Callable[[int], str]
) -> None:
    last = batch_id(stored)
    restore(stored)
    said = look(0)
    assert "restored 20" in said and f"from batch {last};" in said
    assert "4 anchors are of batches that it took away" in said, "start and stop of two days"


def test_a_cut_after_a_declared_restore_is_found(stored: Instance) -> None:
    """A restore accounts for missing batches only until the restored chain has an anchor."""
    restore(stored)
    run_for_a_day(stored, "d")
    assert "restored 20" in look_in_file(stored, 0)
    last = batch_id(stored)

    change(stored, lambda c: cut_and_rebuild(c, last))
    said = look_in_file(stored, 1)
    assert f"batch {last} (" in said


def test_a_restore_accounts_for_no_more_than_was_there(stored: Instance) -> None:
    """The last day was cut off before the restore, to hide that."""
    last = batch_id(stored)
    first = first_of_day_3(stored)
    change(stored, lambda c: cut_and_rebuild(c, first))
    restore(stored)
    said = look_in_file(stored, 1)
    assert f"batch {last} (" in said


def test_a_restore_to_before_a_restore_accounts_for_both(stored: Instance) -> None:
    last = batch_id(stored)
    restore(stored)
    run_for_a_day(stored, "d")
    assert batch_id(stored) < last
    restore(stored)
    run_for_a_day(stored, "e")
    said = look_in_file(stored, 0)
    assert f"from batch {last};" in said


# -- where they are kept


def test_without_any_anchor_nothing_is_proved(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(stored, monkeypatch, entries(["logd: ready"], "logd.service"))
    said = stored.cli("verify", "--anchor", code=75)
    assert "whole: 181 events" in said and "not proven: no anchors were found" in said
    assert "no reason to restore a backup" in said
    (stored.directory / "empty").touch()
    said = stored.cli("verify", "--anchors", str(stored.directory / "empty"), code=75)
    assert "no anchors were found" in said


def test_that_the_trail_was_empty_once_proves_nothing(stored: Instance) -> None:
    first = stored.directory / "first"
    first.write_text(f"{format_anchor(NOTHING, trail_id(stored))}\n")
    said = stored.cli("verify", "--anchors", str(first), code=75)
    assert "none of the 1 anchors is of a batch that the trail has now" in said


def test_a_changed_trail_without_anchors_is_not_whole(stored: Instance) -> None:
    (stored.directory / "empty").touch()
    change(stored, lambda c: c.execute("DELETE FROM event WHERE id = 90"))
    stored.cli("verify", "--anchors", str(stored.directory / "empty"), code=1)


def with_other_root(line: str) -> str:
    """The line with another root, and without a signature: that would be false."""
    return re.sub(r"root=\w+ (trail=\w+).*", rf"root={'ab' * 32} \1", line)


def test_only_anchors_since_a_time_are_needed(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = stored.directory / "anchors.log"
    said = anchors_in(log.read_text().splitlines())
    moments = [f"2026-03-{day:02}T12:00:00Z" for day in range(1, len(said) + 1)]
    file = stored.directory / "timed"
    file.write_text("".join(f"{at} {a}\n" for at, a in zip(moments, said, strict=True)))

    def since(time: str, code: int) -> str:
        return stored.cli("verify", "--anchors", str(file), "--since", time, code=code)

    assert f"anchors: {len(said)} compared" in since("2026-02-01", 0)
    assert "anchors: 2 compared" in since("2026-03-05", 0)
    assert "no anchors were found of 2026-03-08 00:00:00.000Z or later" in since("2026-03-08", 75)
    # What no longer matches is of a time before the question.
    said[1] = with_other_root(said[1])
    file.write_text("".join(f"{at} {a}\n" for at, a in zip(moments, said, strict=True)))
    assert "has another hash" in since("2026-02-01", 1)
    since("2026-03-05", 0)
    asked = journal(stored, monkeypatch, entries(said[2:], "logd.service"))
    stored.cli("verify", "--anchor", "--since", "2023-11-01")
    assert "--since=@1698796800" in asked.read_text().splitlines()
    stored.cli("verify", "--since", "1d", code=2)


def test_only_lines_that_the_journal_itself_marks_as_the_units_count(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = [f"logd: {format_anchor(Head(1, 1, bytes(32)))}"]
    good = (stored.directory / "anchors.log").read_text().splitlines()
    lines = entries(good, "logd.service") + entries(forged, "user@1000.service")
    lines += ["{", '{"MESSAGE": [97, 110], "x": "anchor batch="}']
    asked = journal(stored, monkeypatch, lines)
    assert "whole" in stored.cli("verify", "--anchor")
    assert "_SYSTEMD_UNIT=logd.service" in asked.read_text().splitlines()
    assert "no anchors" in stored.cli("verify", "--anchor", "--unit", "other.service", code=75)
    assert "_SYSTEMD_UNIT=other.service" in asked.read_text().splitlines()


def test_a_journal_that_begins_later_than_the_trail_is_reported(stored: Instance) -> None:
    log = stored.directory / "anchors.log"
    said = anchors_in(log.read_text().splitlines())
    log.write_text("\n".join(said[3:]) + "\n")
    told = look_in_file(stored, 0)
    assert "the anchors begin with batch" in told and "do not show" in told


def test_batches_newer_than_the_last_anchor_are_reported(stored: Instance) -> None:
    stored.start()
    emit(stored, "d", 1)
    stored.stop()
    assert "batches are newer than the last" in look_in_file(stored, 0)


def test_a_journal_that_cannot_be_read_is_an_error_of_its_own(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(stored, monkeypatch, [], end="echo no rights >&2; exit 1")
    assert "journalctl ended with 1: no rights" in stored.cli("verify", "--anchor", code=69)
    found = stored.status()["integrity"]
    assert (found["whole"], found["answer"]) == (True, "not_proven")
    # What the trail itself shows, and the anchors before that, is not hidden by it.
    said = anchors_in((stored.directory / "anchors.log").read_text().splitlines())
    wrong = with_other_root(said[1])
    journal(stored, monkeypatch, entries([wrong], "logd.service"), end="exit 1")
    assert "has another hash" in stored.cli("verify", "--anchor", code=1)
    change(stored, lambda c: c.execute("DELETE FROM event WHERE id = 90"))
    journal(stored, monkeypatch, [], end="exit 1")
    assert "removed or added" in stored.cli("verify", "--anchor", code=1)


def test_without_journalctl_the_trail_is_not_proven(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "--anchors FILE" in stored.cli("verify", "--anchor", code=69)
