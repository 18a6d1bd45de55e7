"""Log lines that input can cause are written at a bounded rate, with the number left out."""

from __future__ import annotations

import ast
import logging
import re

import pytest

from logd.log_limit import INTERVAL_S, KINDS_MAX, USERS_MAX, ThrottledLog
from tests.support.instance import ROOT

LEFT_OUT = re.compile(r"\((\d+) more like this were not logged\)$")

# What is logged without a limit: once a start, once a step of the clock, or because an
# administrator did something. Whoever adds one here has asked who can cause it.
NOT_BY_INPUT = {
    "wal": {"%s: another program reads or locks it: waiting"},
    "outbox_directory": {"outboxes: %s. They are in %s instead, as clients know"},
    "report_server": {"%s", "reports run at the daemon's own priority: setpriority: %s"},
    "runtime_files": {"%s: %s is there again"},
    "rekey": {
        "%s: left by an incomplete change of the key: removed",
        "%s: an interrupted change of its key is completed",
    },
    "search_index": {
        "searches will read all events: stored data was changed (%s); see logd verify"
    },
    "worker": {"job %d, %s: waits: %s", "job %d, %s: %s", "job %d, %s: stopped: %s"},
    "outbox_survey": {
        "user %d has %d outboxes, more than %d: which of their events are erased is decided by the "
        "time that they claim"
    },
    "trail_clock": {
        "%s: until it is set, or confirmed by `logd prune --yes`, no event is pruned and no old "
        "backup removed"
    },
    "run": {
        "SIGHUP: not reloaded, nothing has changed: %s",
        "the heads of the trail are not signed: %s",
    },
    "log_format": {"logd ended because of a bug in it"},
}


class Log(ThrottledLog):
    """With a clock that is set."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(logging.getLogger("logd.test"), lambda: self._now_s)

    def at(self, now_s: float) -> Log:
        self._now_s = now_s
        return self


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level("INFO", "logd.test")
    return Log()


def test_one_line_for_a_kind_and_user_in_an_interval(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(1000):
        log.at(n / 1000).warning("%s: damaged", n, user=1000)
        log.at(n / 1000).warning("%s: damaged", n, user=1001)
        log.at(n / 1000).warning("%s: given up", n, user=1000)
    assert caplog.messages == ["0: damaged", "0: damaged", "0: given up"]
    caplog.clear()
    log.at(INTERVAL_S).warning("%s: damaged", "x", user=1000)
    assert caplog.messages == ["x: damaged (999 more like this were not logged)"]
    caplog.clear()
    log.at(2 * INTERVAL_S).warning("%s: damaged", "y", user=1000)
    assert caplog.messages == ["y: damaged"]


def test_any_number_of_users_makes_few_lines_and_every_one_is_counted(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0
    for step in range(3):
        for user in range(5000):
            for _ in range(1 + (user < USERS_MAX)):
                log.at(step * INTERVAL_S).warning("damaged", user=step * 10_000 + user)
                calls += 1
        assert len(caplog.messages) <= (step + 1) * (USERS_MAX + 1)
        assert sum(map(len, log._kinds.values())) <= USERS_MAX + 1
    for user in range(USERS_MAX + 1):  # whoever has a place, and the shared one
        log.at(4 * INTERVAL_S).warning("damaged", user=100_000 + user)
        calls += 1
    left_out = sum(int(found[1]) for found in map(LEFT_OUT.search, caplog.messages) if found)
    assert len(caplog.messages) + left_out == calls


def test_a_user_keeps_its_place_for_an_interval_and_not_longer(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for user in range(USERS_MAX):
        log.at(0.0).warning("%s: damaged", user, user=user)
    for user in range(USERS_MAX):
        log.at(1.0).warning("%s: damaged", user, user=user)
    assert len(caplog.messages) == USERS_MAX
    caplog.clear()
    for user in range(USERS_MAX):  # quiet for an interval: others have their places
        log.at(INTERVAL_S).warning("%s: damaged", user, user=100 + user)
    assert caplog.messages == [f"{user}: damaged" for user in range(USERS_MAX)]


def test_an_exception_is_logged_with_its_traceback_at_the_same_rate(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for now_s in (0.0, 1.0, INTERVAL_S):
        try:
            raise ValueError(now_s)
        except ValueError:
            log.at(now_s).exception("%s failed", "it")
    first, second = caplog.records
    assert (first.levelno, first.getMessage()) == (logging.ERROR, "it failed")
    assert second.getMessage() == "it failed (1 more like this were not logged)"
    assert first.exc_info and second.exc_info
    caplog.clear()
    log.at(INTERVAL_S).warning("a warning")
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING and not warning.exc_info


def test_any_number_of_kinds_takes_bounded_memory(log: Log) -> None:
    for n in range(1000):
        log.at(0.0).warning(f"kind {n}")
    assert len(log._kinds) <= KINDS_MAX + 1


def test_whatever_input_can_cause_goes_through_the_limit() -> None:
    paths = sorted((ROOT / "logd").rglob("*.py"))
    assert NOT_BY_INPUT.keys() <= {path.stem for path in paths}
    for path in paths:
        direct = {
            node.args[0].value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "_log"
            and node.func.attr in {"warning", "error", "critical", "exception"}
            and isinstance(node.args[0], ast.Constant)
        }
        assert direct <= NOT_BY_INPUT.get(path.stem, set()), path
