"""`logd check`: what to put right before it hurts.

A failure is what loses events, shows them to strangers, or keeps logd from starting; a warning
what may. Each says what to do.
"""

from __future__ import annotations

from logd.config.settings import Config
from logd.status.checks import check_instance, check_machine, facts
from logd.status.checks.facts import Facts
from logd.status.checks.findings import Finding


def judge(found: Facts) -> list[Finding]:
    """Every check, in the order in which one would put things right."""
    checks = (*check_instance.CHECKS, *check_machine.CHECKS)
    return [finding for check in checks for finding in check(found)]


def check(config: Config) -> list[Finding]:
    """Looks at the instance and its machine, and judges them."""
    return judge(facts.gather(config))
