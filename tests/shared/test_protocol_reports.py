"""Compares the reports that shared/PROTOCOL.md describes with those in the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgpack
import pytest

from logd import batch
from logd.batch import Batch, Producer
from logd.reports import registry, sql
from logd.reports.parameters import Parameters
from logd.storage.database import connect
from logd.storage.job_table import FORGET, add_job
from logd.storage.migrations import migrate
from logd.storage.store import Store
from logd_wire import query, wire
from tests.shared.protocol_document import TEXT, plain, section, tables


class Recorder(Parameters):
    """Records the names and types of the parameters that a report takes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: dict[str, str] = {}

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int) -> int:
        self.asked[name] = "int" if default is not None else "int, required"
        return super().whole(name, default, low=low, high=high)

    def maybe_whole(self, name: str, *, low: int = 0, high: int = 2**63 - 1) -> int | None:
        found = super().maybe_whole(name, low=low, high=high)
        self.asked[name] = "int"
        return found

    def text(self, name: str, default: str | None = None) -> str:
        self.asked[name] = "str" if default is not None else "str, required"
        return super().text(name, default)

    def maybe_text(self, name: str) -> str | None:
        found = super().maybe_text(name)
        self.asked[name] = "str"
        return found

    def maybe_texts(self, name: str) -> list[str] | None:
        self.asked[name] = "texts"
        return super().maybe_texts(name)


REQUIRED: dict[str, dict[str, Any]] = {
    "daily_activity": {"since_day": 1, "until_day": 2},
    "timeline": {"user": "7"},
    "event": {"id": 1},
    **{name: {"user": "7"} for name in registry.REPORTS if name.startswith("person_")},
    "evidence": {"user": "7"},
    "evidence_events": {"user": "u", "up_to": 3, "size": 1},
}
# Reports whose columns are computed: asked where they have a row.
COMPUTED = {"evidence_events"}
# Computed columns, not in the database.
ADDED = {
    name: ["time_in_doubt"]
    for name in (
        *("event", "events", "events_after", "events_export", "timeline"),
        *("person_events", "person_mentions"),
    )
} | {"person_totals": ["kept_ns"], "event_counts": ["type", "day", "events"]}
# Their columns are made of the events found, not of one SELECT.
_EVENT = ["id", "ts_ns", "stored_ns", "type"]
MADE = {
    "person_mentions": [*_EVENT, "user", "producer", "sequence", "props", "time_in_doubt"],
    "person_readings": [*_EVENT, "reader", "named", "own", "props"],
}


def documented_reports() -> set[str]:
    queries = TEXT.partition("\n## Queries\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^### `(\w+)`$", queries, re.MULTILINE))


