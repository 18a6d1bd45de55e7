"""The `ActivityLog` class. The package's docstring describes its use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal, ParamSpec, TypeVar, overload

from flask import Flask, current_app, has_request_context

from flask_logd import decorator, job
from flask_logd.client import ActivityClient
from flask_logd.page_views import PageViews
from flask_logd.settings import read_settings
from flask_logd.state import AppState
from logd_client import Outcome

P = ParamSpec("P")
R = TypeVar("R")

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
            # The app keeps the object, since a signal does not keep its receivers alive.
            page_views = app.extensions[_PAGE_VIEWS] = PageViews(state)
            page_views.connect(app)

    @overload
    def log(
        self,
        event_type: str,
        /,
        *,
        user: object = None,
        durable: Literal[True],
        timeout_s: float | None = None,
        ts: datetime | int | None = None,
        props: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Outcome: ...

    @overload
    def log(
        self,
        event_type: str,
        /,
        *,
        user: object = None,
        durable: Literal[False],
        timeout_s: float | None = None,
        ts: datetime | int | None = None,
        props: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> bool: ...

    @overload
    def log(
        self,
        event_type: str,
        /,
        *,
        user: object = None,
        durable: bool | None = None,
        timeout_s: float | None = None,
        ts: datetime | int | None = None,
        props: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> bool | Outcome: ...

    def log(
        self,
        event_type: str,
        /,
        *,
        user: object = None,
        durable: bool | None = None,
        timeout_s: float | None = None,
        ts: datetime | int | None = None,
        props: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> bool | Outcome:
        """Logs one event of the current app; returns True if it was accepted.

        An accepted event will be stored, even if this process or the daemon is killed next.

        The properties are `named` and `props`, which also takes names that are arguments of this
        method, such as `user`. `ts` is when it happened: a datetime with a time zone, or
        nanoseconds as of `time.time_ns()`; by default now.

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
        given: Any = named
        if props is not None:  # if `props` is no mapping, the client refuses the event as malformed
            given = {**props, **named} if isinstance(props, Mapping) else props
        return _state_of(None).log(event_type, user, durable, timeout_s, ts, given)

    def logged(
        self,
        event_type: str,
        /,
        *arguments: str,
        durable: bool | None = None,
        props: Mapping[str, Any] | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorates a function, so that an event is logged each time the function succeeds.

        The event's properties are `props` and the function's arguments that are named in
        `arguments`; of a view without any named, all arguments of its URL. A view succeeds unless
        it raises (`abort` raises too) or returns an answer with a status of 400 or more.

            @app.post("/tasks/<int:task>/complete")
            @activity.logged("task_completed")
            def complete(task: int) -> str: ...

        Put it right above the function: above `login_required` it would log what that redirects.
        """

        def log(chosen: Mapping[str, Any]) -> object:
            return self.log(event_type, durable=durable, props={**chosen, **(props or {})})

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            return decorator.logging_after(function, arguments, lambda: _state_of(None), log)

        return decorate

    def context(
        self, *, user: object = None, props: Mapping[str, Any] | None = None, **named: Any
    ) -> AbstractContextManager[None]:
        """Gives the events that are logged in a `with` block a user and common properties.

        Use it outside requests: `with app.app_context(), activity.context(user=7, job="grades")`.
        Arguments of `log` take precedence over the block's. The block applies to this thread or
        task, and not to requests that the job makes to its own app.
        """
        _state_of(None)  # raises RuntimeError if nothing could be logged here
        app = current_app._get_current_object()  # type: ignore[attr-defined] # a LocalProxy's
        return job.running(app, user, {**(props or {}), **named})

    def client(self, app: Flask | None = None) -> ActivityClient:
        """Returns the client of `app`, by default the current app.

        Raises RuntimeError as `log` does.
        """
        return _state_of(app).client(app or current_app)

    def stats(self) -> dict[str, Any]:
        """Returns the counters of the current app in this process.

        Raises RuntimeError as `log` does.

        To the client's counters are added: `durable`, the durable events by outcome (stored,
        refused, unknown at the timeout); `filtered`, the events that ACTIVITY_LOG_FILTER dropped;
        `hook_failures`, the failures of the extension and of the app's own functions; `slow_calls`,
        the calls of such a function that took more than 50 ms.
        """
        state = _state_of(None)
        return {
            **state.client(current_app).stats(),
            "durable": state.outcomes.by_name(),
            "filtered": state.callables.dropped,
            "hook_failures": state.failures.count,
            "slow_calls": state.failures.slow_calls,
        }

    @property
    def request_id(self) -> str | None:
        """The id that all events of the current request carry; None outside a request."""
        state = _state_of(None)
        return state.current_record().request_id if has_request_context() else None


def _state_of(app: Flask | None) -> AppState:
    # Without an app context `current_app` raises Flask's RuntimeError, which says what to do.
    extensions = (app or current_app).extensions
    try:
        state: AppState = extensions[_STATE]
    except KeyError:
        name = (app or current_app).name
        raise RuntimeError(
            f"the app {name!r} has no ActivityLog: call activity.init_app(app) where it is created"
        ) from None
    return state
