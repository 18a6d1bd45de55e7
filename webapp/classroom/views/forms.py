"""Forms: the login, and the auditor's filter of events. A quiz's form is in its template."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask_wtf import FlaskForm
from wtforms import PasswordField, StringField
from wtforms.fields import DateTimeLocalField
from wtforms.validators import InputRequired, Length, Optional, ValidationError

from logd_wire.schema import EVENT_TYPE_CHARS_MAX, is_event_type
from webapp.classroom.model.accounts import LOGIN_CHARS_MAX, PASSWORD_CHARS_MAX, find_login
from webapp.classroom.model.analytics import EventFilter
from webapp.classroom.store.db import get_db

_NANOSECONDS = 1_000_000_000
_FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
_YEARS = range(1970, 2262)  # nanoseconds in 63 bits reach from 1970 to 2262


class LoginForm(FlaskForm):  # type: ignore[misc]  # flask_wtf has no types
    login = StringField(
        "Login name",
        [InputRequired("Enter your login name."), Length(max=LOGIN_CHARS_MAX)],
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"},
    )
    password = PasswordField(
        "Password",
        [InputRequired("Enter your password."), Length(max=PASSWORD_CHARS_MAX)],
        render_kw={"autocomplete": "current-password"},
    )


def _known_year(_form: Any, field: Any) -> None:
    if field.data is not None and field.data.year not in _YEARS:
        raise ValidationError(f"Choose a year from {_YEARS[0]} to {_YEARS[-1]}.")


def _event_type(_form: Any, field: Any) -> None:
    if not is_event_type(field.data):
        raise ValidationError(
            "A type consists of small letters, digits and _, with single dots or hyphens between."
        )


class MomentField(DateTimeLocalField):
    """A date and time. Any accepted format is displayed in the format that browsers use."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Parses ASCII text only, since strptime accepts the digits of any script."""
        super().process_formdata([text if text.isascii() else "" for text in valuelist])

    def _value(self) -> str:
        return self.data.strftime(_FORMATS[0]) if self.data else str(super()._value())  # type: ignore[misc] # WTForms has no types


class FilterForm(FlaskForm):  # type: ignore[misc]  # flask_wtf has no types
    """The filters of the event list, sent by GET so that a filtered list has an address."""

    class Meta:
        # Reading changes nothing, and a token does not belong in an address.
        csrf = False

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

    def wanted(self, before_id: int | None, before_ns: int | None) -> EventFilter:
        """Returns the filter that a valid form describes."""
        return EventFilter(
            type=self.type.data or None,
            user=_user_key(self.user.data) if self.user.data else None,
            since_ns=_ns(self.since.data),
            until_ns=_ns(self.until.data),
            before_id=before_id,
            before_ns=before_ns,
        )


def _user_key(text: str) -> str | None:
    """Returns the id of a login; a number is an id itself, since the log outlives accounts."""
    if text.isascii() and text.isdigit():
        return text
    user = find_login(get_db(), text)
    return None if user is None else user.key


def _ns(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return int(moment.replace(tzinfo=UTC).timestamp()) * _NANOSECONDS
