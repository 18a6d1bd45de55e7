"""Fields of forms for a date and time, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from wtforms.fields import DateTimeLocalField
from wtforms.validators import ValidationError

FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
_YEARS = range(1970, 2262)  # nanoseconds in 63 bits reach from 1970 to 2262
_NANOSECONDS = 1_000_000_000


def known_year(_form: Any, field: Any) -> None:
    if field.data is not None and field.data.year not in _YEARS:
        raise ValidationError(f"Choose a year from {_YEARS[0]} to {_YEARS[-1]}.")


class MomentField(DateTimeLocalField):
    """A date and time. Any accepted format is displayed in the format that browsers use."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Parses ASCII text only, since strptime accepts the digits of any script."""
        super().process_formdata([text if text.isascii() else "" for text in valuelist])

    def _value(self) -> str:
        if not self.data:
            return str(super()._value())  # type: ignore[misc] # WTForms has no types
        return str(self.data.strftime(FORMATS[1] if self.data.second else FORMATS[0]))


def ns(moment: datetime | None) -> int | None:
    """Returns the moment in nanoseconds since 1970; None for None."""
    if moment is None:
        return None
    return int(moment.replace(tzinfo=UTC).timestamp()) * _NANOSECONDS
