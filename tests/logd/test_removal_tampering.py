"""Records of removed events that are changed are found, and a job that meets them reports it."""

from __future__ import annotations

import pytest

from logd.storage.database import Connection
from logd.storage.job_table import FORGET, PRUNE
from tests.logd.made_up_trail import DAY_NS, Trail

pytestmark = pytest.mark.usefixtures("clocks_from_1970")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM event WHERE id = {kept}", "some were removed or added"),
        ("UPDATE removed SET last = last + 1 WHERE first = {gone}", "was"),
        ("DELETE FROM removed WHERE first = {gone}", "some were removed or added"),
        ("DELETE FROM removal WHERE id = 1", "removal 1: is missing"),
        ("UPDATE removal SET hash = zeroblob(32) WHERE id = 1", "removal 1: what it took out"),
        ("UPDATE removal SET events = events + 1 WHERE id = 1", "removal 1: what it took out"),
        ("UPDATE removal SET event = event + 1 WHERE id = 1", "does not record it"),
        (
            # What a client says proves nothing.
            "UPDATE event_type SET name = 'made_up' WHERE name = 'events_pruned'",
            "does not record it",
        ),
        ("UPDATE leaf SET hash = zeroblob(32) WHERE event = {gone}", "an event was changed"),
        ("DELETE FROM leaf WHERE event = {gone}", "some were removed or added"),
        ("UPDATE counter SET value = value + 1 WHERE name = 'erased'", "counter erased"),
        ("UPDATE counter SET value = value + 1 WHERE name = 'pruned'", "counter pruned"),
        ("UPDATE event SET props = x'80' WHERE id = {redacted}", "changed after its redaction"),
        ("UPDATE redacted SET hash = zeroblob(32)", "what it took out was changed"),
        (
            "INSERT INTO event SELECT {gone}, producer, sequence, ts_ns, type, user, props, salt"
            " FROM event WHERE id = {kept}",
            "is still there, though it was removed",
        ),
    ],
)
def test_tampering_after_a_removal_is_reported(trail: Trail, sql: str, expected: str) -> None:
    def one(which: str) -> int:
        (event_id,) = trail.store.connection.execute(which).fetchone()
        return int(event_id)

    trail.fill(200, per_batch=50)
    trail.finish(trail.ask(PRUNE, before={"login": 15 * DAY_NS}))
    trail.finish(trail.ask(FORGET, users=["3"]))
    assert trail.findings() == []
    connection: Connection = trail.store.connection
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(
        sql.format(
            gone=one("SELECT r.first FROM removed r JOIN leaf l ON l.event = r.first LIMIT 1"),
            kept=one("SELECT id FROM event LIMIT 1"),
            redacted=one("SELECT event FROM redacted LIMIT 1"),
        )
    )
    assert any(expected in finding for finding in trail.findings()), trail.findings()


def test_a_job_that_meets_tampered_data_fails_reports_it_and_keeps_no_name(
    trail: Trail,
) -> None:
    """Batches are missing, so it is unknown which leaves to keep. The next job runs."""
    trail.fill(50)
    trail.store.connection.execute("PRAGMA foreign_keys = OFF")
    trail.store.connection.execute("DELETE FROM batch WHERE id < 5")
    job_id = trail.ask(FORGET, users=["3"])
    while (job := trail.job(job_id)).finished_ns is None:
        trail.worker.step()
    assert job.trouble is not None
    assert "see logd verify" in job.trouble
    assert job.params == {}
    trail.finish(trail.ask(PRUNE, before={}))
