"""Requests logd's reports on behalf of an account, and returns why one is not available.

The modules that have figures for pages (`analytics` and others) ask through `Reports`, so that a
page waits for one timeout at most, whatever it shows. The requests of a worker process share a
circuit breaker, so that a logd that hangs holds one of its threads and not all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from flask import current_app

from logd_wire import query
from logd_wire.query import (
    Answer,
    QueryClient,
    QueryError,
    Row,
    breaker_of_reports,
    text_parts,
)
from webapp.classroom.model.accounts import User

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# The most pages of one report that a page requests for each part of its users.
REPORT_PAGES_MAX = 50
# After this many seconds no further page is requested, so that the site's page ends.
REPORTS_S_MAX = 10.0
# The key of the process's circuit breaker in `app.extensions`.
_BREAKER = "classroom_reports_breaker"


@dataclass(frozen=True)
class Unavailable:
    """The figures of a panel are not available; `reason` says why, in a sentence for readers."""

    reason: str


class Reports:
    """Requests logd's reports for one page, on behalf of one account.

    After a timeout it sends no further request, so that a page waits for one timeout and not for
    one per panel.
    """

    def __init__(self, client: QueryClient, asked_by: User) -> None:
        self._client = client
        self._asked_by = asked_by.key
        self._until_s = time.monotonic() + REPORTS_S_MAX
        self.unavailable: Unavailable | None = None

    def ask(self, report: str, **params: Any) -> Answer:
        """Requests one page of a report. Raises QueryError, as `QueryClient.ask` does."""
        return self._client.ask(report, asked_by=self._asked_by, **params)

    def rows(self, report: str, users: Sequence[str], **params: Any) -> Iterator[Row]:
        """Yields all rows of a report about users, which is requested in parts of the users."""
        for part in text_parts(users):
            yield from self.pages(report, users=part, **params)

    def pages(self, report: str, **params: Any) -> Iterator[Row]:
        """Yields all rows of a report whose pages are requested by the parameter `after`."""
        after: Any = None
        for _ in range(REPORT_PAGES_MAX):
            if time.monotonic() > self._until_s:
                raise QueryError("too_slow", f"its pages take over {REPORTS_S_MAX:.0f} s together")
            answer = self.ask(report, after=after, **params)
            yield from answer.rows
            if answer.next is None:
                return
            after = answer.next
        raise QueryError("too_long", f"{report} has over {REPORT_PAGES_MAX} pages")


class Reporting(Protocol):
    """Anything whose methods ask through `Reports`."""

    @property
    def reports(self) -> Reports: ...


S = TypeVar("S", bound=Reporting)


def or_unavailable(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R | Unavailable]:
    """Makes a method return an `Unavailable` instead of raising its request's errors."""

    @wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R | Unavailable:
        if self.reports.unavailable is not None:
            return self.reports.unavailable
        try:
            return method(self, *args, **kwargs)
        except query.Unavailable as error:
            current_app.logger.warning("analytics: %s", error)
            self.reports.unavailable = Unavailable(
                "logd, which keeps the activity log, does not answer."
            )
            return self.reports.unavailable
        except QueryError as error:
            current_app.logger.warning("analytics: report refused (%s): %s", error.code, error)
            refused = Unavailable(f"logd refused this report: {error}.")
            if error.code == "unavailable":
                # Whether it can record who reads takes logd a while to say: ask once for a page.
                self.reports.unavailable = refused
            return refused
        except (LookupError, TypeError, ValueError) as error:
            # The daemon's version probably differs. The page can still show the other panels.
            current_app.logger.warning("analytics: answer not understood: %r", error)
            return Unavailable("logd's answer does not fit this version of the site.")

    return wrapper


def reports_for(user: User) -> Reports:
    """Returns logd's reports for `user`, with the current app's settings."""
    config = current_app.config
    client = QueryClient(
        config["ACTIVITY_QUERY_SOCKET"],
        config["ACTIVITY_QUERY_TIMEOUT_S"],
        # Made at the first request: the app may be loaded before its workers are forked.
        current_app.extensions.setdefault(_BREAKER, breaker_of_reports()),
    )
    return Reports(client, user)


def record(kind: type[T], row: Row) -> T:
    """Makes a record of the fields that this version knows: a newer logd may report more."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type] # a dataclass
    return kind(**{name: value for name, value in row.items() if name in names})
