"""The auditor's live view: events as they are stored, as server-sent events.

Each request of the stream is answered at once with what was stored since the last one, and ends;
the browser asks again after `retry` milliseconds, with the id of the last event that it has got. So
no stream holds one of the few threads that also serve pupils, and neither a restart of the site nor
one of logd leaves an event out or shows one twice.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping

from flask import Blueprint, Response, abort, render_template, request

from logd_wire.schema import RESERVED_TYPES, Malformed, check_event_type
from webapp.classroom.model import catalogue
from webapp.classroom.model.accounts import Role, find_users
from webapp.classroom.model.analytics import Event, analytics_for
from webapp.classroom.model.live import Position, live_events_for
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.present.live_card import card
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed

blueprint = Blueprint("live", __name__, url_prefix="/audit/live")

# In place of a position: the newest events, because logd did not answer when the page was opened.
NEWEST = "new"
RETRY_MS = 2000
RETRY_MORE_MS = 250  # more events wait
RETRY_BUSY_MS = 3000
# The most requests of streams that a worker answers at a time, of its four threads: while logd
# hangs, each waits for its timeout.
STREAMS_MAX = 1
ROWS_MAX = 200

_POSITION = re.compile(r"(\d{1,19})(?:\.(\d{1,19}))?\Z", re.ASCII)
_INT64_MAX = 2**63 - 1
_seats = threading.BoundedSemaphore(STREAMS_MAX)


@blueprint.get("")
@roles_allowed(Role.AUDITOR)
def page() -> str:
    """Shows the newest events, which is the whole view without a script."""
    event_type, problem = _event_type(request.args.get("type", ""))
    account = current_account()
    stored = None if problem else live_events_for(account).after(None, event_type)
    cards: list[dict[str, str]] = []
    position = NEWEST
    if stored is not None and not isinstance(stored, Unavailable):
        cards, position = list(_cards(stored.events)), str(stored.position())
    return render_template(
        "live.html",
        stored=stored,
        cards=cards[::-1],
        position=position,
        event_type=event_type,
        typed=request.args.get("type", "")[:100],
        problem=problem,
        types=analytics_for(account).event_types(),
        rows_max=ROWS_MAX,
    )


@blueprint.get("/stream")
@roles_allowed(Role.AUDITOR)
def stream() -> Response:
    """Answers with the events after the browser's last one, and ends."""
    after = request.headers.get("Last-Event-ID") or request.args.get("after", "")
    position = _position(after)
    event_type, problem = _event_type(request.args.get("type", ""))
    if problem or (position is None and after != NEWEST):
        abort(400)
    if not _seats.acquire(blocking=False):
        return _stream(RETRY_BUSY_MS, {"busy": True})
    try:
        stored = live_events_for(current_account()).after(position, event_type)
    finally:
        _seats.release()
    if isinstance(stored, Unavailable):
        return _stream(RETRY_MS, {"away": stored.reason})
    if stored.replaced:
        return _stream(RETRY_MS, {"replaced": True})
    retry_ms = RETRY_MORE_MS if stored.more else RETRY_MS
    return _stream(retry_ms, {"more": stored.more}, _cards(stored.events))


def _stream(
    retry_ms: int, state: Mapping[str, object], cards: Iterable[Mapping[str, str]] = ()
) -> Response:
    """Returns a whole stream: the pause, each event with its id, and at last the state."""
    lines = [f"retry: {retry_ms}\n\n"]
    for one in cards:
        lines.append(f"id: {one['position']}\nevent: stored\ndata: {json.dumps(one)}\n\n")
    lines.append(f"event: state\ndata: {json.dumps(state)}\n\n")
    return Response("".join(lines), mimetype="text/event-stream")


def _cards(events: list[Event]) -> Iterable[dict[str, str]]:
    if not events:
        return
    db = get_db()
    people = find_users(db, {event.user for event in events if event.user is not None})
    titles = catalogue.titles(db)
    for event in events:
        yield card(event, people, titles)


def _position(text: str) -> Position | None:
    found = _POSITION.match(text)
    if found is None:
        return None
    numbers = [None if part is None else int(part) for part in found.groups()]
    if any(number is not None and number > _INT64_MAX for number in numbers):
        return None
    assert numbers[0] is not None
    return Position(numbers[0], numbers[1])


def _event_type(text: str) -> tuple[str | None, str | None]:
    """Returns the type to show, None for all, and what is wrong with the text."""
    text = text.strip()
    if not text:
        return None, None
    try:
        return check_event_type(text, RESERVED_TYPES), None
    except Malformed:
        return None, "A type has small letters, digits and underscores, such as quiz_submitted."
