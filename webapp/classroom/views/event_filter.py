"""The filters of the event list: a form sent by GET, so that a filtered list has an address.

The form checks an `EventAddress`, whatever wrote it, and turns it into a search of logd.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from wtforms import Field, SelectField, StringField
from wtforms.validators import Length, Optional, ValidationError
from wtforms.widgets import TextInput

from logd_wire.query import TEXTS_MAX
from logd_wire.schema import EVENT_TYPE_CHARS_MAX, is_event_type
from webapp.classroom.model.accounts import Role
from webapp.classroom.model.explorer import PROPS_MAX, TEXT_CHARS_MAX, EventSearch
from webapp.classroom.model.people import People
from webapp.classroom.present.event_address import METHODS, EventAddress, joined
from webapp.classroom.present.request_texts import page_names
from webapp.classroom.views.moments import FORMATS, MomentField, known_year, ns

PARTS_MAX = 50
NAME_CHARS_MAX = 300
# The properties that the fields of their own become.
_PROPS_OF_FIELDS = {"page": "endpoint", "status": "status", "method": "method"}
_NO_HELP = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


def _today(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


# The periods that end now, by their name in addresses: a text for people, and the beginning. A
# saved search keeps the name, so that it moves with the days.
PERIODS: Mapping[str, tuple[str, Callable[[datetime], datetime]]] = {
    "today": ("Today", _today),
    "7d": ("7 days", lambda now: now - timedelta(days=7)),
    "30d": ("30 days", lambda now: now - timedelta(days=30)),
}


class PartsField(Field):
    """A text of several parts, separated by commas."""

    widget = TextInput()

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = valuelist

    def _value(self) -> str:
        return joined(self.data or [])


class TextsField(Field):
    """Texts of one name, each in an input of its own. The template renders the inputs."""

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = valuelist


def _choices(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns the choices of a select; of those with one text, each also has its value."""
    several = list(texts.values())
    shown = {
        value: f"{text[:1].upper()}{text[1:]}" + (f" ({value})" if several.count(text) > 1 else "")
        for value, text in texts.items()
    }
    return {"": "Any", **dict(sorted(shown.items(), key=lambda choice: choice[1]))}


