"""logd and the site as services of a booted systemd: used, restarted, killed, stopped, broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.instance import until
from tests.systemd.box import PYTHON, SOURCE, Box
from tests.systemd.conftest import PASSWORD
from tests.systemd.load import difference, emit, load

pytestmark = pytest.mark.booted
UNITS = ("logd.target", "logd.socket", "logd-query.socket", "logd.service", "classroom.socket",
         "classroom.service", "run-logd-writers-outboxes.mount")  # fmt: skip


def drop_in(box: Box, unit: str, text: str) -> None:
    """Changes a unit until `revert`."""
    file = box.path(f"/run/systemd/system/{unit}.d/test.conf")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    box.run("systemctl daemon-reload")


def revert(box: Box, unit: str) -> None:
    box.path(f"/run/systemd/system/{unit}.d/test.conf").unlink(missing_ok=True)
    box.run("systemctl daemon-reload")


def visit(box: Box, *accounts: list[Any]) -> list[list[str]]:
    """Clicks through the site; returns the titles of the pages."""
    box.path("/run/test/accounts").write_text(json.dumps(accounts))
    output = box.run(
        f"{PYTHON} {SOURCE}/tests/systemd/visitor.py http://127.0.0.1:8000 "
        '"$(cat /run/test/accounts)"'
    )
    return [[t.removesuffix(" · Classroom") for t in titles] for titles in json.loads(output)]


def watchdog_fed(box: Box) -> str:
    """Returns when the daemon last fed its watchdog."""
    return box.show("logd", "WatchdogTimestampMonotonic")


def until_restarted(box: Box, restarts: int) -> None:
    """Waits until systemd has restarted the daemon that many times."""
    until(
        lambda: (
            (box.show("logd", "NRestarts"), box.show("logd", "ActiveState"))
            == (str(restarts), "active")
        ),
        "it is running again",
    )


def test_after_the_five_commands_everything_runs_and_will_at_the_next_boot(box: Box) -> None:
    assert box.run(f"systemctl is-active {' '.join(UNITS)}").split() == ["active"] * len(UNITS)
    assert box.run("systemctl --failed --quiet --no-legend") == ""
    boot = box.run("systemctl list-dependencies --plain multi-user.target")
    for unit in ("logd.target", "logd.service", "logd-backup.timer", "classroom.service"):
        assert unit in boot.split()


def test_a_click_is_stored_as_an_event_and_shown_in_a_report(box: Box) -> None:
    box.run(
        'classroom create-user sam --role student --name "Sam"',
        text=f"{PASSWORD}\n{PASSWORD}\n",
    )
    seen = visit(
        box,
        ["sam", PASSWORD, ["/courses/python", "!/courses/python/tasks/python-greeting"]],
        ["ada", PASSWORD, ["/teacher/"]],
    )
    assert seen[0][0] == "Courses"
    assert seen[0][1] == seen[0][-1]
    assert seen[1] == ["Dashboard", "Dashboard"]
    until(lambda: len(box.events("--type task_completed")) == 1, "the task is in the trail")
    (done,) = box.events("--type task_completed")
    assert done["props"]["task"] == "python-greeting"
    assert len(box.events("--type login")) == 2
    assert box.events("--type page_view --user 1")
    assert box.events("--type page_view --user 2")
    box.settle()
    assert "whole" in box.run("logd verify")


def test_a_restart_under_load_loses_nothing(box: Box) -> None:
    with load(box) as running:
        for _ in range(3):
            box.run("systemctl restart logd")
            running.wait_for_more()


def test_a_daemon_killed_under_load_is_restarted_at_once_and_nothing_is_lost(box: Box) -> None:
    restarts = int(box.show("logd", "NRestarts"))
    with load(box) as running:
        for number in range(1, 4):
            box.run("systemctl kill -s KILL logd")
            until_restarted(box, restarts + number)
            running.wait_for_more()
    assert box.show("logd.socket", "ActiveState") == "active"


def test_a_hung_daemon_is_killed_by_the_watchdog_and_nothing_is_lost(box: Box) -> None:
    drop_in(box, "logd.service", "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n")
    box.run("systemctl restart logd")
    restarts = int(box.show("logd", "NRestarts"))
    try:
        with load(box):
            box.run("systemctl kill -s STOP --kill-who=main logd")
            until_restarted(box, restarts + 1)
    finally:
        revert(box, "logd.service")
        box.run("systemctl restart logd")
    assert "Watchdog timeout" in box.run("journalctl -u logd -o cat")


def test_an_idle_daemon_is_not_taken_for_hung(box: Box) -> None:
    drop_in(box, "logd.service", "[Service]\nWatchdogSec=500ms\n")
    box.run("systemctl restart logd")
    try:
        fed = watchdog_fed(box)
        for _ in range(10):  # fed ten times while idle
            until(lambda last=fed: watchdog_fed(box) != last, "fed again")  # type: ignore[misc]  # a default binds the loop's value
            fed = watchdog_fed(box)
        assert box.show("logd", "NRestarts") == "0"
    finally:
        revert(box, "logd.service")
        box.run("systemctl restart logd")


def test_a_stopped_daemon_stays_stopped_and_stores_queued_events_at_its_start(
    box: Box,
) -> None:
    before = box.settle()
    box.run("systemctl stop logd.target")
    try:
        with_outbox = emit(box, 500)
        # Without an outbox these events are queued in the socket only.
        without = emit(box, 100, options=", outbox_directory='/nowhere'")
        assert with_outbox["accepted"] == 500
        assert without["accepted"] == 100
        assert without["outbox"]["reason"]
        assert box.run("systemctl is-active logd", code=3).strip() == "inactive"
        assert box.run("systemctl is-active logd.socket logd-query.socket").split() == [
            "active", "active",
        ]  # fmt: skip
    finally:
        box.run("systemctl start logd.target")
    status = difference(box.settle(), before)
    assert status["stored"] == 600
    assert status["lost"] == status["quarantined"] == 0


def test_a_stop_and_a_start_under_load_lose_nothing(box: Box) -> None:
    with load(box) as running:
        box.run("systemctl stop logd")
        running.wait_for_more()
        assert box.status()["pending"] > 0
        box.run("systemctl start logd")


def test_a_logd_from_before_signatures_starts_without_their_key_and_signs_once_it_has_one(
    box: Box,
) -> None:
    def last_anchor() -> str:
        box.run("systemctl restart logd && journalctl --sync")
        return box.run("journalctl -u logd -o cat | grep '^anchor batch=' | tail -n 1")

    assert " signature=" in last_anchor()
    box.run("mv /etc/logd/logd-signing.key /etc/logd/away")
    try:
        assert " signature=" not in last_anchor()
        assert emit(box, 5)["accepted"] == 5
        assert not box.settle()["figures"]["heads_signed"]
        assert "does not exist, so the heads of the trail are not signed" in box.run("logd check")
        box.run("systemctl start logd-verify")
        assert "created /etc/logd/logd-signing.key" in box.run("logd genkey")
        assert " signature=" in last_anchor()
    finally:
        box.run("mv /etc/logd/away /etc/logd/logd-signing.key && systemctl restart logd")
    box.run("systemctl start logd-verify")


@pytest.mark.parametrize(
    ("spoil", "fix", "code", "output"),
    [
        pytest.param(
            "echo 'sokket = 1' >> /etc/logd/logd.toml", "sed -i /sokket/d /etc/logd/logd.toml",
            "78", "unknown name 'sokket'", id="configuration",
        ),
        pytest.param(
            "mv /etc/logd/logd.key /etc/logd/away", "mv /etc/logd/away /etc/logd/logd.key",
            "243", "Failed to set up credentials", id="key",
        ),
        pytest.param(
            "mv /var/lib/logd/activity.db /var/lib/logd/away",
            "mv /var/lib/logd/away /var/lib/logd/activity.db",
            "65", "is empty or gone", id="database",
        ),
    ],
)  # fmt: skip
def test_an_error_that_a_restart_cannot_fix_ends_the_daemon_once_and_leaves_the_sockets(
    box: Box, spoil: str, fix: str, code: str, output: str
) -> None:
    before = box.settle()
    box.run("systemctl stop logd")
    box.run("journalctl --rotate --vacuum-time=1s --quiet")
    box.run(spoil)
    try:
        box.run("systemctl start logd", code=1)
        # Each of these would restart the daemon if the socket started it directly.
        emit(box, 50, options=", outbox_directory='/nowhere'")
        assert emit(box, 50)["accepted"] == 50
        assert box.show("logd", "ActiveState") == "failed"
        assert box.show("logd", "ExecMainStatus") == code
        assert box.show("logd", "NRestarts") == "0"
        assert output in box.run("journalctl -u logd -o cat")
        assert box.run("systemctl is-active logd.socket logd-query.socket").split() == [
            "active", "active",
        ]  # fmt: skip
    finally:
        box.run(fix)
        box.run("systemctl start logd")
    status = difference(box.settle(), before)
    assert status["stored"] == 100
    assert status["lost"] == status["quarantined"] == 0


def test_a_temporary_error_is_retried_until_it_is_over(box: Box) -> None:
    """Another program holds the instance's lock when logd starts."""
    hold = (
        "import os, sys, time\n"
        "from logd.config import settings\nfrom logd.instance_lock import instance_lock\n"
        "with instance_lock(settings.load('/etc/logd/logd.toml').lock_file):\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    box.run("systemctl stop logd")
    box.path("/run/test/hold.py").write_text(hold)
    holder = box.popen(f"exec {PYTHON} /run/test/hold.py")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        box.run("systemctl start logd", code=1)
        assert box.show("logd", "ExecMainStatus") == "75"
        assert box.show("logd", "ActiveState") == "activating"
    finally:
        holder.communicate("\n")
    until(lambda: box.show("logd", "ActiveState") == "active", "started by itself")


def test_a_killed_report_process_is_restarted(box: Box) -> None:
    restarts = box.show("logd", "NRestarts")
    pid = box.run("pgrep -f logd.serve.report_server").strip()
    box.run(f"kill -KILL {pid}")
    until(
        lambda: box.try_to("pgrep -f logd.serve.report_server").stdout.strip() not in ("", pid),
        "another",
    )
    assert box.show("logd", "NRestarts") == restarts


def test_a_site_that_failed_to_load_starts_by_itself_once_it_can(box: Box) -> None:
    box.run("mv /etc/classroom/classroom.env /etc/classroom/away")
    box.run("echo CLASSROOM_PROXIES=many > /etc/classroom/classroom.env")
    try:
        box.run("systemctl restart classroom", code=1)
        assert "CLASSROOM_PROXIES" in box.run("journalctl -u classroom -o cat")
        visitor = box.popen("curl --silent --max-time 60 http://127.0.0.1:8000/login")
        until(lambda: box.show("classroom", "ActiveState") == "activating", "tried for a visitor")
    finally:
        box.run("mv /etc/classroom/away /etc/classroom/classroom.env")
    out, _ = visitor.communicate()
    assert "<title>Log in" in out
    assert box.show("classroom.socket", "ActiveState") == "active"
