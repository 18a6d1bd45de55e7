"""The explorer: the pages on which an auditor searches the trail.

They only read, except for the auditor's own saved searches. logd records each reading of a report
about persons as an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from webapp.classroom.model import catalogue, saved_searches
from webapp.classroom.model.accounts import Role, list_users
from webapp.classroom.model.explorer import Counts, Found, Removed, explorer_for
from webapp.classroom.model.people import People
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.model.saved_searches import NotSaved
from webapp.classroom.present import charts, event_values
from webapp.classroom.present.event_address import EventAddress
from webapp.classroom.present.event_chips import chips
from webapp.classroom.present.event_export import FORMATS, to_json
from webapp.classroom.present.texts import describe_event
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.event_download import download
from webapp.classroom.views.event_filter import PERIODS, FilterForm
from webapp.classroom.views.lookup import KEY_MAX, time_argument

blueprint = Blueprint("explorer", __name__, url_prefix="/audit/events")

PERIOD_TEXTS = {name: text for name, (text, _start) in PERIODS.items()}


class Search:
    """The filters of this request's address, checked, and what its pages show of them."""

    def __init__(self, arguments: MultiDict[str, str]) -> None:
        self.address = EventAddress.of(arguments)
        self.people = People(list_users(get_db()))
        self.form = FilterForm(self.address, self.people)
        self.valid = bool(self.form.validate())
        self.chips = chips(self.address, self.people, PERIOD_TEXTS)
        self._list = url_for("auditor.events")

    def href(self, address: EventAddress) -> str:
        return f"{self._list}?{address.query}" if address.query else self._list

    def narrowed(self, name: str, value: str) -> str | None:
        """Returns the address of the list narrowed by a filter, None if it would be too long."""
        address = self.address.narrowed(name, value)
        return self.href(address) if address.fits else None

    def by_user(self, key: str) -> str | None:
        return self.narrowed("user", self.people.text_for(key))

    def about(self, key: str) -> str | None:
        return self.narrowed("about", self.people.text_for(key))

    def about_value(self, value: event_values.Value) -> str | None:
        """Returns the address about the person whom a value names, if it is an account."""
        return self.about(value.person) if value.person in self.people.by_key else None

    def by_value(self, value: event_values.Value) -> str | None:
        return None if value.filter is None else self.narrowed(*value.filter)

    def period(self, name: str) -> str:
        changed = {"last": name, "since": None, "until": None}
        return self.href(self.address.narrowed_to(changed))


def events_page() -> str:
    """Shows a page of the events that the address selects."""
    search = Search(request.args)
    before_id, before_ns = time_argument(request.args)
    page: Found | Unavailable | None = None
    explorer = explorer_for(current_account())
    if search.valid:
        page = explorer.page(search.form.wanted(), before_id, before_ns)
    return _events(search, page, explorer.event_types(), before_id)


def _events(
    search: Search,
    page: Found | Unavailable | None,
    types: Iterable[str] | Unavailable = (),
    before_id: int | None = None,
) -> str:
    return render_template(
        "events.html",
        search=search,
        page=page,
        before_id=before_id,
        older=_older(search, page),
        types=() if isinstance(types, Unavailable) else types,
        periods=PERIOD_TEXTS,
        formats=FORMATS,
        **_texts(),
    )


def _older(search: Search, page: Found | Unavailable | None) -> str | None:
    if not isinstance(page, Found) or page.next is None:
        return None
    position = {"before": page.next, "before_ns": page.next_ns}
    return url_for("auditor.events", **_arguments(search.address) | position)


@blueprint.get("/counts")
@roles_allowed(Role.AUDITOR)
def counts() -> str:
    """Shows how many events the address selects, by type and by day."""
    search = Search(request.args)
    by_type: Counts | Unavailable | None = None
    by_day: Counts | Unavailable | None = None
    if search.valid:
        explorer, wanted = explorer_for(current_account()), search.form.wanted()
        by_type, by_day = explorer.counts(wanted, "type"), explorer.counts(wanted, "day")
    return render_template(
        "event_counts.html",
        search=search,
        by_type=by_type,
        by_day=by_day,
        type_chart=_type_chart(search, by_type),
        day_chart=_day_chart(search, by_day),
    )


def _type_chart(search: Search, found: Counts | Unavailable | None) -> charts.Chart | None:
    if not isinstance(found, Counts) or not found.events:
        return None
    links = [search.narrowed("type", name) for name in found.events]
    return charts.events_by_type(found.events, links)


