"""The auditor's pages: the trail itself, what is missing from it, and how whole it is.

Read only, and every look at persons is itself an event in the trail (logd sees to that).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, render_template, request
from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.fields import DateTimeLocalField
from wtforms.validators import Length, Optional, ValidationError

from logd_wire.schema import EVENT_TYPE_CHARS_MAX, is_event_type
from webapp.classroom.model.accounts import LOGIN_CHARS_MAX, Role, User, find_login, list_users
from webapp.classroom.model.analytics import EventFilter, analytics_for
from webapp.classroom.present.paging import key_argument
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed

blueprint = Blueprint("auditor", __name__, url_prefix="/audit")

# What a cause in the ledger means, for somebody who has to judge it.
MEANINGS = {
    "not received": "Sent by a program that keeps no copy, and never arrived here.",
    "outbox damaged": "Kept by its program in memory, where it was overwritten before it was read.",
    "restored": "Stored once; the log was then restored from a backup made earlier.",
    "claimed": "Said to be stored once by its program's own file; nothing else shows that it was.",
    "tail unknown": "The machine went down while the program ran: how much came last is unknown.",
    "outbox gone": "A program's kept copy was removed before all of it was read.",
    "beginning unknown": "First heard of in the middle: what came before, if anything, is unknown.",
}

_NANOSECONDS = 1_000_000_000
_FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
_YEARS = range(1970, 2262)  # what a count of nanoseconds in 63 bits can hold


def _known_year(_form: Any, field: Any) -> None:
    if field.data is not None and field.data.year not in _YEARS:
        raise ValidationError(f"Choose a year from {_YEARS[0]} to {_YEARS[-1]}.")


def _event_type(_form: Any, field: Any) -> None:
    if not is_event_type(field.data):
        raise ValidationError(
            "A type has small letters, digits and _, and single dots or hyphens between them."
        )


class MomentField(DateTimeLocalField):
    """A date and time. One given in another form comes back in the form that browsers show."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Called by WTForms: strptime alone would take the digits of any script."""
        super().process_formdata([text if text.isascii() else "" for text in valuelist])

    def _value(self) -> str:
        return self.data.strftime(_FORMATS[0]) if self.data else str(super()._value())  # type: ignore[misc]


class FilterForm(FlaskForm):  # type: ignore[misc]  # flask_wtf has no types
    """The explorer's filters. They come by GET, so that a view of the trail can be passed on."""

    class Meta:
        csrf = False  # reading changes nothing, and a token has no place in an address

    type = StringField(
        "Type",
        [
            Optional(),
            Length(max=EVENT_TYPE_CHARS_MAX),
            _event_type,
        ],
        filters=[lambda text: text.strip() if text else text],
        render_kw={"list": "event-types", "autocomplete": "off"},
    )
    user = StringField(
        "User (login or number)",
        [Optional(), Length(max=LOGIN_CHARS_MAX)],
        filters=[lambda text: text.strip() if text else text],
        render_kw={"autocomplete": "off", "autocapitalize": "none"},
    )
    since = MomentField("Since (UTC)", [Optional(), _known_year], format=_FORMATS)
    until = MomentField("Before (UTC)", [Optional(), _known_year], format=_FORMATS)

    def validate_user(self, field: StringField) -> None:
        if field.data and _user_key(field.data) is None:
            raise ValidationError(f"No account has the login {field.data!r}. Try its number.")

    def validate_until(self, field: MomentField) -> None:
        since = self.since.data
        if since is not None and field.data is not None and field.data <= since:
            raise ValidationError("The end has to come after the start.")

    def wanted(self, before_id: int | None) -> EventFilter:
        """The filter that a valid form stands for."""
        return EventFilter(
            type=self.type.data or None,
            user=_user_key(self.user.data) if self.user.data else None,
            since_ns=_ns(self.since.data),
            until_ns=_ns(self.until.data),
            before_id=before_id,
        )


@blueprint.get("/")
@roles_allowed(Role.AUDITOR)
def overview() -> str:
    analytics = analytics_for(current_account())
    return render_template(
        "audit.html",
        summary=analytics.summary(),
        losses=analytics.loss_totals(),
        types=analytics.event_types(),
    )


@blueprint.get("/events")
@roles_allowed(Role.AUDITOR)
def events() -> str:
    form = FilterForm(request.args)
    before_id = key_argument(request.args, "before")
    analytics = analytics_for(current_account())
    page = analytics.events(form.wanted(before_id)) if form.validate() else None
    return render_template(
        "events.html",
        form=form,
        page=page,
        types=analytics.event_types(),
        before_id=before_id,
        filters={name: request.args[name] for name in form.data if request.args.get(name)},
        people=_people(),
    )


@blueprint.get("/losses")
@roles_allowed(Role.AUDITOR)
def losses() -> str:
    analytics = analytics_for(current_account())
    before_id = key_argument(request.args, "before")
    return render_template(
        "losses.html",
        page=analytics.losses(before_id),
        totals=analytics.loss_totals(),
        meanings=MEANINGS,
        before_id=before_id,
    )


def _people() -> dict[str, User]:
    return {user.key: user for user in list_users(get_db())}


def _user_key(text: str) -> str | None:
    """A login's number; a number as it is, since the trail outlives accounts."""
    if text.isascii() and text.isdigit():
        return text
    user = find_login(get_db(), text)
    return None if user is None else user.key


def _ns(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return int(moment.replace(tzinfo=UTC).timestamp()) * _NANOSECONDS
