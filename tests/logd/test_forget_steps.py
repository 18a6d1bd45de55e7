"""A step of a forget is bounded: in bytes read, in events and excerpts changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.maintenance import event_removal, forget
from logd.maintenance.event_removal import Steps
from logd.storage import job_table, stored_users
from logd.storage.database import Connection
from logd.storage.job_table import FORGET
from logd_wire.wire import Event, producer_seed
from tests.logd.made_up_trail import Trail

pytestmark = pytest.mark.usefixtures("clocks_from_1970")


def test_a_step_of_a_forget_reads_bounded_bytes(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each event is as large as it may be."""
    monkeypatch.setattr(forget, "_READ_BYTES", 100_000)
    large = msgpack.packb({"users": ["anna", "y" * 20_000]})
    trail.commit([Event("page_view", 3, "4", large) for _ in range(60)])
    read: list[int] = []
    redact = Steps.redact

    def counted(steps: Steps, contents: dict[int, bytes], also: Any) -> None:
        read.append(sum(map(len, contents.values())))
        redact(steps, contents, also)

    monkeypatch.setattr(Steps, "redact", counted)
    job = trail.finish(trail.ask(FORGET, users=["anna"]))
    assert job.outcome["redacted"] == 60
    assert len(read) >= 20 and max(read) <= 100_000
    assert all(b"anna" not in event.props for event in trail.rows().values())
    assert trail.findings() == []


def test_a_step_of_a_forget_redacts_as_few_events_as_one_may_remove(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where many that mention nobody have made the next step a large one."""
    monkeypatch.setattr(forget, "_WINDOW_MIN", 20_000)
    monkeypatch.setattr(event_removal, "STEP_EVENTS_MAX", 150)
    named = msgpack.packb({"users": ["anna"]})
    trail.commit([Event("page_view", 3, "4", named) for _ in range(700)])
    steps: list[int] = []
    redact = Steps.redact

    def counted(self: Steps, contents: dict[int, bytes], also: Any) -> None:
        assert len(contents) <= self.events_max
        steps.append(len(contents))
        redact(self, contents, also)

    monkeypatch.setattr(Steps, "redact", counted)
    assert trail.finish(trail.ask(FORGET, users=["anna"])).outcome["redacted"] == 700
    assert sum(steps) == 700 and len(steps) >= 4
    assert all(b"anna" not in event.props for event in trail.rows().values())
    assert trail.findings() == []


def test_a_step_of_a_forget_removes_no_more_events_than_it_may(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of types with a roll-up by subject, and of the others."""
    monkeypatch.setattr(event_removal, "STEP_EVENTS_MAX", 150)
    subject = msgpack.packb({"quiz": "a", "score": 0.5})
    for kind, props in (("page_view", b"\x80"), ("quiz_submitted", subject)):
        trail.commit([Event(kind, 3, "anna", props) for _ in range(700)])
    steps: list[int] = []
    remove = Steps.remove

    def counted(self: Steps, kind: str, ids: Any, recounts: Any, also: Any, **details: Any) -> None:
        steps.append(len(ids) + sum(map(len, recounts.values())))
        assert steps[-1] <= self.events_max
        remove(self, kind, ids, recounts, also, **details)

    monkeypatch.setattr(Steps, "remove", counted)
    assert trail.finish(trail.ask(FORGET, users=["anna"])).outcome["events"] == 1400
    assert sum(steps) == 1400 and len(steps) >= 8
    assert trail.findings() == []


def test_a_step_of_a_forget_empties_a_bounded_number_of_excerpts(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "_QUARANTINE_ROWS", 30)
    batch = Batch(10**4, 10**8)
    for number in range(100):
        batch.add_quarantine(1, 2, f"malformed: {number}", b"anna")
    trail.store.commit(batch, 5)
    steps: list[int] = []
    add = job_table.Job.add

    def counted(job: job_table.Job, what: str, number: int) -> None:
        if what == "quarantine":
            steps.append(number)
        add(job, what, number)

    monkeypatch.setattr(job_table.Job, "add", counted)
    trail.finish(trail.ask(FORGET, users=["anna"]))
    assert sum(steps) == 100 and max(steps) == 30
    kept = trail.store.connection.execute("SELECT DISTINCT reason, excerpt FROM quarantine")
    assert kept.fetchall() == [("malformed", b"")]


def test_a_step_of_a_forget_compares_fewer_users_where_each_may_be_of_many_senders(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of a list is of a person of any sender: each user is compared once for each."""
    trail.commit([Event("page_view", 3, f"user {number}", b"\x80") for number in range(300)])
    batch = Batch(10**4, 10**8)
    for uid in range(2000, 2050):
        producer = Producer(uid=uid, id=9, seed=producer_seed(9), taken=1)
        batch.add(producer, 1, Event("page_view", 3, "user 8", b"\x80"), 1)
    trail.store.commit(batch, 5)
    monkeypatch.setattr(stored_users, "PAGE_ROWS", 530)
    pages, sizes = stored_users.pages, []

    def counted(connection: Connection, rows_max: int) -> Iterator[dict[str, int]]:
        for page in pages(connection, rows_max):
            sizes.append(len(page))
            yield page

    monkeypatch.setattr(stored_users, "pages", counted)
    token = trail.store.erasure_list.token("user 7", 1)
    job_id = forget.request_reforget(trail.store.connection, {token: 5}, 10**6, 9)
    trail.worker.poll()
    assert trail.finish(job_id).outcome["events"] == 1
    assert sum(sizes) >= 300 and max(sizes) * 50 < 1000
