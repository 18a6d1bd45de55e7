"""What the timers start every night runs as it is installed, and says nothing but that it did."""

from __future__ import annotations

import pytest

from tests.systemd.box import Box
from tests.systemd.load import emit

pytestmark = pytest.mark.booted
TIMERS = ("logd-backup", "logd-prune", "logd-verify")


@pytest.mark.parametrize("job", TIMERS)
def test_a_timer_waits_for_its_night(box: Box, job: str) -> None:
    assert box.show(f"{job}.timer", "ActiveState") == "active"
    assert box.show(f"{job}.timer", "NextElapseUSecRealtime") not in ("", "infinity")


@pytest.mark.parametrize("job", TIMERS)
def test_what_it_starts_ends_well(box: Box, job: str) -> None:
    # A command or an option that logd does not know ends with 2, whatever else is asked.
    command = box.show(job, "ExecStart").split(" -m logd ")[1].split(" ;")[0]
    if box.try_to(f"logd {command} --help").returncode:
        pytest.skip(f"there is no `logd {command}` yet")
    assert emit(box, 10)["accepted"] == 10
    box.settle()
    box.run(f"systemctl start {job}")
    assert box.show(job, "Result") == "success"
    assert "Traceback" not in box.run(f"journalctl -u {job} -o cat")
    assert "whole" in box.run("logd verify")


def test_a_stopped_target_stops_the_timers_too(box: Box) -> None:
    box.run("systemctl stop logd.target")
    try:
        for job in TIMERS:
            assert box.show(f"{job}.timer", "ActiveState") == "inactive"
    finally:
        box.run("systemctl start logd.target")
