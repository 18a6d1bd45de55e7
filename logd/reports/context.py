"""What a report knows of the process that answers it (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from logd.config.settings import Config


@dataclass(frozen=True)
class Context:
    """The context of a report: the instance's configuration, None without an instance."""

    config: Config | None = None
