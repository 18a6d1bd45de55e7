"""The interfaces of trail, outbox and directory that the delivery core uses. Types only.

The daemon passes implementations with real files, the simulation others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from logd.batch import Batch, Producer
from logd_wire.outbox.layout import Header


class Trail(Protocol):
    """The methods of `logd.storage.store.Store` that the core uses."""

    def producer(self, uid: int, producer_id: int) -> Producer:
        """Returns what is stored of a producer, or a new one."""

    def unfinished(self) -> Iterator[tuple[int, int, str] | None]:
        """Yields uid, id and loss cause of producers that can send no more, except by outbox.

        It yields None after each page of rows, so that the rest can wait for the next step.
        """

    def commit(self, batch: Batch, now_ns: int) -> None:
        """Stores the batch; it is on disk on return. After StorageBusy nothing has changed."""


class Outbox(Protocol):
    """The methods of `open_outbox.OpenOutbox` that the core uses. Each may raise OSError."""

    name: str
    header: Header
    confirmed: int
    scans_left: int
    unusable: str | None

    def read_at(self, offset: int, length: int) -> bytes: ...
    def refresh(self) -> Header: ...
    def written(self) -> int: ...
    def alive(self) -> bool: ...
    def confirm(self, sequence: int, position: int, watched_until_ns: int) -> None: ...
    def resume_wakeups(self) -> None: ...
    def retire(self) -> bool: ...
    def give_up(self) -> None: ...


AnOutbox = TypeVar("AnOutbox", bound=Outbox)


class Directory(Protocol[AnOutbox]):
    """The methods that the core uses of `outbox_directory.OutboxDirectory`, documented in it."""

    def names(self) -> Iterable[tuple[str, int, int]]: ...
    def has(self, name: str) -> bool: ...
    def owner(self, name: str) -> int | None: ...
    def open(self, name: str, uid: int, producer_id: int) -> AnOutbox | None: ...
    def refuse(self, outbox: AnOutbox) -> None: ...
    def release(self, outbox: AnOutbox) -> None: ...
    def remove(self, outbox: AnOutbox) -> None: ...
