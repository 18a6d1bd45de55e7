"""Texts that `make run` prints: how to use the site, and how many events were stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from webapp.run.plan import Plan


def ready_text(plan: Plan, accounts: Iterable[tuple[str, str, str]]) -> str:
    """Returns the text for a running site; `accounts` are role, user name and password."""
    rows = [("role", "user name", "password"), *accounts]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = (f"    {row[0]:<{widths[0]}}   {row[1]:<{widths[1]}}   {row[2]}" for row in rows)
    logd = shown(Path(plan.logd_run[0]))
    return "\n".join(
        [
            "",
            f"  The Classroom is open: {plan.url}",
            "",
            *table,
            "",
            f"    files   {shown(plan.var)}",
            f"    watch   {logd} tail --follow --config {shown(plan.config)}",
            "    stop    Ctrl-C",
            "",
        ]
    )


def shown(path: Path) -> str:
    """Returns the path as a user would type it: relative, if it is below the current directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def totals_text(status: Mapping[str, object]) -> str:
    """Returns the line of totals that a run ends with, from `logd status --json`."""
    return ", ".join(f"{name} {status.get(name, '?')}" for name in ("stored", "pending", "lost"))
