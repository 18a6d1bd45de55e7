"""Signals to a running daemon: SIGHUP reads logd.toml again, and no other ends it by surprise."""

from __future__ import annotations

import os
import signal
from dataclasses import fields, replace
from pathlib import Path

import pytest

from logd.audit.anchors import AnchorSchedule
from logd.config import settings as configuration
from logd.config.settings import Config
from logd.maintenance.database_copy import Interrupted, stoppable
from logd.serve.reload import COMMANDS, LIVE, REPORTS, compare
from logd.storage.tree_head import Head
from logd_client import Client
from logd_wire.query import QueryClient
from tests.support.instance import Instance, until

OTHERS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPIPE)


def made(**settings: object) -> Config:
    text = "\n".join(f"{name} = {value}" for name, value in settings.items())
    return configuration.parse(text, Path("/srv/logd/logd.toml"))


def test_each_setting_that_has_changed_is_named_with_what_becomes_of_it() -> None:
    running = made()
    read = made(
        stop_timeout_s=5, query_uids="[33]", commit_interval_ms=10, retention='{ a = "9d" }'
    )
    reload = compare(running, read, running.outbox_directory)
    assert list(reload.parts()) == [
        "in use now: stop_timeout_s",
        "the report process is restarted for query_uids",
        "commands use retention from now on",
        "a restart is needed for commit_interval_ms",
    ]
    assert (reload.config.stop_timeout_s, reload.config.query_uids) == (5, (33,))
    # What waits for the restart is not in use, and is named again by the next reload.
    assert reload.config.commit_interval_ms == running.commit_interval_ms
    assert list(compare(reload.config, read, running.outbox_directory).parts()) == [
        "a restart is needed for commit_interval_ms"
    ]


def test_every_setting_is_of_one_kind_and_where_files_and_sockets_are_needs_a_restart() -> None:
    names = {one.name for one in fields(Config)}
    kinds = [LIVE, REPORTS, COMMANDS]
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds) & names)
    assert not frozenset().union(*kinds) & {"database", "key_file", "socket", "outbox_directory"}


def test_the_directory_of_outboxes_in_use_is_no_change() -> None:
    """Where its name was taken, the daemon uses another, which the file beside the socket names."""
    running = made()
    other = replace(running, outbox_directory=Path("/dev/shm/another"))
    assert not compare(running, other, other.outbox_directory).restart
    assert compare(running, other, running.outbox_directory).restart == ("outbox_directory",)


def test_another_interval_of_anchors_counts_at_once() -> None:
    pace = AnchorSchedule(3600)
    assert pace.due_heads(Head(1, 1, b"a"), None, 0.0)
    assert not pace.due_heads(Head(2, 2, b"b"), None, 1.0)
    pace.set_interval(3600)
    assert not pace.due_heads(Head(2, 2, b"b"), None, 1.0)
    pace.set_interval(10)
    assert pace.due_heads(Head(2, 2, b"b"), None, 1.0)
    assert not pace.due_heads(Head(3, 3, b"c"), None, 5.0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_copy_whose_terminal_closes_is_ended_in_order(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with stoppable() as stop:
            signal.raise_signal(number)
            with pytest.raises(Interrupted, match=number.name):
                stop.check()
    finally:
        signal.signal(number, before)


def test_a_copy_under_nohup_continues() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            signal.raise_signal(signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_sighup_reads_the_configuration_again_and_no_signal_ends_the_daemon(
    instance: Instance,
) -> None:
    daemon = instance.start()
    pid = daemon.popen.pid
    reading = QueryClient(str(instance.config.query_socket), timeout_s=20)
    assert reading.ask("summary").rows  # by then the report process has read the file
    first = children(pid)

    instance.configure(metrics="metrics.sock", commit_interval_ms=10, anchor_interval_s=1)
    instance.configure(anchor_file="anchors")
    daemon.popen.send_signal(signal.SIGHUP)
    until(lambda: daemon.says("SIGHUP: read"), "it has read it again")
    (line,) = [line for line in daemon.lines if "SIGHUP" in line]
    assert line.endswith(
        "logd.toml again: in use now: anchor_interval_s, anchor_file; the report process is "
        "restarted for metrics; a restart is needed for commit_interval_ms"
    )
    until((instance.directory / "metrics.sock").exists, "the report process serves metrics")
    (reports,) = children(pid)
    assert [reports] != first

    with (instance.directory / "logd.toml").open("a") as file:
        file.write("commit_interval_ms = nonsense\n")
    daemon.popen.send_signal(signal.SIGHUP)
    until(lambda: daemon.says("SIGHUP: not reloaded, nothing has changed"), "it refuses")

    for number in (*OTHERS, signal.SIGHUP):
        os.kill(reports, number)
    for number in OTHERS:
        daemon.popen.send_signal(number)
    with Client(instance.socket) as client:
        assert client.emit("page_view", durable=True)
    until((instance.directory / "anchors").exists, "the head of the chain is in the new file")
    assert children(pid) == [reports]
    assert sum("SIGHUP" in line for line in daemon.lines) == 2
    assert not any("Traceback" in line for line in daemon.lines)
    assert instance.stop() == 0
