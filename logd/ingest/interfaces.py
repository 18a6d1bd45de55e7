"""What the delivery core needs of a trail, an outbox and their directory. Types only.

The daemon hands it the real ones, the simulation its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from logd.batch import Batch, Producer
from logd_wire.outbox.layout import Header


class Trail(Protocol):
    """What the core needs of `logd.storage.store.Store`."""

    def producer(self, uid: int, producer_id: int) -> Producer:
        """What is on disk of that producer; a new one when nothing is."""

    def unfinished(self) -> Iterator[tuple[int, int, str] | None]:
        """(uid, producer id, cause of loss) of who can say no more but by an outbox.

        None: it has looked at many; going on may wait for the next turn.
        """

    def commit(self, batch: Batch, now_ns: int) -> None:
        """Stores the batch; on disk when it returns. StorageBusy: nothing has changed."""


class Outbox(Protocol):
    """What the core needs of `outbox_directory.OpenOutbox`. Each method may raise OSError."""

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
    def unwatch(self) -> None: ...
    def retire(self) -> bool: ...
    def give_up(self) -> None: ...


AnOutbox = TypeVar("AnOutbox", bound=Outbox)


class Directory(Protocol[AnOutbox]):
    """What the core needs of `outbox_directory.Outboxes`; raises and means what that does."""

    def names(self) -> Iterable[tuple[str, int, int]]: ...
    def has(self, name: str) -> bool: ...
    def owner(self, name: str) -> int | None: ...
    def open(self, name: str, uid: int, producer_id: int) -> AnOutbox | None: ...
    def refuse(self, outbox: AnOutbox) -> None: ...
    def release(self, outbox: AnOutbox) -> None: ...
    def remove(self, outbox: AnOutbox) -> None: ...
