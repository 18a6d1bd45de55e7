"""`ActivityLog` itself: bound to apps, asked by their handlers. See the package for its use."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, has_request_context

from flask_logd.client import ActivityClient
from flask_logd.page_views import PageViews
from flask_logd.settings import read_settings
from flask_logd.state import AppLog
from flask_logd.visits import current_visit
from logd_client import Outcome

_LOG = "activity_log"
_PAGE_VIEWS = "activity_log_page_views"


class ActivityLog:
    """The extension. One object serves any number of apps; all state is the app's."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Reads the app's settings and starts to log its page views.

        Raises ConfigError naming the setting, and RuntimeError when the app has the extension.
        """
        if _LOG in app.extensions:
            raise RuntimeError(f"the app {app.name!r} has an ActivityLog already")
        log = app.extensions[_LOG] = AppLog(read_settings(app.config))
        if log.settings.enabled:
            # Held by the app, since a signal does not hold its receivers.
            page_views = app.extensions[_PAGE_VIEWS] = PageViews(log)
            page_views.connect(app)

    def log(
        self,
        event_type: str,
        /,
        *,
        user: object = None,
        durable: bool | None = None,
        timeout_s: float | None = None,
        **props: Any,
    ) -> bool | Outcome:
        """Logs one event of the current app; True when it was accepted and so will be stored.

        `user` is by default the request's; otherwise text, a whole number, or an object with
        Flask-Login's `get_id()`, such as `current_user`. Anything else is refused as malformed. In
        a request, `request_id` is added to `props`, and `actor` where another one acts for `user`.

        An event is durable if `durable` says so, by default if its type is in the setting
        ACTIVITY_LOG_DURABLE. Then this waits up to `timeout_s` seconds (by default
        ACTIVITY_LOG_DURABLE_TIMEOUT_S) until the event is on disk, and returns an `Outcome`:
        STORED, which alone is true, REFUSED, or UNKNOWN. What a page does with an unknown one is
        for its view to say, or for the setting ACTIVITY_LOG_DURABLE_UNKNOWN.

        Never raises in production: what goes wrong is counted (`stats()`) and gives False, or
        REFUSED. While the app is testing or debugging, a malformed event and any other failure
        raise. Without an app context, or with an app that lacks the extension, it raises
        RuntimeError.
        """
        return _log_of(None).log(event_type, user, durable, timeout_s, props)

    def client(self, app: Flask | None = None) -> ActivityClient:
        """The client of `app`, by default of the current one. RuntimeError as for `log`."""
        return _log_of(app).client(app or current_app)

    def stats(self) -> dict[str, Any]:
        """The client's counters for the current app in this process; `durable`: how many durable
        events were stored, refused, unknown in time; and `hook_failures`: how often the extension
        itself failed. RuntimeError as for `log`."""
        log = _log_of(None)
        return {
            **log.client(current_app).stats(),
            "durable": log.outcomes.by_name(),
            "hook_failures": log.failures.count,
        }

    @property
    def request_id(self) -> str | None:
        """The id of the current request, the same in all of its events; None outside a request."""
        log = _log_of(None)
        return current_visit(log.settings).request_id if has_request_context() else None


def _log_of(app: Flask | None) -> AppLog:
    # Without an app context `current_app` raises Flask's own RuntimeError, which says what to do.
    extensions = (app or current_app).extensions
    try:
        log: AppLog = extensions[_LOG]
    except KeyError:
        name = (app or current_app).name
        raise RuntimeError(
            f"the app {name!r} has no ActivityLog: call activity.init_app(app) where it is made"
        ) from None
    return log