class FilterForm(FlaskForm):  # type: ignore[misc]  # flask_wtf has no types
    """The filters of an address. A filter is valid if a search can be made of it."""

    class Meta:
        # Reading changes nothing, and a token does not belong in an address.
        csrf = False

    user = PartsField("Who", render_kw={**_NO_HELP, "placeholder": "name, login or number"})
    role = SelectField("Role", choices=_choices({role: role for role in Role}), default="")
    about = StringField(
        "About whom",
        [Optional(), Length(max=NAME_CHARS_MAX)],
        render_kw={**_NO_HELP, "placeholder": "name, login or number"},
    )
    type = PartsField("Type", render_kw={**_NO_HELP, "list": "event-types"})
    page = SelectField("Page", choices=_choices(page_names()), default="")
    status = StringField("Status", render_kw={**_NO_HELP, "inputmode": "numeric"})
    method = SelectField("Method", choices={"": "Any", **{m: m for m in METHODS}}, default="")
    since = MomentField("Since (UTC)", [Optional(), known_year], format=FORMATS)
    until = MomentField("Before (UTC)", [Optional(), known_year], format=FORMATS)
    text = StringField("Text", [Optional(), Length(max=TEXT_CHARS_MAX)], render_kw=_NO_HELP)
    prop = TextsField("Property")
    last = StringField("Period")

    def __init__(
        self, address: EventAddress, people: People, now_s: Callable[[], float] = time.time
    ) -> None:
        self._address = address
        self._people = people
        self._now = datetime.fromtimestamp(now_s(), UTC).replace(tzinfo=None)
        self._users: tuple[str, ...] | None = None
        self._about: str | None = None
        super().__init__(MultiDict(address.pairs))

    def validate_user(self, field: PartsField) -> None:
        _check_number(field.data, "names")
        keys: dict[str, None] = {}
        for part in field.data or []:
            found = self._people.keys(part)
            if not found:
                raise ValidationError(f"No account has a name or login with {_shown(part)}.")
            keys.update(dict.fromkeys(found))
        if field.data:
            self._select(tuple(keys))

    def validate_role(self, field: SelectField) -> None:
        if not field.data or field.errors:
            return
        members = self._people.of_role(Role(field.data))
        if self._users is None:
            self._select(tuple(sorted(members)))
        else:
            self._select(tuple(key for key in self._users if key in members))
        if not self._users:
            raise ValidationError("No such account has this role.")

    def validate_about(self, field: StringField) -> None:
        text = field.data or ""
        found = self._people.keys(text)
        if not found:
            raise ValidationError(f"No account has a name or login with {_shown(text)}.")
        if len(found) > 1:
            names = ", ".join(self._people.name(key) for key in found[:5])
            more = "" if len(found) <= 5 else f" and {len(found) - 5:,} more"
            raise ValidationError(f"Choose one of {names}{more}, by its number.")
        (self._about,) = found

    def validate_type(self, field: PartsField) -> None:
        _check_number(field.data, "types")
        for part in field.data or []:
            if len(part) > EVENT_TYPE_CHARS_MAX:
                raise ValidationError(
                    f"A type cannot be longer than {EVENT_TYPE_CHARS_MAX} characters."
                )
            if not is_event_type(part):
                raise ValidationError(
                    f"{_shown(part)} is no type: a type consists of small letters, digits and _, "
                    "with single dots or hyphens between."
                )

    def validate_status(self, field: StringField) -> None:
        text = field.data or ""
        if text and not (
            text.isascii() and text.isdigit() and len(text) == 3 and "100" <= text <= "599"
        ):
            raise ValidationError("A status is a number from 100 to 599, such as 403.")

    def validate_until(self, field: MomentField) -> None:
        since = self._since()
        if since is not None and field.data is not None and field.data <= since:
            raise ValidationError("The end has to come after the start.")

    def validate_prop(self, field: TextsField) -> None:
        room = PROPS_MAX - len(_PROPS_OF_FIELDS)
        if len(field.data or []) > room:
            raise ValidationError(f"Use at most {room} properties.")
        for text in field.data or []:
            path, sign, _value = text.partition("=")
            if not (sign and path.strip()):
                raise ValidationError(
                    f"{_shown(text)} is no property: write a name, = and a value, "
                    "such as status=403."
                )
            if len(text) > NAME_CHARS_MAX:
                raise ValidationError(f"Use at most {NAME_CHARS_MAX} characters.")

    def validate_last(self, field: StringField) -> None:
        if field.data and field.data not in PERIODS:
            raise ValidationError(f"Choose one of: {', '.join(PERIODS)}.")

    def wanted(self) -> EventSearch:
        """Returns the search that a valid form describes."""
        props = [
            f"{prop}={self[name].data}"
            for name, prop in _PROPS_OF_FIELDS.items()
            if self[name].data
        ]
        return EventSearch(
            types=tuple(self.type.data or ()),
            users=self._users,
            about=self._about,
            props=tuple(dict.fromkeys([*props, *(self.prop.data or ())])),
            text=self.text.data or None,
            since_ns=ns(self._since()),
            until_ns=ns(self.until.data),
        )

    def of_day(self, day: datetime) -> dict[str, str | None]:
        """Returns the change of the address that narrows a valid search to a day."""
        since, until = self._since(), self.until.data
        start = day if since is None else max(day, since)
        end = day + timedelta(days=1)
        end = end if until is None else min(end, until)
        return {
            "last": None,
            "since": start.isoformat(timespec="seconds"),
            "until": end.isoformat(timespec="seconds"),
        }

    def _since(self) -> datetime | None:
        """Returns the later one of the two starts that may be given."""
        period = PERIODS.get(self.last.data or "")
        starts = [self.since.data, None if period is None else period[1](self._now)]
        return max((start for start in starts if start is not None), default=None)

    def _select(self, keys: tuple[str, ...]) -> None:
        if len(keys) > TEXTS_MAX:
            raise ValidationError(
                f"{len(keys):,} accounts are too many for one search, which takes {TEXTS_MAX:,}."
            )
        self._users = keys


def _check_number(parts: list[str] | None, noun: str) -> None:
    if len(parts or []) > PARTS_MAX:
        raise ValidationError(f"Use at most {PARTS_MAX} {noun}.")


def _shown(text: str) -> str:
    """Quotes a text in a message, with bounded length."""
    return f"“{text if len(text) <= 60 else text[:59] + '…'}”"
