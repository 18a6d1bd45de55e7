"""Compares the tables, numbers and names of shared/PROTOCOL.md with the code."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from flask_logd import callables
from logd import batch
from logd.ingest import (
    drain,
    open_outbox,
    ordering,
    outbox_directory,
    outbox_lifecycle,
    outbox_opener,
    outbox_reader,
)
from logd.reports import events_after, registry
from logd.serve import report_server, request_server
from logd.storage import event_types
from logd_wire import query, rendezvous, requests, wire
from logd_wire.outbox import layout, reader
from logd_wire.outbox.layout import REFUSAL_CAUSES
from logd_wire.outbox.writer import OutboxWriter
from tests.shared.protocol_document import (
    FOLDER,
    REPOSITORY,
    TEXT,
    Row,
    number,
    plain,
    section,
    tables,
)

# -- events of a site ----------------------------------------------------------------------------


def test_the_types_of_requests_are_those_of_the_table() -> None:
    types, props = tables("### Requests to a site")
    assert {plain(row["type"]) for row in types} == requests.OTHER_REQUESTS | {requests.PAGE_VIEW}
    named = {name for row in props for name in re.findall(r"`(\w+)`", row["property"])}
    assert {"view_args", callables.EXTRA_ERROR, callables.FILTER_ERROR} <= named
    said = {plain(row["type"]): row["the request"] for row in types}
    for status in range(200, 600):
        for method in ("GET", "POST", "HEAD"):
            found = requests.request_type(method, status)
            low, high = BOUNDS[found]
            is_shown = method == "GET" and (status < 300 or status == 304)
            assert (found == "page_view") == is_shown
            assert is_shown or low <= status <= high
    for event_type, (low, high) in BOUNDS.items():
        if event_type not in ("page_view", "request_answered"):
            assert str(low) in said[event_type]
            assert high == 599 or str(high) in said[event_type]


BOUNDS = {
    "page_view": (200, 304),
    "request_answered": (200, 299),
    "request_redirected": (300, 399),
    "request_refused": (400, 499),
    "request_failed": (500, 599),
}


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
    modules = (report_server, request_server, registry, events_after)
    source = "".join(map(source_of, modules))
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
