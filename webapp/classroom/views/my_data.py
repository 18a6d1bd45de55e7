"""The pages "My data" of every account: what is recorded, who read it, download, requests.

No address of these pages names an account: each shows the data of whoever is logged in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    redirect,
    render_template,
    request,
    stream_with_context,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import login_required

from webapp.classroom.extensions import activity
from webapp.classroom.model import catalogue, data_requests, personal_rows
from webapp.classroom.model.accounts import User, list_users
from webapp.classroom.model.data_requests import TEXT_CHARS_MAX, Kind
from webapp.classroom.model.my_data import my_data_for
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.present import my_data_file, my_data_texts
from webapp.classroom.present.texts import describe_event
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account
from webapp.classroom.views.lookup import key_argument

blueprint = Blueprint("my_data", __name__, url_prefix="/my-data")

UNPROCESSABLE = 422
# The latest readings are looked at, in one search of the log, and shown in few lines.
READINGS_OF_OVERVIEW, LINES_OF_OVERVIEW = 50, 8
READINGS_OF_PAGE = 100
BUSY_S = 60
# One download at a time in each worker process: a large one takes minutes, and the other threads
# are for pages.
_downloads = threading.BoundedSemaphore(1)


@blueprint.get("/")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def overview() -> str:
    return _overview()


def _overview(text: str = "", error: str | None = None, kind: str = "") -> str:
    db, user = get_db(), current_account()
    mine = my_data_for(user)
    readings = mine.readings("others", None, READINGS_OF_OVERVIEW, parts_max=1)
    counts = personal_rows.counts_about(db, user)
    rows = (my_data_texts.rows_of_table(table, count) for table, count in counts.items())
    return render_template(
        "my_data.html",
        totals=mine.totals(),
        readings=readings,
        lines=_lines(readings)[:LINES_OF_OVERVIEW],
        copies=mine.copies(),
        site_rows=[row for row in rows if row is not None],
        requests=data_requests.requests_of(db, user),
        kinds=list(Kind),
        kind=kind,
        text=text,
        error=error,
        text_chars_max=TEXT_CHARS_MAX,
        texts=my_data_texts,
    )


@blueprint.get("/entries")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def entries() -> str:
    """Shows the account's own entries in the log."""
    before_id = key_argument(request.args, "before")
    page = my_data_for(current_account()).events(before_id)
    return _entries_page("entries", page, before_id)


@blueprint.get("/mentions")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def mentions() -> str:
    """Shows entries of others that name the account."""
    before_id = key_argument(request.args, "before")
    page = my_data_for(current_account()).mentions(before_id)
    return _entries_page("mentions", page, before_id)


@blueprint.get("/readings")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def readings() -> str:
    """Shows who read about the account, and the account's own readings."""
    before_id = key_argument(request.args, "before")
    by = "self" if request.args.get("by") == "self" else "others"
    page = my_data_for(current_account()).readings(by, before_id, READINGS_OF_PAGE)
    return render_template(
        "my_data_readings.html", page=page, lines=_lines(page), by=by, before_id=before_id
    )


@blueprint.get("/download.<form>")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def download(form: str) -> ResponseReturnValue:
    """Streams all that the site and the log hold about the account, as JSON or CSV."""
    write = my_data_file.FORMS.get(form)
    if write is None:
        abort(404)
    if not _downloads.acquire(blocking=False):
        flash("Another download is running. Please try again in a minute.", "warning")
        return redirect(url_for("my_data.overview"))
    user = current_account()
    with ExitStack() as ends:
        ends.callback(_downloads.release)
        site = personal_rows.rows_about(get_db(), user)
        pieces = write(user, time.time_ns(), site, my_data_for(user).everything())
        # The place is free at the end of the file, or when the server closes the response because
        # the browser went away; closing an ExitStack again does nothing.
        done = ends.pop_all()
        response = Response(
            stream_with_context(_then(pieces, done)), mimetype=my_data_file.MIME_TYPES[form]
        )
        response.call_on_close(done.close)
    response.headers["Content-Disposition"] = f'attachment; filename="my-data.{form}"'
    return response


def _then(pieces: Iterator[str], done: ExitStack) -> Iterator[str]:
    with done:
        yield from pieces


@blueprint.post("/requests")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def ask() -> ResponseReturnValue:
    """Stores a request for correction or erasure, for the auditors to answer."""
    kind, text = request.form.get("kind", ""), request.form.get("text", "").strip()
    # A browser sends a line end as two characters, and counts it as one.
    text = text.replace("\r\n", "\n")
    error = None
    if kind not in set(Kind):
        error = "Choose what you ask for."
    elif not text:
        error = "Write in a few words what should be corrected or erased."
    elif len(text) > TEXT_CHARS_MAX:
        error = f"Shorten your text to {TEXT_CHARS_MAX:,} characters; it has {len(text):,}."
    if error is not None:
        return _overview(text[: 2 * TEXT_CHARS_MAX], error, kind), UNPROCESSABLE
    made = data_requests.make_request(get_db(), current_account(), Kind(kind), text, time.time_ns())
    if made is None:
        flash("You have asked for this already. An auditor will answer it.", "warning")
    else:
        activity.log("data_request_made", kind=kind, request=made)
        flash("Your request was sent. You will find the answer on this page.")
    return redirect(url_for("my_data.overview") + "#requests")


def _entries_page(which: str, page: Any, before_id: int | None) -> str:
    return render_template(
        "my_data_entries.html",
        which=which,
        page=page,
        before_id=before_id,
        describe_event=describe_event,
        titles=catalogue.titles(get_db()),
    )


def _lines(page: Any) -> list[my_data_texts.ReadingLine]:
    if isinstance(page, Unavailable):
        return []
    return my_data_texts.reading_lines(page.items, _people())


def _people() -> dict[str, User]:
    return {user.key: user for user in list_users(get_db())}
