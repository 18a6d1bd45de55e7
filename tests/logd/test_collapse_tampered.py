"""A collapse over changed rows ends its job, with what to do, or leaves them to `logd verify`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.clock import readings
from logd.maintenance import prune, stored_times
from logd.storage.job_table import PRUNE
from tests.logd.made_up_trail import Trail
from tests.logd.test_collapse import ALL, fill
from tests.support.instance import short_directory

pytestmark = pytest.mark.usefixtures("clocks_from_1970")

FAR = 2**63 - 1
TAMPERINGS = [
    "DELETE FROM batch WHERE id < 300",
    "DELETE FROM batch",
    "UPDATE batch SET first_event = 'x' WHERE id = 200",
    "UPDATE batch SET first_event = 1e300 WHERE id = 200",
    f"UPDATE batch SET first_event = -{FAR} WHERE id = 200",
    "UPDATE batch SET events = 'x' WHERE id = 200",
    f"UPDATE batch SET events = {FAR} WHERE id = 200",
    "UPDATE batch SET events = -5 WHERE id = 200",
    "UPDATE batch SET hash = 7 WHERE id = 200",
    "UPDATE batch SET id = -3 WHERE id = 300",
    "UPDATE removed SET last = 'x'",
    f"UPDATE removed SET last = {FAR}",
    "UPDATE removed SET last = 0",
    "UPDATE removed SET removal = 'x'",
    "UPDATE removed SET removal = 99999",
    f"INSERT INTO removed VALUES ({-FAR - 1}, 5, 1)",
    f"INSERT INTO removed VALUES ({FAR}, {FAR}, 1)",
    "UPDATE removal SET waiting_events = 'x'",
    "UPDATE removal SET waiting_events = events",
    f"UPDATE removal SET waiting_events = {FAR}",
    "UPDATE removal SET collapsed_events = 'x'",
    "UPDATE removal SET collapsed_events = 0.5",
    "UPDATE removal SET collapsed_events = 5",
    "UPDATE removal SET events = 'x'",
    "UPDATE removal SET events = 1",
    "DELETE FROM removal",
    f"INSERT INTO collapse VALUES ({FAR}, 1, 1, 1, 1, 1)",
    "DELETE FROM node",
    "UPDATE node SET hash = 7",
    "INSERT INTO node VALUES (0, 5, zeroblob(32))",
    "INSERT INTO node VALUES (0, 'x', 7)",
]


@pytest.fixture(scope="module")
def pruned() -> Iterator[Path]:
    """A trail whose events are all removed, and no batch collapsed yet."""
    directory = short_directory()
    with pytest.MonkeyPatch.context() as patch:
        for module in (readings, stored_times):
            patch.setattr(module, "EARLIEST_NS", 0)
        trail = Trail(directory, random.Random(1))
        patch.setattr(prune, "collapse", lambda *_: iter(()))
        fill(trail, 600)
        trail.finish(trail.ask(PRUNE, before=ALL))
    trail.store.close()
    yield trail.path
    shutil.rmtree(directory)


@pytest.mark.parametrize("sql", TAMPERINGS)
def test_a_collapse_over_changed_rows_ends_and_the_daemon_goes_on(
    sql: str, pruned: Path, trail: Trail
) -> None:
    trail.store.close()
    shutil.copy(pruned, trail.path)
    trail.open()
    trail.store.connection.execute("PRAGMA foreign_keys = OFF")
    assert trail.store.connection.execute(sql).rowcount > 0
    job = trail.ask(PRUNE, before=ALL)
    for _ in range(200):
        if (done := trail.job(job)).finished_ns is not None:
            break
        trail.worker.step()
    assert done.finished_ns is not None, "the job ends"
    assert done.trouble is None or "stored data was changed" in done.trouble
    assert done.trouble is None or done.trouble.endswith("see logd verify")
    assert trail.findings() != []
    trail.store.record("trail_exported", {}, 1)  # as the daemon goes on
