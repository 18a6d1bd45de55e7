"""What the events of a job have in common: `with activity.context(user=...)`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flask import Flask, has_request_context, request


@dataclass(frozen=True)
class Job:
    """The user and the properties of the events that are logged while it is current.

    It applies to the app and the request in which it began, or to no request: an app that a job
    calls, or a request that it makes to its own, logs for its own users.
    """

    app: Flask
    request: object
    user: object
    props: Mapping[str, Any]


_current: ContextVar[Job | None] = ContextVar("activity_log_job", default=None)


@contextlib.contextmanager
def running(app: Flask, user: object, props: Mapping[str, Any]) -> Iterator[None]:
    """Makes a job current during the block, in this thread or task.

    Inside another one it adds to that one's properties, and keeps its user unless it has its own.
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
    # Not the proxy, which is one for all requests.
    return request._get_current_object() if has_request_context() else None  # type: ignore[attr-defined]
