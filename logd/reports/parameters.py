"""The parameters that a client sends with a report, checked by type and range (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logd.reports.context import Context
from logd_wire.query import TEXTS_MAX, QueryError

PAGE_ROWS_MAX = 200
AFTER_MAX = 10**9
SHOWN_CHARS_MAX = 60


class BadParameter(QueryError):
    """The report does not accept a parameter, or not its value."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_parameter", message)


class Parameters:
    """The parameters of a request. A report takes each once, by its type; others are refused."""

    def __init__(self, values: Mapping[str, Any], context: Context | None = None) -> None:
        self._values = dict(values)
        self.context = context or Context()

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int) -> int:
        """Takes the whole number `name`, from `low` to `high`; required if `default` is None."""
        value = self._values.pop(name, default)
        if type(value) is not int or not low <= value <= high:
            raise BadParameter(
                f"{name}: expected a whole number from {low} to {high}, not {_shown(value)}"
            )
        return value

    def maybe_whole(self, name: str, *, low: int = 0, high: int = 2**63 - 1) -> int | None:
        """Takes the whole number `name`, from `low` to `high`; None if it is not given."""
        return None if name not in self._values else self.whole(name, low=low, high=high)

    def text(self, name: str, default: str | None = None) -> str:
        """Takes the text parameter `name`; required if `default` is None."""
        value = self._values.pop(name, default)
        if not isinstance(value, str):
            raise BadParameter(f"{name}: expected text, not {_shown(value)}")
        return value

    def maybe_text(self, name: str) -> str | None:
        """Takes the text parameter `name`; None if it is not given."""
        return None if name not in self._values else self.text(name)

    def maybe_texts(self, name: str) -> list[str] | None:
        """Takes the parameter `name`, a list of up to TEXTS_MAX texts; None if not given."""
        value = self._values.pop(name, None)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) > TEXTS_MAX
            or not all(isinstance(item, str) for item in value)
        ):
            raise BadParameter(f"{name}: expected a list of at most {TEXTS_MAX} texts")
        return value

    def done(self) -> None:
        """Raises BadParameter if the request has parameters that were not taken."""
        if self._values:
            raise BadParameter(f"unknown parameter: {', '.join(sorted(map(str, self._values)))}")


def _shown(value: object) -> str:
    """Formats a value for a message, with bounded length."""
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 3]}..."


def page_bounds(parameters: Parameters) -> tuple[int | None, int]:
    """Takes the parameters of a page: `before_id`, where it begins, and `limit`."""
    return parameters.maybe_whole("before_id"), page_limit(parameters)


def page_limit(parameters: Parameters) -> int:
    """Takes the parameter `limit`, the most rows of a page."""
    return parameters.whole("limit", 50, low=1, high=PAGE_ROWS_MAX)


def key_after(parameters: Parameters) -> list[str] | None:
    """Takes the text `after`, which is the key that the previous page ended with."""
    found = parameters.maybe_text("after")
    return None if found is None else [found]


def keys_after(parameters: Parameters, number: int) -> list[str] | None:
    """Returns the parameter `after`: `number` texts, the key of the previous page's last row."""
    found = parameters.maybe_texts("after")
    if found is not None and len(found) != number:
        raise BadParameter(f"after: expected the {number} texts of `next` of the page before")
    return found


def rows_to_skip(parameters: Parameters) -> int:
    """Takes the parameter `after`, the number of rows in earlier pages."""
    return parameters.whole("after", 0, high=AFTER_MAX)
