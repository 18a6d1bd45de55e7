"""The `ActivityLog` class. The package's docstring describes its use."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, has_request_context

from flask_logd.client import ActivityClient
from flask_logd.page_views import PageViews
from flask_logd.settings import read_settings
from flask_logd.state import AppState
from logd_client import Outcome

_STATE = "activity_log"
_PAGE_VIEWS = "activity_log_page_views"


class ActivityLog:
    """The Flask extension. One object serves any number of apps; its state is kept in each app."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Reads the app's settings and starts to log its page views.

        Raises ConfigError, which names the setting, and RuntimeError if the app already has the
        extension.
        """
        if _STATE in app.extensions:
            raise RuntimeError(f"the app {app.name!r} already has an ActivityLog")
        state = app.extensions[_STATE] = AppState(read_settings(app.config))
        if state.settings.enabled:
            # Kept in the app, since a signal does not keep its receivers alive.
            page_views = app.extensions[_PAGE_VIEWS] = PageViews(state)
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
        """Logs one event of the current app; returns True if it was accepted.

        An accepted event will be stored, even if this process or the daemon is killed next.

        `user` is the user of the request unless given: text, a whole number, or an object with
        Flask-Login's `get_id()`, such as `current_user`. Any other object is refused as malformed.
        In a request, `request_id` is added to `props`, and `actor` if someone else acts for `user`.

        With `durable=True` the call waits until the event is on disk, at most `timeout_s` seconds
        (default: ACTIVITY_LOG_DURABLE_TIMEOUT_S), and returns an `Outcome`: STORED, which alone is
        true, REFUSED, or UNKNOWN. The types in ACTIVITY_LOG_DURABLE are durable by default.

        In production it never raises: a failure is counted in `stats()`, and returns False or
        REFUSED. While the app is testing or debugging, a malformed event and every other failure
        raise. Without an app context, or if the app lacks the extension, it raises RuntimeError.
        """
        return _state_of(None).log(event_type, user, durable, timeout_s, props)

    def client(self, app: Flask | None = None) -> ActivityClient:
        """Returns the client of `app`, by default the current app. Raises RuntimeError as `log`."""
        return _state_of(app).client(app or current_app)

    def stats(self) -> dict[str, Any]:
        """Returns the counters of the current app in this process. Raises RuntimeError as `log`.

        These are the client's own; `durable`, the number of durable events stored, refused and
        unknown in time; and `hook_failures`, the number of failures of the extension itself.
        """
        state = _state_of(None)
        return {
            **state.client(current_app).stats(),
            "durable": state.outcomes.by_name(),
            "hook_failures": state.failures.count,
        }

    @property
    def request_id(self) -> str | None:
        """The id that all events of the current request carry; None outside a request."""
        state = _state_of(None)
        return state.current_record().request_id if has_request_context() else None


def _state_of(app: Flask | None) -> AppState:
    # Without an app context `current_app` raises Flask's own RuntimeError, which names the remedy.
    extensions = (app or current_app).extensions
    try:
        state: AppState = extensions[_STATE]
    except KeyError:
        name = (app or current_app).name
        raise RuntimeError(
            f"the app {name!r} has no ActivityLog: call activity.init_app(app) where it is created"
        ) from None
    return state
