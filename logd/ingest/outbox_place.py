"""Puts the outboxes' directory, its token and the rendezvous file back under a running daemon.

What the daemon has open it can still read without a name. What a former directory holds, renamed or
covered by another, is moved to where clients and a later daemon find it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from logd.batch import Producer
from logd.ingest.outbox_directory import Outboxes
from logd_wire.outbox.names import outbox_name, parse_name
from logd_wire.rendezvous import TOKEN_NAME, new_token, rendezvous_path


class OutboxPlace:
    """The directory of a running daemon, with what leads clients to it.

    `is_open` are the names of outboxes that the daemon has open; `follow` is called when it reads
    from another directory than before.
    """

    def __init__(
        self,
        outboxes: Outboxes,
        socket_path: str,
        is_open: Callable[[], Container[str]],
        follow: Callable[[], None],
    ) -> None:
        self._outboxes = outboxes
        self._socket_path = socket_path
        self._is_open = is_open
        self._follow = follow
        self._former: int | None = None

    @property
    def directory(self) -> str:
        """Its path, which is another one once its name was taken."""
        return str(self._outboxes.directory)

    @property
    def token(self) -> str:
        """The path of the token's file."""
        return f"{self._outboxes.directory}/{TOKEN_NAME}"

    @property
    def rendezvous(self) -> str:
        """The path of the file that leads clients to the directory."""
        return rendezvous_path(self._socket_path)

    def put_back(self) -> None:
        """Makes what is missing of the three; what is right is left as it is.

        Raises CannotCreate, StorageBusy or OSError; then the daemon reads where it did.
        """
        self.finish()
        outboxes = self._outboxes
        before = former, directory, token = outboxes.fd, outboxes.directory, outboxes.token
        # A directory of another inode is another one, whatever it holds (a copy holds our token):
        # its outboxes are not those that an earlier forget has seen.
        same = _is_same(former, directory)
        try:
            outboxes.prepare(self._socket_path, token if same else new_token())
        except BaseException:
            outboxes.fd, outboxes.directory, outboxes.token = before
            raise
        if os.path.samestat(os.fstat(former), os.fstat(outboxes.fd)):
            os.close(former)
            return
        self._move_from(former)
        self._former = former
        self._follow()

    def finish(self) -> None:
        """Lets go of the former directory, with what clients that had it open still made there."""
        if self._former is not None:
            self._move_from(self._former)
            os.close(self._former)
            self._former = None

    def _move_from(self, former: int) -> None:
        """Gives outboxes of a former directory their names in the present one.

        What cannot be moved (to another file system) loses its name, if the daemon reads it anyway:
        its living producer notices that, and continues with another outbox.
        """
        opened = self._is_open()
        with contextlib.suppress(OSError):
            for name in os.listdir(former):
                if parse_name(name) is None:
                    continue
                try:
                    os.rename(name, name, src_dir_fd=former, dst_dir_fd=self._outboxes.fd)
                except OSError:
                    if name in opened:
                        with contextlib.suppress(OSError):
                            os.unlink(name, dir_fd=former)


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except OSError:
        return False


def drop_missing(
    producers: Iterable[Producer], opened: Container[Producer], is_there: Callable[[str], bool]
) -> None:
    """Outboxes that went with their directory before they were opened hold nothing back any more:
    what is missing of their producers is a loss, by number.
    """
    for producer in producers:
        if (
            producer.has_outbox
            and producer not in opened
            and not is_there(outbox_name(producer.uid, producer.id))
        ):
            producer.has_outbox = producer.behind = False
