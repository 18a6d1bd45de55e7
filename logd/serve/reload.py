"""Sorts the changes in a reloaded logd.toml by when they take effect: now or after a restart.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from logd.config.settings import Config

# Settings that the daemon reads each time it uses them.
LIVE = frozenset({"stop_timeout_s", "outboxes_bytes_max", "anchor_interval_s", "anchor_file"})
# Settings that the report process reads at its start, so that it is restarted for them.
REPORTS = frozenset({"query_uids", "query_group", "metrics", "metrics_socket_mode"})
# Settings that only commands use, and read when they start.
COMMANDS = frozenset(
    {
        "apps",
        "retention",
        "backup_directory",
        "backup_keep_days",
        "backup_keep_min",
        "former_trails",
    }
)


@dataclass(frozen=True)
class Reload:
    """The changed settings, by when they take effect, and the configuration to use from now on."""

    config: Config
    live: tuple[str, ...]
    reports: tuple[str, ...]
    commands: tuple[str, ...]
    restart: tuple[str, ...]

    def parts(self) -> Iterator[str]:
        """Yields a part of the log line for each kind of change."""
        for names, text in (
            (self.live, "in use now: {}"),
            (self.reports, "the report process is restarted for {}"),
            (self.commands, "commands use {} from now on"),
            (self.restart, "a restart is needed for {}"),
        ):
            if names:
                yield text.format(", ".join(names))


def compare(running: Config, read: Config, outboxes: Path) -> Reload:
    """Compares a reloaded configuration, `read`, with the one in use.

    `outboxes` is the directory in use, which may differ from the configured one.
    """
    changed = [
        one.name
        for one in fields(Config)
        if getattr(read, one.name) != getattr(running, one.name)
        and not (one.name == "outbox_directory" and read.outbox_directory == outboxes)
    ]
    live, reports, commands = (
        tuple(name for name in changed if name in kind) for kind in (LIVE, REPORTS, COMMANDS)
    )
    taken = {*live, *reports, *commands}
    return Reload(
        replace(running, **{name: getattr(read, name) for name in taken}),
        live,
        reports,
        commands,
        tuple(name for name in changed if name not in taken),
    )