def _day_chart(search: Search, found: Counts | Unavailable | None) -> charts.Chart | None:
    if not isinstance(found, Counts) or not found.events:
        return None
    links = []
    for day in sorted(found.events, reverse=True):
        moment = datetime.fromtimestamp(day * 86_400, UTC).replace(tzinfo=None)
        links.append(search.href(search.address.narrowed_to(search.form.of_day(moment))))
    return charts.events_by_day(found.events, links)


@blueprint.get("/<int:event_id>")
@roles_allowed(Role.AUDITOR)
def event(event_id: int) -> ResponseReturnValue:
    """Shows one event with everything that is stored of it."""
    if event_id > KEY_MAX:
        abort(404)
    found = explorer_for(current_account()).event(event_id)
    if isinstance(found, Removed):
        return render_template("event_gone.html", event_id=event_id, why=found.why), 404
    search = Search(MultiDict())
    return render_template(
        "event.html",
        event_id=event_id,
        event=found,
        search=search,
        as_json="" if isinstance(found, Unavailable) else to_json(found.props, indent=2),
        **_texts(),
    )


@blueprint.get("/export/<form>")
@roles_allowed(Role.AUDITOR)
def export(form: str) -> ResponseReturnValue:
    """Sends all events that the address selects, as a file."""
    if form not in FORMATS:
        abort(404)
    search = Search(request.args)
    if not search.valid:
        return _events(search, None), 400
    answer = download(
        FORMATS[form],
        lambda: explorer_for(current_account()).rows(search.form.wanted()),
        current_account(),
    )
    return (_events(search, answer), 503) if isinstance(answer, Unavailable) else answer


@blueprint.get("/searches")
@roles_allowed(Role.AUDITOR)
def searches() -> str:
    return _searches()


def _searches(**failed: Any) -> str:
    found = saved_searches.list_searches(get_db(), current_account())
    people = People(list_users(get_db()))
    addresses = {saved.id: _read(saved.query) for saved in found}
    return render_template(
        "saved_searches.html",
        searches=found,
        chips={key: chips(address, people, PERIOD_TEXTS) for key, address in addresses.items()},
        hrefs={key: url_for("auditor.events", **_arguments(a)) for key, a in addresses.items()},
        name_chars_max=saved_searches.NAME_CHARS_MAX,
        **failed,
    )


@blueprint.post("/searches")
@roles_allowed(Role.AUDITOR)
def save() -> ResponseReturnValue:
    address = _read(request.form.get("query", ""))
    name = request.form.get("name", "")
    try:
        if not address.fits:
            raise NotSaved("This search is too long to be saved: use fewer filters.")
        name = saved_searches.save(get_db(), current_account(), name, address.query)
    except NotSaved as error:
        return _searches(new_name=name, new_query=address.query, new_error=str(error)), 422
    flash(f"Saved as “{name}”. It is among your saved searches.")
    return redirect(url_for("auditor.events", **_arguments(address)))


@blueprint.post("/searches/<int:search_id>/rename")
@roles_allowed(Role.AUDITOR)
def rename(search_id: int) -> ResponseReturnValue:
    name = request.form.get("name", "")
    try:
        if not saved_searches.rename(get_db(), current_account(), _key(search_id), name):
            abort(404)
    except NotSaved as error:
        return _searches(renamed=search_id, new_name=name, new_error=str(error)), 422
    flash("Renamed.")
    return redirect(url_for("explorer.searches"))


@blueprint.post("/searches/<int:search_id>/delete")
@roles_allowed(Role.AUDITOR)
def delete(search_id: int) -> ResponseReturnValue:
    """Deletes a search; a second click finds it deleted, which is what was wanted."""
    saved_searches.delete(get_db(), current_account(), _key(search_id))
    flash("Deleted.")
    return redirect(url_for("explorer.searches"))


def _key(search_id: int) -> int:
    if search_id > KEY_MAX:
        abort(404)
    return search_id


def _read(query: str) -> EventAddress:
    return EventAddress.of(MultiDict(parse_qsl(query, keep_blank_values=True)))


def _arguments(address: EventAddress) -> dict[str, Any]:
    return MultiDict(address.arguments()).to_dict(flat=False)


def _texts() -> dict[str, Any]:
    return {
        "describe_event": describe_event,
        "titles": catalogue.titles(get_db()),
        "listed": event_values.listed,
        "whole": event_values.whole,
    }
