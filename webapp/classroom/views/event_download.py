"""Sends a search's events as a file, as a stream of bounded memory.

A file that had to stop says so in its last line, and its transfer is aborted, so that neither a
person nor a program takes it for complete.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from flask import Response, current_app, stream_with_context

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

_running = threading.BoundedSemaphore(EXPORTS_MAX)


def download(
    form: Format, open_rows: Callable[[], Iterable[Row] | Unavailable], reader: User
) -> Response | Unavailable:
    """Returns the response that sends the rows, or why there are none.

    `open_rows` is called once the export may run, since what it reads is recorded.
    """
    if not _running.acquire(blocking=False):
        return Unavailable("Other exports are running. Try again when they have ended.")
    try:
        rows = open_rows()
        if isinstance(rows, Unavailable):
            _running.release()
            return rows
        response = Response(
            stream_with_context(_logged(form, rows, reader)), mimetype=form.mimetype
        )
    except BaseException:
        _running.release()
        raise
    # Called at the end of every response, also of one that was never begun.
    response.call_on_close(_running.release)
    name = f"events-{datetime.now(UTC):%Y-%m-%dT%H%MZ}.{form.suffix}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _logged(form: Format, rows: Iterable[Row], reader: User) -> Iterator[bytes]:
    """Yields the file, and logs how many events were sent and whether these were all."""
    counted = _Counted(rows)
    complete = False
    try:
        yield from _chunks(form, counted)
        complete = True
    finally:
        activity.log(
            "events_exported",
            user=reader,
            format=form.suffix,
            events=counted.events,
            complete=complete,
        )


def _chunks(form: Format, rows: Iterable[Row]) -> Iterator[bytes]:
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
        current_app.logger.warning("export stopped: %r", error)
        why = (
            str(error)
            if isinstance(error, ExportStopped)
            else "logd's answer does not fit this version of the site"
        )
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
