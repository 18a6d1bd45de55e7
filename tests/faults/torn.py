"""Tears the WAL at any byte and starts a daemon on it: see test_disk_files.py."""

from __future__ import annotations

import random
import shutil
import socket
from pathlib import Path
from typing import Any

from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.receiver import Receiver, bind
from logd.serve.loop import EventLoop
from logd.storage import keyfile
from logd.storage.opening import open_for_reading
from logd.storage.store import Store
from logd_wire.outbox.layout import RING_BYTES_MIN
from tests.faults.steady import Steady, check_whole
from tests.support.instance import Instance
from tests.support.tally import Tally

FRAME_BYTES = 24 + 4096
HEADER_BYTES = 32


class Killed:
    """What a daemon killed with -9 leaves: its files and the outboxes, kept to begin from again.

    Three producers have confirmed more than their rings hold, in many commits, and wait with some
    more. Their processes are gone as well, so that every outbox is read to its end and removed.
    """

    def __init__(self, instance: Instance, keep: Path) -> None:
        self.instance = instance
        self._keep = keep
        keep.mkdir()
        instance.start()
        clients = [Steady(instance, outbox_bytes=RING_BYTES_MIN) for _ in range(3)]
        try:
            for _ in range(8):
                for client in clients:
                    client.emit_stored(60, text="x" * 200)
            instance.kill()
            for client in clients:
                client.emit(20, text="x" * 200)
            self.accepted = sum(client.accepted for client in clients)
            for client in clients:
                assert client.stats["refused"] == 0
            # As they are: farewells would be written at a client's own end.
            for file in instance.config.outbox_directory.iterdir():
                shutil.copy2(file, keep / file.name)
        finally:
            for client in clients:
                client.close()
        database = instance.config.database
        for name in (database.name, database.name + "-wal"):
            shutil.copy2(database.with_name(name), keep / name)
        self.log = (keep / (database.name + "-wal")).read_bytes()
        instance.directory.joinpath("activity.db.lock").unlink()

    def restart_with(self, log: bytes) -> dict[str, Any]:
        """A daemon's whole life after the log has become that; the status in the end."""
        config = self.instance.config
        for file in (*config.outbox_directory.iterdir(), *config.database.parent.glob("*.db*")):
            file.unlink()
        for file in self._keep.iterdir():
            folder = config.database.parent if ".db" in file.name else config.outbox_directory
            shutil.copy2(file, folder / file.name)
        config.database.with_name(config.database.name + "-wal").write_bytes(log)
        store = Store(config.database, keyfile.read(config.key_file), 1, 10)
        outboxes = OutboxDirectory(config.outbox_directory)
        outboxes.prepare(str(config.socket))
        receiver = Receiver(bind(config.socket, socket.SOCK_DGRAM, 0o600))
        daemon = EventLoop(config, store, receiver, outboxes)
        try:
            daemon.start()
            for _ in range(100):
                if not self.instance.status()["outboxes"]:
                    break
                daemon.delivery.state.poll_due_s = daemon.delivery.state.commit_due_s = 0.0
                daemon.run_once(timeout_s=0)
        finally:
            daemon.close()
        return self.instance.status()

    def check(self, log: bytes, tally: Tally, seed: int) -> tuple[int, int]:
        """Every event is stored once or in the ledger once; how many in each."""
        message = f"seed {seed}: a log of {len(log)} bytes"
        status = self.restart_with(log)
        events = self.instance.events()
        try:
            tally.account(status, events, attempted=self.accepted, accepted=self.accepted, seeds=1)
            assert (status["pending"], status["quarantined"], status["outboxes"]) == (0, 0, 0)
            found: dict[str, list[int]] = {}
            for event in events:
                found.setdefault(event["producer"], []).append(event["sequence"])
            connection = open_for_reading(self.instance.config)
            try:
                ledger = connection.execute(
                    "SELECT producer.uid || '-' || producer.key, first, last, cause FROM loss"
                    " JOIN producer ON producer.id = loss.producer"
                ).fetchall()
            finally:
                connection.close()
            for label, first, last, cause in ledger:
                assert cause == "claimed" and last is not None, (label, first, last, cause)
                found.setdefault(label, []).extend(range(first, last + 1))
            assert len(found) == 3
            for sequences in found.values():
                assert sorted(sequences) == [*range(1, 8 * 60 + 20 + 1)]
            check_whole(self.instance)
        except AssertionError as error:
            raise AssertionError(message) from error
        return status["stored"], status["lost_claimed"]


def tear(log: bytes, seed: int) -> bytes:
    """The log cut at some byte, or with some bytes changed; often where its parts meet."""
    chosen = random.Random(seed)
    at = chosen.randrange(len(log) + 1)
    if chosen.random() < 0.4:
        frame = chosen.randrange((len(log) - HEADER_BYTES) // FRAME_BYTES + 1)
        edge = chosen.choice((0, 4, 8, 16, 24, FRAME_BYTES // 2, FRAME_BYTES - 1))
        at = min(len(log), HEADER_BYTES + frame * FRAME_BYTES + edge)
    if chosen.random() < 0.5:
        return log[:at]
    garbled = bytearray(log)
    noise = chosen.randbytes(chosen.choice((1, 2, 7, 24, 100, 4096, 20_000)))
    garbled[at : at + len(noise)] = noise[: max(0, len(log) - at)]
    return bytes(garbled)
