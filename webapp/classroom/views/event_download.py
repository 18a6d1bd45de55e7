"""Sends a search's events as a file, as a stream of bounded memory.

A file that had to stop says so in its last line, and its transfer is aborted, so that neither a
person nor a program takes it for complete.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from logging import Logger

from flask import Response, current_app

from logd_wire.query import Row
from webapp.classroom.extensions import activity
from webapp.classroom.model.accounts import User
from webapp.classroom.model.explorer import ExportStopped
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.present.event_export import Format

CHUNK_CHARS = 64 * 1024
# An export occupies a thread of its worker, which has four.
EXPORTS_MAX = 2
EXPORT_S_MAX = 3600.0

_EXTENSION = "classroom_exports"


class _Place:
    """One of the places for exports, in this process and app."""

    def __init__(self) -> None:
        places = threading.BoundedSemaphore(EXPORTS_MAX)
        self._places = current_app.extensions.setdefault(_EXTENSION, places)
        self._held = self._places.acquire(blocking=False)

    def __bool__(self) -> bool:
        return bool(self._held)

    def free(self) -> None:
        if self._held:
            self._held = False
            self._places.release()


def download(
    form: Format, open_rows: Callable[[], Iterable[Row] | Unavailable], reader: User
) -> Response | Unavailable:
    """Returns the response that sends the rows, or why there are none.

    `open_rows` is called once the export may run, since what it reads is recorded.
    """
    place = _Place()
    if not place:
        return Unavailable("Other exports are running. Try again when they have ended.")
    try:
        rows = open_rows()
        if isinstance(rows, Unavailable):
            place.free()
            return rows
        response = Response(_logged(form, rows, reader), mimetype=form.mimetype)
    except BaseException:
        place.free()
        raise
    # Called at the end of every response, also of one that was never begun.
    response.call_on_close(place.free)
    name = f"events-{datetime.now(UTC):%Y-%m-%dT%H%MZ}.{form.suffix}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _logged(form: Format, rows: Iterable[Row], reader: User) -> Iterator[bytes]:
    """Returns the file, and logs at its end how many events were sent and whether these were all.

    The file is sent after the request's context has ended, so what it needs is taken here.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined] # a LocalProxy's
    request_id = activity.request_id
    counted = _Counted(rows)

    def body() -> Iterator[bytes]:
        complete = False
        try:
            yield from _chunks(form, counted, app.logger)
            complete = True
        finally:
            with app.app_context():
                activity.log(
                    "events_exported",
                    user=reader,
                    format=form.key,
                    events=counted.events,
                    complete=complete,
                    request_id=request_id,
                )

    return body()


def _chunks(form: Format, rows: Iterable[Row], logger: Logger) -> Iterator[bytes]:
    pending: list[str] = []
    chars = 0
    try:
        for line in form.lines(rows):
            pending.append(line)
            chars += len(line)
            if chars >= CHUNK_CHARS:
                yield "".join(pending).encode()
                pending, chars = [], 0
    except (ExportStopped, LookupError, TypeError, ValueError) as error:
        logger.warning("export stopped: %r", error)
        is_told = isinstance(error, ExportStopped)
        why = str(error) if is_told else "logd's answer does not fit this version of the site"
        yield "".join([*pending, form.incomplete(why)]).encode()
        # Ends the transfer without its last chunk.
        raise ExportStopped(why) from error
    yield "".join(pending).encode()


class _Counted:
    """Counts the rows that are taken, and ends an export that takes too long."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.events = 0
        self._rows = rows
        self._until_s = time.monotonic() + EXPORT_S_MAX

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            if time.monotonic() > self._until_s:
                raise ExportStopped(f"it took more than {EXPORT_S_MAX / 3600:.0f} h")
            self.events += 1
            yield row
