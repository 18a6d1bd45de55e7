"""The user and properties that all events of a job share: `with activity.context(user=...)`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flask import Flask, has_request_context, request


@dataclass(frozen=True)
class Job:
    """The user and the properties of the events that are logged while the job is current.

    A job applies to the app and the request in which it began, or outside requests. An app that the
    job calls, and a request that it makes to its own app, log for their own users.
    """

    app: Flask
    request: object
    user: object
    props: Mapping[str, Any]


_current: ContextVar[Job | None] = ContextVar("activity_log_job", default=None)


@contextlib.contextmanager
def running(app: Flask, user: object, props: Mapping[str, Any]) -> Iterator[None]:
    """Makes a job current during the `with` block, in this thread or task.

    Inside another job, the new one adds its properties to the other's, and keeps the other's user
    unless it has a user of its own.
    """
    outer = current(app)
    if outer is not None:
        user = outer.user if user is None else user
        props = {**outer.props, **props}
    before = _current.set(Job(app, _request(), user, dict(props)))
    try:
        yield
    finally:
        _current.reset(before)


def current(app: Flask) -> Job | None:
    """Returns the job that applies to an event of this app, logged now."""
    job = _current.get()
    return job if job is not None and job.app is app and job.request is _request() else None


def _request() -> object:
    if not has_request_context():
        return None
    # Flask's `request` itself is a proxy, the same object for all requests.
    return request._get_current_object()  # type: ignore[attr-defined] # a LocalProxy's
