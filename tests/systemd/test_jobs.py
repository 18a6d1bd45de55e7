"""The nightly jobs as installed: scheduled, successful, and safe with a wrong clock."""

from __future__ import annotations

import pytest

from tests.systemd.box import Box
from tests.systemd.load import emit

pytestmark = pytest.mark.booted
TIMERS = ("logd-backup", "logd-prune", "logd-verify")
RECONCILE = "classroom-reconcile"


@pytest.mark.parametrize("job", [*TIMERS, RECONCILE])
def test_every_timer_is_scheduled(box: Box, job: str) -> None:
    assert box.show(f"{job}.timer", "ActiveState") == "active"
    assert box.show(f"{job}.timer", "NextElapseUSecRealtime") not in ("", "infinity")


@pytest.mark.parametrize("job", [*TIMERS, RECONCILE])
def test_what_a_timer_starts_succeeds(box: Box, job: str) -> None:
    assert emit(box, 10)["accepted"] == 10
    box.settle()
    box.run(f"systemctl start {job}")
    assert box.show(job, "Result") == "success"
    assert "Traceback" not in box.run(f"journalctl -u {job} -o cat")
    assert "whole" in box.run("logd verify")


def test_a_stopped_site_stops_its_timer_and_a_missing_event_is_added(box: Box) -> None:
    box.run("systemctl stop classroom")
    try:
        assert box.show(f"{RECONCILE}.timer", "ActiveState") == "inactive"
    finally:
        box.run("systemctl start classroom")
    assert box.show(f"{RECONCILE}.timer", "ActiveState") == "active"
    # As the site's own user, with its access to both sockets.
    assert "emitted: 0" in box.run("classroom reconcile")


def test_a_stopped_target_stops_the_timers_too(box: Box) -> None:
    box.run("systemctl stop logd.target")
    try:
        for job in TIMERS:
            assert box.show(f"{job}.timer", "ActiveState") == "inactive"
    finally:
        box.run("systemctl start logd.target")


# Nothing in the box can set its clock, so the last trusted reading in the trail is changed instead,
# which has the same effect on the jobs.
SEEN = """
import sys, time
from logd.config import settings
from logd.storage import keyfile, trail_clock
from logd.clock.readings import Reading
from logd.storage.database import connect
loaded = settings.load("/etc/logd/logd.toml")
connection = connect(loaded.database, keyfile.read_file(loaded.key_file))
seen_ns = time.time_ns() + int(sys.argv[1]) * 86_400 * 10**9
trail_clock.save(connection, Reading(seen_ns, "a boot before", 0))
connection.close()
"""


@pytest.mark.parametrize("ahead_days", [730, -3650], ids=["two years ahead", "ten years behind"])
def test_with_a_wrong_clock_the_jobs_remove_nothing_and_name_the_remedy(
    box: Box, ahead_days: int
) -> None:
    toml = box.path("/etc/logd/logd.toml")
    before = toml.read_text()
    toml.write_text(before.replace("# retention.page_view", "retention.page_view"))
    box.path("/run/test/seen.py").write_text(SEEN)
    assert emit(box, 10)["accepted"] == 10
    box.settle()
    made_before = set(box.run("ls /var/backups/logd").split())
    old = [f"/var/backups/logd/activity-2020010{day}T000000Z.db" for day in (1, 2, 3)]
    try:
        box.run(f"touch {' '.join(old)} && systemctl restart logd")
        python = "/usr/local/lib/logd/bin/python"
        box.run(f"{python} -I /run/test/seen.py {-ahead_days}")
        for job, act in (("logd-backup", "older backup was removed"), ("logd-prune", "event was")):
            assert box.try_to(f"systemctl start {job}").returncode != 0
            assert box.show(job, "ExecMainStatus") == "75"
            output = box.run(f"journalctl -u {job} -o cat -n 20")
            assert f"no {act}" in output and "run this again with --yes" in output
        box.run(f"ls {' '.join(old)}")
        box.run("systemctl start logd-verify")
        box.run("logd prune --yes")
        for job in TIMERS:
            box.run(f"systemctl start {job}")
            assert box.show(job, "Result") == "success"
    finally:
        toml.write_text(before)
        box.run(f"rm -f {' '.join(old)} && logd backup --yes && systemctl restart logd")
        # Their names have a time in the future, so they would count as the newest.
        made = set(box.run("ls /var/backups/logd").split()) - made_before
        box.run(f"cd /var/backups/logd && rm -f {' '.join(sorted(made))}")
