"""A daemon in the test's process, which runs a step only when the test calls it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator

from logd.audit.verify import verify
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.receiver import Receiver, bind
from logd.serve.loop import EventLoop
from logd.storage import keyfile
from logd.storage.store import Store
from tests.support.instance import Instance

Start = Callable[..., EventLoop]


@contextlib.contextmanager
def stepped_daemons(instance: Instance) -> Iterator[Start]:
    """Makes daemons, with settings; what they have stored is verified at the end."""
    made: list[EventLoop] = []

    def start(**settings: object) -> EventLoop:
        instance.configure(**{"commit_interval_ms": 0, **settings})  # each step commits
        config = instance.config
        store = Store(config.database, keyfile.read(config.key_file), 1, 100)
        outboxes = OutboxDirectory(config.outbox_directory, many_users=config.many_users)
        outboxes.prepare(str(config.socket))
        receiver = Receiver(bind(config.socket, socket.SOCK_DGRAM, config.socket_mode))
        made.append(EventLoop(config, store, receiver, outboxes, clock_ns=lambda: 7))
        return made[-1]

    yield start
    for daemon in made:
        assert verify(daemon._store._connection).findings == []
        daemon.close()


def add_earlier_producers(
    daemon: EventLoop, uid: int, ids: Iterable[int], *, has_outbox: bool
) -> None:
    """Has the daemon's database know producers of an earlier boot, which have not ended."""
    connection = daemon._store._connection
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO producer VALUES (?, ?, ?, 0, 0, ?, 'an earlier boot', 1, 1, 1)",
        [(id, uid, f"{id:016x}", has_outbox) for id in ids],
    )
    connection.execute("COMMIT")
    daemon._store._load()


def look(daemon: EventLoop) -> None:
    """One step in which the look is due, and those that it takes to open and search all files."""
    daemon.delivery.state.poll_due_s = 0.0
    daemon.run_once(timeout_s=0)
    while daemon.delivery.tasks or daemon.delivery.finder.is_listing:
        daemon.run_once(timeout_s=0)


@contextlib.contextmanager
def connected(instance: Instance) -> Iterator[socket.socket]:
    """A client's socket, connected to the daemon's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)
        yield sock
