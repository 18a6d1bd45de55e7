"""Anchors in the journal reveal changes of the trail by someone who has its key."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.support.instance import until
from tests.systemd.box import SOURCE, Box
from tests.systemd.load import emit

pytestmark = pytest.mark.booted

ANCHORED = "logd verify --anchor"
# Run as root, which has key and database: changes the database in place and repairs the chain.
TAMPER = """
from pathlib import Path
from logd.storage import keyfile
from logd.storage.database import connect
from tests.logd.rebuilding import cut_and_rebuild, cut_off, rebuild
key = keyfile.read(Path("/etc/logd/logd.key"))
connection = connect(Path("/var/lib/logd/activity.db"), key)
connection.execute("PRAGMA foreign_keys = OFF")
last = connection.execute("SELECT max(id) FROM batch").fetchone()[0]
middle = connection.execute("SELECT id FROM event WHERE user IS NOT NULL ORDER BY id").fetchone()[0]
"""
BYTE = "connection.execute('UPDATE event SET ts_ns = ts_ns + 1 WHERE id = ?', (middle,))"
REMOVED = "connection.execute('DELETE FROM event WHERE id = ?', (middle,))"


@pytest.fixture
def stopped(box: Box) -> Iterator[Box]:
    """The machine with some events, an older backup, and logd stopped. After the test the database
    is restored and logd started.
    """
    box.run("rm -rf /var/tmp/older && install -d /var/tmp/older")
    assert emit(box, 50)["accepted"] == 50
    box.settle()
    box.run("logd backup /var/tmp/older")
    for _ in range(3):
        assert emit(box, 50)["accepted"] == 50
        box.settle()
    box.run("systemctl stop logd && cp -a /var/lib/logd /var/tmp/whole")
    yield box
    box.run("rm -rf /var/lib/logd/* && cp -a /var/tmp/whole/. /var/lib/logd/")
    box.run("rm -rf /var/tmp/whole /var/tmp/older")
    assert "whole" in box.run(ANCHORED)
    box.run("systemctl start logd")


def tamper(box: Box, work: str) -> None:
    script = shlex.quote(f"{TAMPER}{work}\nconnection.close()")
    box.run(f"PYTHONPATH={SOURCE} /usr/local/lib/logd/bin/python -c {script}")


def test_an_unchanged_trail_matches_the_anchors_in_the_journal(stopped: Box) -> None:
    output = stopped.run(ANCHORED)
    assert "whole" in output and "0 batches are newer" in output


@pytest.mark.parametrize(
    ("work", "by_itself", "found"),
    [
        (BYTE, 1, "an event was changed"),
        (f"{BYTE}\nrebuild(connection)", 0, "the tree was rebuilt"),
        (REMOVED, 1, "removed or added"),
        ("cut_off(connection, last)", 1, "its end was cut off"),
        ("cut_and_rebuild(connection, last)", 0, "its end was cut off"),
        ("cut_and_rebuild(connection, last // 2)", 0, "the trail ends with batch"),
    ],
    ids=["byte", "byte-rebuilt", "event", "last-batch", "last-batch-rebuilt", "half-rebuilt"],
)
def test_changes_made_with_the_key_are_found(
    stopped: Box, work: str, by_itself: int, found: str
) -> None:
    tamper(stopped, work)
    stopped.run("logd verify", code=by_itself)
    assert found in stopped.run(ANCHORED, code=1)


def test_an_older_backup_in_the_databases_place_is_found(stopped: Box) -> None:
    stopped.run("cp /var/tmp/older/*.db /var/lib/logd/activity.db")
    stopped.run("logd verify")
    assert "an older copy was put" in stopped.run(ANCHORED, code=1)


def test_a_recorded_restore_is_reported_and_is_not_an_error(stopped: Box) -> None:
    stopped.run("logd restore --yes /var/tmp/older/*.db")
    assert "restored" in stopped.run(ANCHORED)


def test_anchors_are_appended_to_a_file_that_logd_cannot_shorten(box: Box) -> None:
    """With the commands of the threat model: in the state directory, made append-only by root."""
    file = "/var/lib/logd/anchors"
    box.run("cp -p /etc/logd/logd.toml /var/tmp/logd.toml")
    box.run("sed -i 's/^# anchor_file/anchor_file/' /etc/logd/logd.toml && systemctl restart logd")
    try:
        assert box.run(f"stat -c '%U %a' {file}").split() == ["logd", "640"]
        before = int(box.run(f"wc -l < {file}"))
        only_grows = box.try_to(f"chattr +a {file}").returncode == 0
        assert emit(box, 50)["accepted"] == 50
        box.settle()
        box.run("systemctl restart logd")
        assert int(box.run(f"wc -l < {file}")) > before
        assert "whole" in box.run(f"logd verify --anchors {file}")
        if only_grows:  # not every file system supports it
            assert box.try_to(f"runuser -u logd -- truncate -s 0 {file}").returncode != 0
            assert box.try_to(f"runuser -u logd -- rm -f {file}").returncode != 0
    finally:
        box.try_to(f"chattr -a {file}")
        box.run(f"rm -f {file} && cp -p /var/tmp/logd.toml /etc/logd && systemctl restart logd")


def test_what_goes_wrong_is_in_the_journal_at_warning(box: Box) -> None:
    """Quarantine by the daemon, and a backup that fails, with the command of the page."""
    shown = "journalctl -u 'logd*' -p warning -o cat -n 50"
    box.run(
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        ' s.sendto(b"garbage", "/run/logd/logd.sock")\''
    )
    box.run("mv /var/backups/logd /var/backups/aside && touch /var/backups/logd")
    try:
        box.run("systemctl start logd-backup", code=1)
        until(lambda: "quarantine: " in box.run(shown), "the quarantine in the journal")
        assert "/var/backups/logd: " in box.run(shown)
        (backup,) = (one for one in box.status()["maintenance"] if one["task"] == "backup")
        assert "/var/backups/logd: " in backup["problem"]
    finally:
        box.run("rm /var/backups/logd && mv /var/backups/aside /var/backups/logd")
    box.run("systemctl reset-failed logd-backup && systemctl start logd-backup")
    (backup,) = (one for one in box.status()["maintenance"] if one["task"] == "backup")
    assert backup["problem"] is None


def test_a_journal_without_anchors_is_not_proven_and_no_alarm(box: Box) -> None:
    assert emit(box, 5)["accepted"] == 5
    box.settle()
    output = box.run(f"{ANCHORED} --unit other.service", code=75)
    assert "not proven: no anchors were found" in output
    assert box.status()["integrity"]["answer"] == "not_proven"
    assert "whole" in box.run(f"{ANCHORED} --since 1d")
    assert box.status()["integrity"]["answer"] == "whole"
