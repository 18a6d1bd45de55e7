"""Simulated outbox files: the real writer over memory where stores can be cut short."""

from __future__ import annotations

import copy
from typing import Any

from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_WRITTEN,
    outbox_bytes,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.rendezvous import NoOutbox
from tests.simulation.truth import Key
from tests.simulation.web import SimMark, Web
from tests.simulation.world import File, exchange


class _Words:
    """A header's words as the writer sees them: each store is seen by others at once, or never."""

    def __init__(self, process: Web, file: File) -> None:
        self._process = process
        self._file = file
        self.released = False

    def cast(self, _: str) -> _Words:
        return self

    def __getitem__(self, index: int) -> int:
        if self.released:
            raise ValueError("released")
        return self._file.word(index)

    def __setitem__(self, index: int, value: int) -> None:
        if self.released:
            raise ValueError("released")
        process = self._process
        process.step(f"store word {index}")
        self._file.store(index, value)
        if index == WORD_WRITTEN:
            process.world.truth.accept(self._file.key, value, process.appending)
            process.accepted += 1
            process.heard.append(process.appending)
        process.step(f"word {index} is {value}")

    def tolist(self) -> list[int]:
        return [self._file.word(index) for index in range(HEADER_BYTES // 8)]

    def release(self) -> None:
        self.released = True


class _Ring:
    """The ring as the writer sees it: what it copies may be seen, or cut short, half way."""

    def __init__(self, process: Web, file: File) -> None:
        self._process = process
        self._file = file
        self.released = False

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self._file.data) - HEADER_BYTES)
        return bytes(self._file.data[HEADER_BYTES + start : HEADER_BYTES + stop])

    def __setitem__(self, part: slice, data: bytes) -> None:
        if self.released:
            raise ValueError("released")
        start, stop, _ = part.indices(len(self._file.data) - HEADER_BYTES)
        start, stop, half = HEADER_BYTES + start, HEADER_BYTES + stop, len(data) // 2
        self._process.step("copy record")
        self._file.data[start : start + half] = data[:half]
        self._process.step("half a record copied")
        self._file.data[start + half : stop] = data[half:]

    def release(self) -> None:
        self.released = True


class _Memory:
    """What `OutboxWriter` takes for the mapping."""

    def __init__(self, process: Web, file: File) -> None:
        self._process = process
        self._file = file

    def __len__(self) -> int:
        return len(self._file.data)

    def __getitem__(self, part: slice) -> _Words | _Ring:
        kind = _Words if part.start is None else _Ring
        return kind(self._process, self._file)


class SimOutboxFile:
    """`logd_client.outbox_file.OutboxFile`, its steps one by one."""

    def __init__(
        self, process: Web, producer_id: int, ring_bytes: int, follows: int, growth_bytes: int
    ) -> None:
        world = process.world
        if not process.has_memory:
            raise NoOutbox("another /dev/shm")
        if world.memory_full or (world.no_growth and ring_bytes > RING_BYTES_MIN):
            raise NoOutbox("no space")
        if world.directory_gone:
            raise NoOutbox("the directory is not there")
        self.process = process
        self.uid = process.uid
        self.closed = False  # by the application, which does not know whose descriptor it is
        key: Key = (process.uid, producer_id)
        data = bytearray(outbox_bytes(ring_bytes))
        self.file = File(outbox_name(*key), key, data, lock=process)
        process.step("outbox created and locked")
        memory: Any = _Memory(process, self.file)
        mark = process.generation.mark
        writer = process.writer_type(
            memory, producer_id, process.pid, world.time_ns(), mark, follows, growth_bytes
        )
        self.writer = _noting(writer, process, self)
        process.step("outbox filled in")
        if follows:
            world.truth.follows[key] = (process.uid, follows)
        world.publish(self.file)
        try:
            process.step("outbox has its name")
        except BaseException:
            if not process.dead:
                world.unlock(self.file)
            raise

    def inherited_by(self, child: Web) -> SimOutboxFile:
        """A forked child's own descriptor and mapping: not the lock."""
        made = copy.copy(self)
        made.process = child
        made.writer = copy.copy(self.writer)
        words = _Words(child, self.file)
        exchange(made.writer, "_mapped", words)
        exchange(made.writer, "_words", words)
        exchange(made.writer, "_ring", _Ring(child, self.file))
        mark = self.writer._mark
        assert isinstance(mark, SimMark)
        made.writer._mark = mark.inherited_by(child)
        del made.writer.append  # which is the parent's
        made.writer = _noting(made.writer, child, made)
        return made

    def intact(self) -> bool:
        self.process.step("compare descriptors")
        return not self.closed and not self.removed()

    def displaced(self) -> bool:
        return False

    def abandon(self) -> None:
        pass

    def removed(self) -> bool:
        return self.process.world.files.get(self.file.name) is not self.file

    def release_descriptor(self) -> None:
        if self.file.lock is self.process:
            self.process.world.unlock(self.file)

    def close(self) -> None:
        self.writer.release()
        self.release_descriptor()


def _noting(writer: OutboxWriter, process: Web, outbox: SimOutboxFile) -> OutboxWriter:
    """Has the process know which payload is being appended, and to what."""
    append = writer.append

    def noted(payload: bytes) -> bytes | None:
        process.appending, process.writing_to = payload, outbox
        return append(payload)

    exchange(writer, "append", noted)
    return writer
