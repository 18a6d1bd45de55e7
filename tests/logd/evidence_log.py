"""A small log whose events and losses are put at times of a test's choice, and its sheets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from logd.batch import LOST_NOT_RECEIVED, Batch, Producer
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage import merkle
from logd.storage.database import Connection
from logd.storage.store import Store
from logd_wire.query import Answer
from logd_wire.wire import Event, producer_seed
from tests.logd.made_up_trail import DAY_NS

HOUR_NS = 3600 * 10**9
NOW = 20_000 * DAY_NS  # a day of the made-up clock: in the year 2024


def ask(connection: Connection, report: str, **params: Any) -> Answer:
    return REPORTS[report].run(connection, Parameters(params))


def sheet(connection: Connection, **params: Any) -> dict[str, Any]:
    (row,) = ask(connection, "evidence", **params).rows
    return row


def pages(connection: Connection, **params: Any) -> Iterator[Answer]:
    while True:
        page = ask(connection, "evidence_events", **params)
        yield page
        if page.next is None:
            return
        params["after"] = page.next


def events(connection: Connection, **params: Any) -> list[dict[str, Any]]:
    return [row for page in pages(connection, **params) for row in page.rows]


def caveats(connection: Connection, *kinds: str, **params: Any) -> list[dict[str, Any]]:
    """The caveats of those kinds for a range; without kinds all but the trail's beginning."""
    found = map(json.loads, sheet(connection, user="7", **params)["caveats"])
    return [
        caveat
        for caveat in found
        if (caveat["kind"] in kinds if kinds else caveat["kind"] != "begins")
    ]


def tree(leaves: list[bytes]) -> bytes:
    """The root as RFC 9162 defines it, 2.1.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else merkle.EMPTY
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return merkle.node_hash(tree(leaves[:half]), tree(leaves[half:]))


def lines(statement: str) -> dict[str, str]:
    """The lines of a statement by their names."""
    text = statement.partition("\n\n")[0].splitlines()
    assert text[0] == "logd/evidence@v1"
    return dict(line.split(" ", 1) for line in text[1:])


class Log:
    """A store into which a test puts events of one producer, at times of its choice."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "a.db", bytes(32), 1, 20)
        self.store.connection.execute("UPDATE run SET started_ns = ?", (NOW,))
        self.producer = self.new(1)

    def new(self, number: int) -> Producer:
        producer = Producer(uid=1000, id=number, seed=producer_seed(number))
        producer.has_outbox = True
        return producer

    def put(
        self,
        ts_ns: int,
        user: str | None = "7",
        producer: Producer | None = None,
        stored_ns: int | None = None,
        kind: str = "page_view",
        **props: Any,
    ) -> None:
        producer = producer or self.producer
        producer.taken += 1
        batch = Batch(100, 10**6)
        batch.add(producer, producer.taken, Event(kind, ts_ns, user, msgpack.packb(props)), 10)
        self.commit(batch, ts_ns if stored_ns is None else stored_ns)

    def commit(self, batch: Batch, stored_ns: int) -> None:
        self.store.commit(batch, stored_ns)
        batch.mark_committed()

    def lose(
        self,
        count: int | None,
        at_ns: int,
        cause: str = LOST_NOT_RECEIVED,
        producer: Producer | None = None,
    ) -> None:
        """Loses the next numbers; without a count it is not known how many."""
        producer, batch = producer or self.producer, Batch(100, 10**6)
        first = producer.taken + 1
        producer.taken += count or 0
        batch.add_loss(producer, first, None if count is None else producer.taken, cause)
        self.commit(batch, at_ns)