def test_every_report_is_described_and_no_other() -> None:
    assert documented_reports() == set(registry.REPORTS)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Any:
    connection = connect(tmp_path_factory.mktemp("database") / "a.db", bytes(32))
    migrate(connection, now_ns=1)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trail with every kind of row, and each nullable column nil once."""
    store = Store(tmp_path_factory.mktemp("filled") / "a.db", bytes(32), 1, 10)
    producer = Producer(uid=7, id=9, seed=0, pid=3)
    made = Batch(100, 10**6)
    props = msgpack.packb({"quiz": 1, "score": 0.5})
    for user, kind, packed in (
        ("u", "quiz_submitted", props),
        ("u", "task_completed", msgpack.packb({"task": "t"})),
        (None, "page_view", b"\x80"),
    ):
        producer.taken += 1
        made.add(producer, producer.taken, wire.Event(kind, 10**18, user, packed), 10)
    read = msgpack.packb({"report": "timeline", "params": {"user": "u"}})
    for user in ("8", None):
        producer.taken += 1
        event = wire.Event("report_read", 10**18, user, read)
        made.add(producer, producer.taken, event, 10)
    made.add_loss(producer, 6, 7, batch.LOST_NOT_RECEIVED)
    made.add_loss(producer, 8, None, batch.LOST_OUTBOX_GONE)
    made.add_quarantine(7, 3, "malformed: it", b"x", producer, 9)
    made.add_quarantine(7, 3, "truncated datagram: 1 bytes", b"x")
    store.commit(made, 10**18)
    add_job(store.connection, FORGET, {}, 10**18)
    store.connection.execute("INSERT INTO copy VALUES (1, 'backup', 5, NULL, '/b')")
    yield store.connection
    store.close()


WIDE: dict[str, dict[str, Any]] = {
    "daily_activity": {"since_day": 11_000, "until_day": 12_000},
    "timeline": {"user": "u"},
    **{name: {"user": "u"} for name in registry.REPORTS if name.startswith("person_")},
}
SEEN_AS_NIL = {
    *("completions", "event_counts", "events", "events_after", "events_export"),
    *("losses", "losses_by_cause", "quarantine"),
}


@pytest.mark.parametrize("name", sorted(registry.REPORTS))
def test_a_report_takes_the_parameters_and_gives_the_columns_described(
    name: str, database: Any, filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[str] = []

    def recording(real: Any) -> Any:
        def rows(connection: Any, query: str, values: list[Any], **place: int) -> Any:
            columns.extend(column[0] for column in connection.execute(query, values).description)
            return real(connection, query, values, **place)

        return rows

    for function in ("fetch_rows", "page"):
        monkeypatch.setattr(sql, function, recording(getattr(sql, function)))
    parameters = Recorder(REQUIRED.get(name, {}))
    answer = registry.REPORTS[name].run(filled if name in COMPUTED else database, parameters)
    columns = MADE.get(name, columns + ADDED.get(name, []))
    columns = columns or list(answer.rows[0])

    text = section(f"### `{name}`")
    *parameters_table, rows_table = tables(f"### `{name}`")
    documented = {
        plain(row["parameter"]): row["type"] for table in parameters_table for row in table
    }
    assert documented == parameters.asked
    assert ("No parameters." in text) is (documented == {})
    assert [plain(row["column"]) for row in rows_table] == columns
    recorded = registry.REPORTS[name].concern is not None
    assert ("Each reading is recorded." in text) is recorded


TYPES = {"int": int, "str": str, "bool": bool, "float": float, "map": dict, "array": list}


@pytest.mark.parametrize("name", sorted(registry.REPORTS))
def test_a_column_is_of_the_type_described(name: str, filled: Any) -> None:
    *_, rows_table = tables(f"### `{name}`")
    documented = {
        plain(row["column"]): (TYPES[row["type"].partition(" ")[0]], "or nil" in row["type"])
        for row in rows_table
    }
    parameters = Parameters(WIDE.get(name, REQUIRED.get(name, {})))
    rows = registry.REPORTS[name].run(filled, parameters).rows
    assert rows
    for row in rows:
        for column, value in row.items():
            kind, may_be_nil = documented[column]
            assert type(value) is kind or (value is None and may_be_nil), (column, value)
    never_nil = {column for column, (_, may_be_nil) in documented.items() if not may_be_nil}
    was_nil = {column for row in rows for column, value in row.items() if value is None}
    assert was_nil.isdisjoint(never_nil)
    assert was_nil or name not in SEEN_AS_NIL, "or the page may say less"


def test_a_request_has_the_keys_described() -> None:
    requests, responses, _ = tables("## Queries")
    sent: list[dict[str, Any]] = []

    class Client(query.QueryClient):
        def _exchange(self, frame: bytes) -> dict[str, Any] | None:
            sent.append(msgpack.unpackb(frame[4:]))
            return {"ok": True, "rows": [], "next": None}

    Client("/q").ask("summary")
    assert {plain(row["request"]) for row in requests} == set(sent[0])
    assert {plain(row["response"]) for row in responses} == {
        "ok", "rows", "next", "searched_to_ns", "removed", "error", "message"
    }  # fmt: skip
