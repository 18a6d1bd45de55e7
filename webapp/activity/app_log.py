"""One app's log: its settings, its client, and the one place where its events are handed over."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask, current_app, has_request_context

from webapp.activity.client import ActivityClient, Disabled
from webapp.activity.failures import Failures, is_developing
from webapp.activity.settings import Settings
from webapp.activity.visits import UnreadSession, current_visit, user_of


class AppLog:
    """The extension's state for one app, as it lies in `app.extensions`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failures = Failures()
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
        user: str | int | None,
        durable: bool,
        timeout_s: float,
        props: dict[str, Any],
    ) -> bool:
        """`ActivityLog.log`, for the current app."""
        app = current_app
        with self.failures.harmless(app):
            if has_request_context():
                visit = current_visit(self.settings)
                props = {"request_id": visit.request_id, **props}
                if user is None:
                    with UnreadSession():
                        user = user_of(visit, self.settings)
            return self.client(app).emit(
                event_type,
                user=None if user is None else str(user),
                props=props,
                durable=durable,
                timeout_s=timeout_s,
            )
        return False
