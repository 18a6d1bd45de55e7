"""One app's log: its settings, its client, and the one place where its events are handed over."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask, current_app, has_request_context

from flask_logd.client import ActivityClient, Disabled
from flask_logd.durable import OutcomeCounts
from flask_logd.failures import Failures, is_developing
from flask_logd.identity import Unidentified, identity
from flask_logd.settings import Settings
from flask_logd.visits import Visit, attribution, current_visit
from logd_client import Outcome


class AppLog:
    """The extension's state for one app, as it lies in `app.extensions`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failures = Failures()
        self.outcomes = OutcomeCounts()
        self._client: ActivityClient | None = None if settings.enabled else Disabled()
        self._client_lock = threading.Lock()

    def client(self, app: Flask) -> ActivityClient:
        """The app's client, made at first use: `app.testing` is often set only after `init_app`,
        and a server may load the app and then fork its workers."""
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
        """`ActivityLog.log`, for the current app."""
        app = current_app
        policy = self.settings.durable
        if durable is None:
            durable = isinstance(event_type, str) and event_type in policy.types
        with self.failures.harmless(app):
            visit = current_visit(self.settings) if has_request_context() else None
            owner, who = self.attribution(app, visit, user)
            if visit is not None:
                props = {"request_id": visit.request_id, **who, **props}
            if durable:
                timeout_s = policy.timeout_s if timeout_s is None else timeout_s
                return self._log_durable(app, event_type, owner, timeout_s, props)
            return self.client(app).emit(event_type, user=owner, props=props)
        return self._counted(Outcome.REFUSED) if durable else False

    def attribution(
        self, app: Flask, visit: Visit | None, named: object = None
    ) -> tuple[Any, dict[str, str | None]]:
        """Whose an event is, and what its properties say of it; see `visits.attribution`.

        What identifies nobody is handed on as it is, for the client to refuse, count and report as
        malformed. It raises while the app is testing or debugging.
        """
        try:
            if visit is None:
                return identity(named), {}
            return attribution(visit, self.settings, named)
        except Unidentified as error:
            if is_developing(app):
                raise
            return error.given, {}

    def _log_durable(
        self, app: Flask, event_type: str, user: Any, timeout_s: float, props: dict[str, Any]
    ) -> Outcome:
        # Outside a request there is nobody to tell, and the trail must not say that there was.
        tell_user = self.settings.durable.tell_user and has_request_context()
        outcome = self.client(app).emit_durable(
            event_type, user=user, props=props, timeout_s=timeout_s, tell_user=tell_user
        )
        if outcome is Outcome.UNKNOWN and tell_user:
            with self.failures.harmless(app):  # whatever becomes of it, the outcome is this
                self.settings.durable.tell()
        return self._counted(outcome)

    def _counted(self, outcome: Outcome) -> Outcome:
        self.outcomes.add(outcome)
        return outcome
