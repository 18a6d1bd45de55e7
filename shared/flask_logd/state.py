"""The extension's state for one app, in `app.extensions`: settings, client, counters."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask, current_app, has_request_context

from flask_logd.attribution import attribute
from flask_logd.client import ActivityClient, DisabledClient
from flask_logd.durable import OutcomeCounts
from flask_logd.failures import Failures, is_developing
from flask_logd.identity import Unidentified, identity
from flask_logd.request_record import RequestRecord, current_record
from flask_logd.settings import Settings
from logd_client import Outcome


class AppState:
    """One app's settings, client and counters; every event of the app goes through it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failures = Failures()
        self.outcomes = OutcomeCounts()
        self._client: ActivityClient | None = None if settings.enabled else DisabledClient()
        self._client_lock = threading.Lock()

    def client(self, app: Flask) -> ActivityClient:
        """Returns the app's client, created at first use.

        Not before: `app.testing` is often set only after `init_app`, and a server may load the app
        and then fork its workers.
        """
        if self._client is None:
            with self._client_lock:
                if self._client is None:
                    self._client = self.settings.client_factory(
                        self.settings.socket_path,
                        strict=is_developing(app),
                        **self.settings.client_options,
                    )
        return self._client

    def log(
        self,
        event_type: str,
        user: object,
        durable: bool | None,
        timeout_s: float | None,
        props: dict[str, Any],
    ) -> bool | Outcome:
        """Logs one event of the current app, as `ActivityLog.log` describes."""
        app = current_app
        policy = self.settings.durable
        if durable is None:
            durable = isinstance(event_type, str) and event_type in policy.types
        with self.failures.suppress(app):
            record = self.current_record() if has_request_context() else None
            owner, acting = self.attribute(app, record, user)
            if record is not None:
                props = {"request_id": record.request_id, **acting, **props}
            if durable:
                timeout_s = policy.timeout_s if timeout_s is None else timeout_s
                return self._log_durable(app, event_type, owner, timeout_s, props)
            return self.client(app).emit(event_type, user=owner, props=props)
        return self._counted(Outcome.REFUSED) if durable else False

    def current_record(self) -> RequestRecord:
        """Returns the record of the current request."""
        return current_record(self.settings.request_id_header)

    def attribute(
        self, app: Flask, record: RequestRecord | None, named: object = None
    ) -> tuple[Any, dict[str, str | None]]:
        """Returns an event's user and the properties that name who acts; see `attribution`.

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
        self, app: Flask, event_type: str, user: Any, timeout_s: float, props: dict[str, Any]
    ) -> Outcome:
        # Outside a request no user can be told, so the stored event must not claim it.
        tell_user = self.settings.durable.tell_user and has_request_context()
        outcome = self.client(app).emit_durable(
            event_type, user=user, props=props, timeout_s=timeout_s, tell_user=tell_user
        )
        if outcome is Outcome.UNKNOWN and tell_user:
            with self.failures.suppress(app):  # a failure to flash does not change the outcome
                self.settings.durable.flash_message()
        return self._counted(outcome)

    def _counted(self, outcome: Outcome) -> Outcome:
        self.outcomes.add(outcome)
        return outcome
