"""Compares the tables, numbers and names of shared/PROTOCOL.md with the code."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd import batch
from logd.batch import Batch, Producer
from logd.ingest import (
    drain,
    open_outbox,
    ordering,
    outbox_directory,
    outbox_lifecycle,
    outbox_opener,
    outbox_reader,
)
from logd.reports import registry, sql
from logd.reports.parameters import Parameters
from logd.serve import report_server, request_server
from logd.storage import event_types
from logd.storage.database import connect
from logd.storage.migrations import migrate
from logd.storage.store import Store
from logd_wire import query, rendezvous, wire
from logd_wire.outbox import layout, reader
from logd_wire.outbox.layout import REFUSAL_CAUSES
from logd_wire.outbox.writer import OutboxWriter
from tests.support.instance import ROOT

FOLDER = ROOT / "shared"
TEXT = (FOLDER / "PROTOCOL.md").read_text(encoding="utf-8")
REPOSITORY = FOLDER.parent

Row = dict[str, str]


def section(heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    _, found, rest = f"\n{TEXT}".partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r}"
    inside, fenced = [], False
    for line in rest.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            break
        inside.append(line)
    return "\n".join(inside)


def tables(heading: str) -> list[list[Row]]:
    """The tables below a heading: rows by the names of their columns."""
    found: list[list[Row]] = []
    names: list[str] | None = None
    for line in section(heading).splitlines():
        if not line.startswith("|"):
            names = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if names is None:
            names = cells
            found.append([])
        elif set("".join(cells)) != {"-"}:
            assert len(cells) == len(names), line
            found[-1].append(dict(zip(names, cells, strict=True)))
    return found


def plain(cell: str) -> str:
    return cell.strip("`")


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


# -- bytes ---------------------------------------------------------------------------------------


def slices(table: list[Row], payload_bytes: int) -> dict[str, slice]:
    """The place of each field in the document."""
    found = {}
    for row in table:
        start, length = number(row["byte"]), row["length"]
        end = start + (number(length) if length.isdigit() else payload_bytes)
        found[plain(row["field"])] = slice(start, end)
    return found


def test_a_datagram_is_laid_out_as_in_its_table() -> None:
    (table,) = tables("## Datagram")[:1]
    at = slices(table, 3)
    head = wire.datagram_head(0x1122334455667788, kind=wire.KIND_FAREWELL)
    fields = {name: head[where] for name, where in at.items() if name != "records"}
    assert fields == {
        "magic": wire.MAGIC,
        "version": bytes([wire.WIRE_VERSION]),
        "kind": b"\1",
        "zeros": bytes(3),
        "producer": bytes.fromhex("8877665544332211"),
    }
    assert at["records"].start == wire.DATAGRAM_HEAD.size == len(head)
    kinds = "0: events, 1: farewell, 2: awaited events"
    assert kinds in {row["value"] for row in table}
    assert (wire.KIND_EVENTS, wire.KIND_FAREWELL, wire.KIND_AWAITED) == (0, 1, 2)


def test_a_record_is_laid_out_as_in_its_table() -> None:
    at = slices(tables("## Record")[0], 3)
    record = wire.encode_record(wire.producer_seed(1), 0x1122334455667788, b"abc")
    assert record[at["length"]] == struct.pack("<I", 3)
    assert record[at["sequence"]] == bytes.fromhex("8877665544332211")
    assert record[at["payload"]] == b"abc"
    assert at["payload"].start == wire.RECORD_HEAD.size
    # The seed and the order of what the CRC is over, as the text under the table puts it.
    from_text = zlib.crc32(b"\x88\x77\x66\x55\x44\x33\x22\x11abc", zlib.crc32(b"\1" + bytes(7)))
    assert record[at["crc"]] == struct.pack("<I", from_text)


def test_every_word_of_an_outbox_is_where_its_table_has_it() -> None:
    words, causes = tables("## Outbox")
    documented = {plain(row["name"]): number(row["word"]) for row in words}
    in_code = {
        name.removeprefix("WORD_").lower(): value
        for name, value in vars(layout).items()
        if name.startswith("WORD_")
    }
    assert documented == in_code
    assert all(number(row["byte"]) == 8 * number(row["word"]) for row in words)
    assert {number(row["word"]): plain(row["cause"]) for row in causes} == dict(
        enumerate(REFUSAL_CAUSES, start=layout.WORD_REFUSED)
    )


def test_every_word_has_one_writer_and_it_is_the_one_in_the_table() -> None:
    by_daemon = {
        plain(row["name"]) for row in tables("## Outbox")[0] if row["written by"] == "daemon"
    }
    assert by_daemon == {
        "confirmed_sequence",
        "confirmed_position",
        "watched_until_ns",
        "retired",
        "given_up",
    }
    file = bytearray(layout.outbox_bytes(layout.RING_BYTES_MIN))
    writer = OutboxWriter(memoryview(file), 1, 2, 3)
    words = slice(layout.CONFIRMED_OFFSET, layout.CONFIRMED_OFFSET + 40)
    file[words] = mark = b"\xaa" * 40
    writer.append(b"x")
    writer.refused(REFUSAL_CAUSES[-1], 1)
    writer.farewell()
    assert file[words] == mark


def in_the_code(row: Row) -> Any:
    module, _, name = plain(row["in the code"]).rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("row", tables("## Limits")[0], ids=lambda row: row["in the code"])
def test_a_limit_is_the_one_in_the_code(row: Row) -> None:
    assert in_the_code(row) == number(row["value"])


@pytest.mark.parametrize("row", tables("## Limits")[1], ids=lambda row: row["in the code"])
def test_a_time_is_the_one_in_the_code(row: Row) -> None:
    assert in_the_code(row) == float(row["seconds"])


def test_the_versions_are_the_ones_in_the_code() -> None:
    documented = [number(row["now"]) for row in tables("## Versions")[0]]
    assert documented == [wire.WIRE_VERSION, layout.OUTBOX_VERSION, query.QUERY_VERSION]


def test_the_rendezvous_file_is_named_and_filled_as_shown() -> None:
    block = section("## Rendezvous").split("```")[1].strip("\n")
    values = dict(line.split("=") for line in block.splitlines())
    assert rendezvous.Rendezvous(**values).text() == block + "\n"
    assert rendezvous.rendezvous_path("<socket>") == "<socket>.outboxes"
    assert f"token` is {len(rendezvous.new_token())} lower-case" in section("## Rendezvous")


# -- reasons, causes, codes ----------------------------------------------------------------------


def source_of(module: Any) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")


def test_every_reason_for_refusing_a_datagram_is_in_the_table_and_no_other() -> None:
    documented = {plain(row["reason"]) for row in tables("## Datagram")[1]}
    source = source_of(wire) + source_of(ordering)
    in_code = set(re.findall(r'(?:WireError|OtherVersion)\(\s*"([^"]+)"', source))
    assert documented - in_code == {"farewell claims too much"}  # the farewell itself is sound
    assert in_code - documented == set()
    vectors = json.loads((FOLDER / "vectors" / "datagrams.json").read_text())["vectors"]
    assert {vector["error"] for vector in vectors if "error" in vector} <= documented


def test_every_reason_in_quarantine_is_in_a_table_and_no_other() -> None:
    (table,) = [rows for rows in tables("## What the daemon does") if "reason" in rows[0]]
    documented = {name for row in table for name in re.findall(r"`([^`]+)`", row["reason"])}
    of_files = {name.removeprefix("outbox: ") for name in documented if name.startswith("outbox: ")}
    raised = r'(?:WireError|OutboxError|Foreign)\(\s*"([^"]+)"'
    in_code = set(
        re.findall(
            raised,
            "".join(map(source_of, (layout, open_outbox, outbox_directory, outbox_reader))),
        )
    )
    # Of a record in a ring, the same that it has in a datagram; and of reading one.
    in_code |= set(re.findall(raised, inspect.getsource(wire.decode_record)))
    in_code |= set(re.findall(r'damage = f"([^:]+): ', source_of(reader)))
    uses = source_of(outbox_lifecycle) + source_of(outbox_opener)
    in_code |= set(re.findall(r'f"(system error): ', uses))
    in_code |= set(re.findall(raised, source_of(reader)))
    assert of_files == in_code
    booked = r'(?:add_quarantine\([^"]*|reason = )f?"([^":{]+)'
    others = set(re.findall(booked, source_of(ordering) + source_of(drain) + uses))
    others |= {event_types.REFUSED}
    of_datagrams = {plain(row["reason"]) for row in tables("## Datagram")[1]}
    assert others - of_datagrams - of_files == {name for name in documented if ":" not in name}


def test_every_cause_in_the_ledger_is_in_the_table_and_no_other() -> None:
    documented = {plain(row["cause"]) for row in tables("## What the daemon does")[0]}
    assert documented == {value for name, value in vars(batch).items() if name.startswith("LOST_")}


def test_every_code_of_a_refused_query_is_in_the_table_and_no_other() -> None:
    _, _, codes = tables("## Queries")
    source = source_of(report_server) + source_of(request_server) + source_of(registry)
    in_code = re.findall(r'(?:QueryError|_error_frame|error|__init__)\(\s*"(\w+)"', source)
    assert {plain(row["code"]) for row in codes} == set(in_code)


# -- the state table -----------------------------------------------------------------------------


def test_the_state_table_has_all_27_cells_each_once() -> None:
    (table,) = tables("### The state table")
    cells = [(row["producer"], row["outbox"], row["watermark"]) for row in table]
    assert sorted(cells) == sorted(
        itertools.product(
            ("live", "dead", "unreachable"),
            ("file", "none", "foreign"),
            ("behind", "equal", "ahead"),
        )
    )


def test_every_cell_has_an_action_and_a_bound_or_cannot_occur() -> None:
    (rows,) = tables("### The state table")
    assert len(rows) == 3 * 3 * 3
    for row in rows:
        assert row["action"]
        assert row["bound"]
        assert (row["bound"] == "-") is row["action"].startswith("Cannot occur"), row


def test_the_causes_named_in_the_state_table_are_causes_in_the_ledger() -> None:
    text = "".join(row["action"] for row in tables("### The state table")[0])
    known = {value for name, value in vars(batch).items() if name.startswith("LOST_")}
    assert known - {batch.LOST_DAMAGED} == {cause for cause in known if f"`{cause}`" in text}


# -- reports -------------------------------------------------------------------------------------


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
}
# Computed columns, not in the database.
ADDED = {name: ["time_in_doubt"] for name in ("events", "timeline")}


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
    made.add_loss(producer, 4, 5, batch.LOST_NOT_RECEIVED)
    made.add_loss(producer, 6, None, batch.LOST_OUTBOX_GONE)
    made.add_quarantine(7, 3, "malformed: it", b"x", producer, 7)
    made.add_quarantine(7, 3, "truncated datagram: 1 bytes", b"x")
    store.commit(made, 10**18)
    yield store.connection
    store.close()


WIDE: dict[str, dict[str, Any]] = {
    "daily_activity": {"since_day": 11_000, "until_day": 12_000},
    "timeline": {"user": "u"},
}
SEEN_AS_NIL = {"completions", "events", "losses", "losses_by_cause", "quarantine"}


@pytest.mark.parametrize("name", sorted(registry.REPORTS))
def test_a_report_takes_the_parameters_and_gives_the_columns_described(
    name: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[str] = []
    real_rows = sql.fetch_rows

    def rows(connection: Any, query: str, values: list[Any]) -> Any:
        columns.extend(column[0] for column in connection.execute(query, values).description)
        return real_rows(connection, query, values)

    monkeypatch.setattr(sql, "fetch_rows", rows)
    parameters = Recorder(REQUIRED.get(name, {}))
    answer = registry.REPORTS[name].run(database, parameters)
    columns = columns or list(answer.rows[0])
    columns += ADDED.get(name, [])

    text = section(f"### `{name}`")
    *parameters_table, rows_table = tables(f"### `{name}`")
    documented = {
        plain(row["parameter"]): row["type"] for table in parameters_table for row in table
    }
    assert documented == parameters.asked
    assert ("No parameters." in text) is (documented == {})
    assert [plain(row["column"]) for row in rows_table] == columns
    assert ("Names persons." in text) is registry.REPORTS[name].names_persons


TYPES = {"int": int, "str": str, "bool": bool, "float": float, "map": dict}


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
        "ok", "rows", "next", "error", "message"
    }  # fmt: skip


# -- vectors and links ---------------------------------------------------------------------------


def test_every_file_of_vectors_is_named() -> None:
    named = {plain(row["file"]) for row in tables("## Test vectors")[0]}
    assert named == {path.name for path in (FOLDER / "vectors").iterdir()}


def test_every_file_and_heading_that_is_pointed_to_exists() -> None:
    for path in re.findall(r"`((?:shared|tests)/[\w./]+)`", TEXT):
        assert (REPOSITORY / path).exists(), path
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings
