"""A search that reads every event, with which logd's search is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from logd.render import to_json
from logd.reports.selection import Selection, chosen_events
from logd.storage.mentions import DEFAULT_KEYS, canonical
from logd_wire.query import Row
from tests.logd.test_reports import Trail


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    else:
        yield path[1:], value


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


class Known:
    """What an event holds, computed once for all filters."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.position = row["ts_ns"], row["id"]
        self.equations = {
            f"{path}={value if isinstance(value, str) else to_json(value)}"
            for path, value in leaves(row["props"])
        }
        self.texts = [one.casefold() for one in (row["type"], *texts(row["props"]))]
        self.persons = [canonical(one) for one in DEFAULT_KEYS.persons(row["props"])]

    def matches(self, asked: dict[str, Any]) -> bool:
        row, text = self.row, asked.get("text", "").casefold()
        return (
            row["type"] == asked.get("type", row["type"])
            and row["type"] in asked.get("types", [row["type"]])
            and row["user"] == asked.get("user", row["user"])
            and row["user"] in asked.get("users", [row["user"]])
            and asked.get("since_ns", 0) <= row["ts_ns"] < asked.get("until_ns", 2**63)
            and self.equations.issuperset(asked.get("props", ()))
            and ("about" not in asked or canonical(asked["about"]) in self.persons)
            and (not text or any(text in one for one in self.texts))
        )


def naive(rows: list[Known], asked: dict[str, Any]) -> list[tuple[int, int]]:
    return sorted((one.position for one in rows if one.matches(asked)), reverse=True)


def every(trail: Trail) -> list[Known]:
    return [Known(row) for row in chosen_events(trail.store.connection, Selection())]
