"""Calls the app's functions that add properties to events or filter events, before the client.

These functions run in the request, without any lock. Whatever they do, no request fails: an
exception is counted and logged, and the event says that properties are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import msgpack
from flask import Flask, has_request_context

from flask_logd.failures import Failures, Occurrences, is_developing
from flask_logd.request_record import preserve_session_access
from logd_client.values import plain_props
from logd_wire.schema import type_name

ExtraCallable = Callable[[], Mapping[str, Any] | None]
# A filter is called with the event's type, user and properties,
# and returns the properties to store, or None to drop the event.
FilterCallable = Callable[[str, str | None, dict[str, Any]], Mapping[str, Any] | None]

# The most bytes of packed extra properties. An event has room for 32 KiB,
# and the app's own properties must not be refused because of extra ones.
EXTRA_BYTES_MAX = 4096

EXTRA_ERROR, FILTER_ERROR = "extra_error", "filter_error"

# Whether the filter runs at the moment, in this thread or task.
_filtering: ContextVar[bool] = ContextVar("activity_log_filtering", default=False)


class BadResult(TypeError):
    """Raised when a function set by the application returns a value that is not allowed."""


class LoggedInFilter(RuntimeError):
    """ACTIVITY_LOG_FILTER logged an event, for which it would be called again without end."""


class Callables:
    """Calls the functions that the app has set as ACTIVITY_LOG_EXTRA and ACTIVITY_LOG_FILTER."""

    def __init__(
        self, failures: Failures, extra: ExtraCallable | None, keep: FilterCallable | None
    ) -> None:
        self._failures = failures
        self._extra = extra and failures.timing("ACTIVITY_LOG_EXTRA", extra)
        self._keep = keep and failures.timing("ACTIVITY_LOG_FILTER", keep)
        self._dropped = Occurrences()

    @property
    def are_set(self) -> bool:
        """Whether the app has set either of the two functions."""
        return self._extra is not None or self._keep is not None

    @property
    def dropped(self) -> int:
        """The number of events that the filter has dropped."""
        return self._dropped.count

    def extra_props(self, app: Flask) -> dict[str, Any]:
        """Returns the properties that ACTIVITY_LOG_EXTRA gives for the current request.

        After an exception the only property is `extra_error`, the exception's type. While the app
        is testing or debugging, the exception is raised.
        """
        if self._extra is None:
            return {}
        strict = is_developing(app)
        try:
            with preserve_session_access():
                return _bounded(self._extra(), strict)
        except Exception as error:
            if strict:
                raise
            self._failures.record(app, error)
            return {EXTRA_ERROR: type_name(type(error))}

    def filtered_props(
        self, app: Flask, event_type: str, user: str | None, props: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Returns the properties that ACTIVITY_LOG_FILTER leaves; None for an event that it drops.

        After an exception only `request_id` is left, with `filter_error`, the exception's type,
        since any other property may be what the filter is to redact. While the app is testing or
        debugging, the exception is raised.
        """
        if self._keep is None:
            return props
        if _filtering.get():
            raise LoggedInFilter("ACTIVITY_LOG_FILTER logged an event")
        request_id = {name: props[name] for name in ("request_id",) if name in props}
        running = _filtering.set(True)
        try:
            in_request = preserve_session_access() if has_request_context() else nullcontext()
            with in_request:
                left = self._keep(event_type, user, props)
            if left is not None and not isinstance(left, Mapping):
                raise BadResult(f"ACTIVITY_LOG_FILTER returned a {type_name(type(left))}")
            if left is None:
                self._dropped.add()
            return None if left is None else dict(left)
        except Exception as error:
            if is_developing(app):
                raise
            self._failures.record(app, error)
            return {**request_id, FILTER_ERROR: type_name(type(error))}
        finally:
            _filtering.reset(running)


def _bounded(extra: Any, strict: bool) -> dict[str, Any]:
    """Returns a copy of the extra properties, which the app cannot change any more.

    Raises BadResult if their packed form is longer than EXTRA_BYTES_MAX.
    """
    if extra is None:
        return {}
    plain = plain_props(extra, strict)
    if len(msgpack.packb(plain)) > EXTRA_BYTES_MAX:
        raise BadResult(f"ACTIVITY_LOG_EXTRA returned over {EXTRA_BYTES_MAX} bytes")
    return plain
