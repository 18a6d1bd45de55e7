"""The data that the extension keeps of one request until its event is logged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import request
from flask.globals import request_ctx

from logd_client.request_event import valid_request_id

_ATTRIBUTE = "_activity_log_record"


@dataclass
class RequestRecord:
    """One request: its id, its start, and its user.

    `first_user` is the first user known to be logged in during the request. The request's events
    belong to that user, also after a logout or a switch of users. A login starts without one.
    """

    request_id: str
    started_s: float  # the monotonic time of `time.perf_counter()`, in seconds
    first_user: str | None = None
    switched_to: str | None = None
    actor_at_start: str | None = None
    session_user: Any = None  # the user's id in Flask-Login's session; the account may be gone
    crashed: bool = False
    logged: bool = False
    # The properties of ACTIVITY_LOG_EXTRA, from the request's first event on.
    extra: dict[str, Any] | None = None

    def set_current_user(self, user: str | None) -> None:
        """Records who is logged in at this moment of the request."""
        if self.first_user is None:
            self.first_user = user
        self.switched_to = None if user == self.first_user else user


def current_record(request_id_header: str) -> RequestRecord:
    """Returns the record of the current request; creates it if no signal has done so.

    A request context that was pushed by hand sends no signal `request_started`.
    """
    # The record is an attribute of the request, not of `g`:
    # an app context may outlive a request, and a request may call another app, or its own.
    target = request._get_current_object()  # type: ignore[attr-defined] # a LocalProxy's
    record: RequestRecord | None = getattr(target, _ATTRIBUTE, None)
    if record is None:
        request_id = valid_request_id(request.headers.get(request_id_header))
        record = RequestRecord(request_id, time.perf_counter())
        setattr(target, _ATTRIBUTE, record)
    return record


class preserve_session_access:
    """Lets code read the session without setting its `accessed` mark, which adds `Vary: Cookie`."""

    def __enter__(self) -> preserve_session_access:
        # This attribute is what `flask.session` reads; reading the proxy itself would set the mark.
        self._session = getattr(request_ctx, "_session", None)
        self._accessed = getattr(self._session, "accessed", None)
        return self

    def get(self, key: str) -> Any:
        """Returns the session's value for `key`, or None."""
        return None if self._session is None else self._session.get(key)

    def __exit__(self, *_: object) -> None:
        if self._accessed is not None:
            self._session.accessed = self._accessed  # type: ignore[union-attr] # set with `_accessed`
