"""Runs every check of `logd check`.

A finding fails if events are being lost or exposed, or logd cannot start; it warns if that may
happen later.
"""

from __future__ import annotations

from logd.config.settings import Config
from logd.status.checks import check_instance, check_machine, facts
from logd.status.checks.facts import Facts
from logd.status.checks.findings import Finding


def judge(found: Facts) -> list[Finding]:
    """Runs every check on the facts, in the order in which problems should be fixed."""
    checks = (*check_instance.CHECKS, *check_machine.CHECKS)
    return [finding for check in checks for finding in check(found)]


def check(config: Config) -> list[Finding]:
    """Checks the instance and its machine."""
    return judge(facts.gather(config))
