"""What a changed logd.toml changes in a running daemon, and what waits for its restart (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from logd.config.settings import Config

# What the daemon asks for at each use.
LIVE = frozenset({"stop_timeout_s", "outboxes_bytes_max", "anchor_interval_s", "anchor_file"})
# What the report process reads when it starts: it is started again.
REPORTS = frozenset({"query_uids", "query_group", "metrics", "metrics_socket_mode"})
# What no daemon uses: each command reads it for itself.
COMMANDS = frozenset({"retention", "backup_directory", "backup_keep_days", "backup_keep_min"})


@dataclass(frozen=True)
class Reload:
    """The settings that have changed, by what becomes of them; `config` is in use from now on."""

    config: Config
    live: tuple[str, ...]
    reports: tuple[str, ...]
    commands: tuple[str, ...]
    restart: tuple[str, ...]

    def parts(self) -> Iterator[str]:
        """For the log, a part for each kind that there is."""
        for names, text in (
            (self.live, "in use now: {}"),
            (self.reports, "the report process is started again for {}"),
            (self.commands, "commands use {} from now on"),
            (self.restart, "a restart is needed for {}"),
        ):
            if names:
                yield text.format(", ".join(names))


def compare(running: Config, read: Config, outboxes: Path) -> Reload:
    """What `read`, a later state of the file that `running` came from, changes.

    `outboxes` is the directory in use, which need not be the one that was asked for.
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
