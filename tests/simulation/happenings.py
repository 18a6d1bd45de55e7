"""What happens to the processes of a run, and what hostile users do: chosen by its seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from logd_wire.outbox.layout import HEADER_BYTES, WORD_WRITTEN
from logd_wire.outbox.names import outbox_name
from logd_wire.wire import (
    DATAGRAM_HEAD,
    KIND_AWAITED,
    KIND_EVENTS,
    datagram_head,
    encode_farewell,
    encode_record,
    producer_seed,
)
from tests.simulation.machine import Machine, watermark
from tests.simulation.truth import records_of
from tests.simulation.web import Web
from tests.simulation.world import File, World

STRANGER = 4444
CONFIRMING_STEPS = 4
DIRECTORY_GOES = 0.3  # how often a cleaner takes all of it


class Happenings:
    """Faults of the world. `second_daemon` starts another one beside the first, `daemon` and `web`
    one of those each.
    """

    def __init__(
        self,
        world: World,
        second_daemon: Callable[[], None],
        daemon: Callable[[], None],
        web: Callable[[], Web],
    ) -> None:
        self.world = world
        self._rng: random.Random = world.rng
        self.odds = world.odds
        self._start_second_daemon = second_daemon
        self._start_daemon, self._start_web = daemon, web

    def happen(self) -> None:
        """One of them."""
        rng, disk = self._rng, self.world.disk
        happenings = [
            self._kill_one, self._kill_one, self._kill_daemon, self._kill_all,
            self._start_second_daemon, self._time_passes, self._time_passes, self._clock_jumps,
            self._memory_fills, self._descriptors_run_out, self._descriptors_close,
        ]  # fmt: skip
        if self.odds.disk_faults:
            happenings += [self._disk_fault] * 3
        if self.odds.restore:
            happenings += [disk.back_up, self._restore, self._restore]
        if self.odds.cleaners:
            happenings.append(self._clean)
        if self.odds.strangers:
            happenings += [self._stranger] * 6 + [self._outbox_changes] * 2 + [self._plant] * 4
            happenings += [self._flood] * 2
        if self.odds.damage:
            happenings.append(self._damage)
        rng.choice(happenings)()

    def _kill_one(self) -> None:
        webs = [p for p in self.world.processes if isinstance(p, Web)]
        if webs:
            self.world.kill(self._rng.choice(webs))

    def _kill_daemon(self) -> None:
        if self.world.daemon is not None:
            self.world.kill(self.world.daemon)

    def _kill_all(self) -> None:
        for process in list(self.world.processes):
            self.world.kill(process)

    def _time_passes(self) -> None:
        self.world.now_s += self._rng.choice((0.05, 0.2, 6.0))

    def _clock_jumps(self) -> None:
        self.world.wall_offset_s += self._rng.uniform(-1e6, 1e6)

    def _memory_fills(self) -> None:
        self.world.memory_full = self._rng.random() < 0.3 and self.odds.without_outbox > 0
        self.world.no_growth = self._rng.random() < 0.3

    def _descriptors_run_out(self) -> None:
        self.world.open_faults = not self.world.open_faults

    def _descriptors_close(self) -> None:
        """An application closes all descriptors, as daemonizers do: the lock goes with them."""
        webs = [p for p in self.world.processes if isinstance(p, Web)]
        if webs:
            self._rng.choice(webs).close_descriptors()

    def _clean(self) -> None:
        """An outbox loses its name, or all do with their directory: what a daemon does not have
        open is lost.
        """
        world = self.world
        files = [file for file in world.files.values() if file.lock is not None]
        if not files:
            return
        if self._rng.random() < DIRECTORY_GOES:
            world.trace.append(("world", "THE DIRECTORY IS REMOVED"))
            world.directory_gone = True
            files = list(world.files.values())
        else:
            files = [self._rng.choice(files)]
        for file in files:
            world.trace.append(("world", f"{file.name} REMOVED"))
            world.truth.unreadable.add(file.key)
            del world.files[file.name]

    def _disk_fault(self) -> None:
        rng, disk = self._rng, self.world.disk
        disk.full, disk.fails_midway = rng.random() < 0.25, rng.random() < 0.25
        disk.flush_fails = rng.random() < 0.2

    def _restore(self) -> None:
        world, disk = self.world, self.world.disk
        if not disk.backups:
            disk.back_up()
        self._confirm_more()
        self._kill_daemon()
        world.trace.append(("world", "OLDER DATABASE RESTORED"))
        before = disk.view
        disk.restore(self._rng)
        world.truth.replaced(before, disk.view, {file.key for file in world.files.values()})
        # What the older one lacks may lie in files that cannot be opened at first.
        world.open_faults = self._rng.random() < 0.3
        if self._rng.random() < 0.5:
            self._start_daemon()  # before that process has died

    def _confirm_more(self) -> None:
        """A web process has something confirmed that no copy has, and lives on."""
        world, disk = self.world, self.world.disk
        world.open_faults = disk.full = disk.fails_midway = disk.flush_fails = False
        world.calm = True
        if world.daemon is None:
            self._start_daemon()
        web = self._start_web()
        for _ in range(CONFIRMING_STEPS):
            for process in (web, world.daemon):
                if process is not None and not process.dead:
                    world.act(process)
        world.calm = False

    def _damage(self) -> None:
        """Memory goes bad, or another process of the same user writes where it should not."""
        rng, world = self._rng, self.world
        files = [file for file in world.files.values() if file.kind == "ok"]
        if files:
            file = rng.choice(files)
            world.trace.append(("world", f"{file.name} DAMAGED"))
            world.truth.unreadable.add(file.key)
            for _ in range(rng.choice((1, 5))):
                used = max(8, file.word(WORD_WRITTEN) * 40)
                at = HEADER_BYTES + rng.randrange(min(used, len(file.data) - HEADER_BYTES))
                file.data[at] ^= 1 << rng.randrange(8)

    def _outbox_changes(self) -> None:
        """A link to it is made, or a newer program writes it; later that is mended again."""
        rng, world = self._rng, self.world
        files = [file for file in world.files.values() if len(file.data) > HEADER_BYTES]
        if files:
            file = rng.choice(files)
            self.change(file, rng.choice(("ok", "foreign", "newer")))

    def change(self, file: File, kind: str) -> None:
        """From now on the daemon's checks make something else of that file."""
        world = self.world
        daemon = world.daemon
        if isinstance(daemon, Machine) and any(
            outbox.file is file for outbox in daemon.delivery.outboxes.values()
        ):
            return  # an open outbox is not looked at anew
        if kind == "foreign":
            # From now on it is as a client without an outbox.
            world.truth.unreadable.add(file.key)
        file.kind = kind
        world.identities += 1
        file.identity = world.identities

    def _plant(self) -> None:
        """A file that is not an outbox, under the name of a producer without one."""
        world = self.world
        keys = [key for key in sorted(world.truth.without_outbox) if world.file_of(key) is None]
        if keys:
            key = self._rng.choice(keys)
            world.publish(File(outbox_name(*key), key, bytearray(8), lock=None, kind="foreign"))

    def _stranger(self) -> None:
        rng, world = self._rng, self.world
        roll = rng.random()
        stranger_id = rng.choice((7, 8, rng.getrandbits(64)))
        if roll < 0.2:
            data = rng.randbytes(rng.choice((0, 10, 200)))
        elif roll < 0.4 and world.truth.accepted:
            # Another's id, under a uid of one's own.
            key = rng.choice(list(world.truth.accepted))
            data = one_event(key[1], rng.choice((1, 2, 5, 2**62)))
        elif roll < 0.55:
            sequence = rng.choice((1, 2, 3, 30, 10**6, 2**63 - 1))
            data = one_event(stranger_id, sequence)
        elif roll < 0.65:
            data = encode_farewell(stranger_id, rng.choice((0, 3, 40, 10**7)), {"malformed": 3})
        else:
            self._replay()
            return
        world.send(data, STRANGER, 9)

    def _flood(self) -> None:
        """As much as the queue takes of what stores nothing, or of events that are awaited."""
        rng, world = self._rng, self.world
        stranger_id = rng.choice((7, 8))
        head = datagram_head(stranger_id, rng.choice((KIND_EVENTS, KIND_AWAITED)))
        again = one_event(stranger_id, 1)[DATAGRAM_HEAD.size :]
        records = again * rng.choice((1, 40, 900))
        for number in range(1, 100):
            if rng.random() < 0.1:
                records = one_event(stranger_id, number)[DATAGRAM_HEAD.size :]
            if not world.send(head + records, STRANGER, 9):
                return

    def _replay(self) -> None:
        """What was sent before arrives once more, or an early farewell, under its own user's id."""
        rng, world = self._rng, self.world
        heard = [(d, uid, pid) for d, uid, pid in world.heard if uid != STRANGER]
        if heard and rng.random() < 0.6:
            data, uid, pid = rng.choice(heard)
            # Nobody can be protected from his own user: what comes twice may come first.
            world.truth.unreadable |= {key for key, _, _ in records_of(data, uid)}
            world.send(data, uid, pid)
        elif world.truth.without_outbox:
            keys = sorted(world.truth.without_outbox)
            planted = [key for key in keys if world.file_of(key) is not None]
            key = rng.choice(planted if planted and rng.random() < 0.6 else keys)
            world.truth.unreadable.add(key)
            told = max(world.truth.accepted.get(key, ()), default=0)
            last = rng.choice((told, told + 2, max(0, watermark(world, key) - rng.randint(1, 2))))
            world.send(encode_farewell(key[1], last, {}), key[0], 9)


def one_event(producer_id: int, sequence: int) -> bytes:
    """A valid datagram from a process that claims to be that producer."""
    record = encode_record(producer_seed(producer_id), sequence, b"\x94\xa1x\x01\xc0\xc4\x01\x80")
    return datagram_head(producer_id) + record
