"""`ActivityLog`, the Flask extension; see `webapp.activity.extension`."""

from webapp.activity.extension import ActivityClient, ActivityLog, ConfigError

__all__ = ["ActivityClient", "ActivityLog", "ConfigError"]
