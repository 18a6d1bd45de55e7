"""Runs every command of systemd/README.md, section by section, and checks what it does."""

from __future__ import annotations

import pytest

from logd.audit import signed_note
from logd.audit.signed_note import Verifier
from tests.support.instance import until
from tests.systemd.box import SOURCE, Box
from tests.systemd.load import emit, load
from tests.systemd.page import commands_by_section

pytestmark = pytest.mark.booted
PAGE = commands_by_section()


def follow(box: Box, heading: str) -> list[str]:
    """Runs the commands of a section in turn; returns the output of each."""
    return [box.run(f"cd {SOURCE} && {command}") for command in PAGE[heading]]


def test_the_status_commands_show_a_running_daemon(box: Box) -> None:
    service, status = follow(box, "Look")
    assert "active (running)" in service
    assert "daemon       running" in status


def test_an_application_may_log_once_its_user_is_in_the_group(box: Box) -> None:
    assert emit(box, 5, user="www-data")["accepted"] == 0
    follow(box, "An application of your own")
    assert emit(box, 5, user="www-data")["accepted"] == 5


def test_the_day_two_tasks_lose_nothing_under_load(box: Box) -> None:
    with load(box):
        follow(box, "Day-two tasks")
    assert box.run("systemctl is-active logd classroom").split() == ["active", "active"]
    assert "whole" in box.run("logd verify")


def test_a_restore_and_a_new_key_are_recorded_in_the_trail(box: Box) -> None:
    emit(box, 20)
    before = box.settle()
    key = box.path("/etc/logd/logd.key").read_text()
    follow(box, "Backups, and a new key")
    assert box.path("/etc/logd/logd.key").read_text() != key
    assert "whole" in box.run("logd verify --anchor")
    after = box.settle()
    assert after["lost"] == before["lost"]
    assert after["stored"] > before["stored"]
    types = {event["type"] for event in box.events("--since 1h")}
    assert {"trail_restored", "trail_rekeyed"} <= types


def test_an_event_is_proven_and_that_the_trail_only_grew(box: Box) -> None:
    emit(box, 5)
    box.settle()
    _, event, _, verified, _, growth = follow(box, "Prove it to somebody else")
    assert "proven: event 1 is in the trail logd/" in event
    assert "the trail has only grown since" in verified
    assert "proven: the trail logd/" in growth and "only grew from" in growth


def test_the_public_key_that_checks_a_sheet_is_printed(box: Box) -> None:
    (key,) = follow(box, "A sheet of one person's events")
    assert key.startswith("logd/") and key.count("+") >= 2


def test_the_commands_for_alerts_show_the_state(box: Box) -> None:
    metrics, status, _journal, _check, *_, verified, timers = follow(box, "Alerts")
    assert "logd_up 1.0" in metrics
    assert "daemon       running" in status
    assert "anchors: " in verified and "logd-verify.timer" in timers
    for name in ("logd.rules.yml", "logd-dashboard.json"):
        assert box.path(f"/usr/local/share/doc/logd/{name}").stat().st_size > 1000


def test_the_size_of_a_trail_is_shown(box: Box) -> None:
    size, status = follow(box, "Sizing")
    assert "/var/lib/logd" in size
    assert "stored" in status


def test_with_an_encrypted_key_no_plain_key_is_on_the_disk(box: Box) -> None:
    key = box.path("/etc/logd/logd.key").read_text()
    before = box.settle()
    try:
        output = follow(box, "The key")
        _former, _moved, made, _restarted, public_key, *_, verified, head = output
        assert made.startswith("created /etc/logd/logd-signing.key")
        assert "whole" in verified
        assert not list(box.path("/etc/logd").glob("*.key"))
        assert emit(box, 10)["accepted"] == 10
        # The daemon has the encrypted key that was made last, and so has the command.
        note = signed_note.parse(head.removesuffix("\n") + "\n")
        assert Verifier.from_vkey(public_key.strip()).verify(note) is not None
    finally:
        box.run("mv ~/logd.key ~/logd-signing.key /etc/logd/ && rm /etc/logd/*.cred")
        box.run("rm -r /etc/systemd/system/logd*.service.d && systemctl daemon-reload")
        box.run("systemctl restart logd")
    assert box.path("/etc/logd/logd.key").read_text() == key
    assert box.settle()["stored"] == before["stored"] + 10


def test_an_uninstall_keeps_all_data_and_another_install_uses_it(box: Box) -> None:
    before = box.settle()
    follow(box, "Remove it")
    assert "not-found" in box.run("systemctl show --property=LoadState logd.service")
    for gone in ("/usr/local/lib/logd", "/usr/local/bin/logd", "/run/logd/writers/outboxes/token"):
        assert not box.path(gone).exists()
    for kept in ("/etc/logd/logd.toml", "/etc/logd/logd.key", "/var/lib/logd/activity.db",
                 "/var/lib/classroom/classroom.db"):  # fmt: skip
        assert box.path(kept).exists()
    box.run(f"make -C {SOURCE} install && systemctl enable --now logd.target classroom")
    until(lambda: box.show("logd", "ActiveState") == "active", "logd runs again")
    assert box.settle()["stored"] >= before["stored"]
    assert "whole" in box.run("logd verify")
