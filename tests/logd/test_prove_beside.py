"""`logd prove` and `logd checkpoint` beside a daemon that hangs: they read and do not wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from logd_client import Client
from tests.logd.anchored import trail_id
from tests.logd.trails import emit
from tests.support.instance import Instance, check_sums

WITHIN_S = 20.0


@pytest.fixture(params=["idle", "in the middle of a commit"])
def hung(instance: Instance, request: pytest.FixtureRequest) -> Iterator[Instance]:
    """An instance whose daemon is stopped by a signal, with events that it has not read."""
    daemon = instance.start()
    emit(instance, "anna", 5)
    daemon.popen.send_signal(signal.SIGSTOP)
    with Client(instance.socket) as client:
        assert all(client.emit("page_view", user="ben", props={"n": n}) for n in range(3))
    with instance.database() as connection:
        if request.param != "idle":  # what a daemon holds that hangs between BEGIN and COMMIT
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE counter SET value = value + 1")
        yield instance
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    daemon.popen.send_signal(signal.SIGCONT)
    check_sums(instance.settle(), attempted=8, accepted=8)
    assert "whole" in instance.cli("verify")


def test_heads_and_proofs_come_from_what_is_stored(hung: Instance) -> None:
    started_s = time.monotonic()
    for arguments, expected in (
        (("prove", "1"), "c2sp.org/tlog-proof"),
        (("prove", "--growth", "1"), "old 1"),
        (("checkpoint",), f"logd/{trail_id(hung)}\n"),
        (("checkpoint", "--size", "1"), "\n1\n"),
        (("checkpoint", "--public-key"), f"logd/{trail_id(hung)}+"),
    ):
        assert expected in hung.cli(*arguments)
    assert time.monotonic() - started_s < WITHIN_S
