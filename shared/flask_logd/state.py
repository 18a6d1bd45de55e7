"""The extension's state for one app, in `app.extensions`: its settings, client and counters."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Flask, current_app, has_request_context

from flask_logd.attribution import attribute
from flask_logd.callables import Callables
from flask_logd.client import ActivityClient, DisabledClient
from flask_logd.durable import OutcomeCounts
from flask_logd.event_time import time_ns
from flask_logd.failures import Failures, is_developing
from flask_logd.identity import Unidentified, identity
from flask_logd.job import current as job_of
from flask_logd.request_record import RequestRecord, current_record
from flask_logd.settings import Settings
from logd_client import Outcome


class AppState:
    """One app's settings, client and counters; every event of the app goes through it."""

    def __init__(self, settings: Settings) -> None:
        self.failures = failures = Failures()
        self.settings = replace(
            settings,
            user=settings.user and failures.timing("ACTIVITY_LOG_USER", settings.user),
            actor=settings.actor and failures.timing("ACTIVITY_LOG_ACTOR", settings.actor),
        )
        self.callables = Callables(failures, settings.extra, settings.keep)
        self.outcomes = OutcomeCounts()
        self._client: ActivityClient | None = None if settings.enabled else DisabledClient()
        self._client_lock = threading.Lock()

    def client(self, app: Flask) -> ActivityClient:
        """Returns the app's client, which is created at the first call.

        It is not created earlier: `app.testing` is often set only after `init_app`, and a server
        may load the app and then fork its workers.
        """
        if self._client is None:
            # The client is made outside the lock,
            # since the app's own factory may log or wait for a thread.
            made = self.settings.client_factory(
                self.settings.socket_path,
                strict=is_developing(app),
                **self.settings.client_options,
            )
            with self._client_lock:
                if self._client is None:
                    self._client = made
            if self._client is not made:
                made.close()  # otherwise another thread was first
        return self._client

    def log(
        self,
        event_type: str,
        user: object,
        durable: bool | None,
        timeout_s: float | None,
        ts: object,
        props: Any,
    ) -> bool | Outcome:
        """Logs one event of the current app, as described at `ActivityLog.log`."""
        app = current_app._get_current_object()  # type: ignore[attr-defined] # a LocalProxy's
        policy = self.settings.durable
        if durable is None:
            durable = isinstance(event_type, str) and event_type in policy.types
        with self.failures.suppress(app):
            record = self.current_record() if has_request_context() else None
            job = job_of(app)
            if job is not None:
                user = job.user if user is None else user
                props = {**job.props, **props} if isinstance(props, Mapping) else props
            owner, acting = self.attribute(app, record, user)
            event = self._event(app, event_type, owner, ts, props, record, acting)
            if event is not None:
                if not durable:
                    return self.client(app).emit(event_type, **event)
                timeout_s = policy.timeout_s if timeout_s is None else timeout_s
                return self._log_durable(app, event_type, timeout_s, event)
        return self._counted(Outcome.REFUSED) if durable else False

    def log_request(
        self, app: Flask, event_type: str, user: Any, record: RequestRecord, props: dict[str, Any]
    ) -> None:
        """Logs the event of a request; `props` take precedence over ACTIVITY_LOG_EXTRA's."""
        left: dict[str, Any] | None = props
        if self.callables.are_set:
            left = {**self._extra(app, record), **props}
            left = self.callables.filtered_props(app, event_type, user, left)
        if left is not None:
            self.client(app).emit(event_type, user=user, props=left)

    def _event(
        self,
        app: Flask,
        event_type: str,
        user: Any,
        ts: object,
        props: Any,
        record: RequestRecord | None,
        acting: dict[str, str | None],
    ) -> dict[str, Any] | None:
        """Returns the arguments to call the client with; None if the filter drops the event."""
        event = {"user": user}
        if ts is not None:
            event["ts_ns"] = time_ns(ts, strict=is_developing(app))
        # If `props` is no mapping, the client refuses the event as malformed.
        if isinstance(props, Mapping):
            if record is not None:
                extra = self._extra(app, record)
                props = {**extra, "request_id": record.request_id, **acting, **props}
            props = self.callables.filtered_props(app, event_type, user, dict(props))
            if props is None:
                return None
        return {**event, "props": props}

    def _extra(self, app: Flask, record: RequestRecord) -> dict[str, Any]:
        if record.extra is None:
            record.extra = {}  # set before the call, in case the function logs an event itself
            record.extra = self.callables.extra_props(app)
        return record.extra

    def current_record(self) -> RequestRecord:
        """Returns the record of the current request."""
        return current_record(self.settings.request_id_header)

    def attribute(
        self, app: Flask, record: RequestRecord | None, named: object = None
    ) -> tuple[Any, dict[str, str | None]]:
        """Returns an event's user, and the properties that name who acts for that user.

        An object that identifies no user is passed on as it is: the client refuses the event,
        counts it as malformed and reports it. While the app is testing or debugging, it raises.
        """
        try:
            if record is None:
                return identity(named), {}
            return attribute(record, self.settings, named)
        except Unidentified as error:
            if is_developing(app):
                raise
            return error.given, {}

    def _log_durable(
        self, app: Flask, event_type: str, timeout_s: float, event: dict[str, Any]
    ) -> Outcome:
        # Outside a request no user can be told, and the stored event must not say that one was.
        tell_user = self.settings.durable.tell_user and has_request_context()
        outcome = self.client(app).emit_durable(
            event_type, timeout_s=timeout_s, tell_user=tell_user, **event
        )
        if outcome is Outcome.UNKNOWN and tell_user:
            # The outcome stays the same if the message cannot be flashed.
            with self.failures.suppress(app):
                self.settings.durable.flash_message()
        return self._counted(outcome)

    def _counted(self, outcome: Outcome) -> Outcome:
        self.outcomes.add(outcome)
        return outcome
