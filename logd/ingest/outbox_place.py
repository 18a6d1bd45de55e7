"""Restores the outboxes' directory, its token and the rendezvous file of a running daemon.

The daemon can read an open outbox even if it has lost its name. If the directory was renamed or
covered by another, its outboxes are moved to where clients and a later daemon find them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path

from logd.ingest.outbox_directory import OutboxDirectory
from logd_wire.outbox.names import parse_name
from logd_wire.rendezvous import TOKEN_NAME, new_token, rendezvous_path


@dataclass(eq=False)
class OutboxPlace:
    """The directory of a running daemon, and the files that lead clients to it.

    `open_names` returns the names of outboxes that the daemon has open; `use_new_directory` is
    called after the directory was replaced.
    """

    outboxes: OutboxDirectory
    socket_path: str
    open_names: Callable[[], Container[str]]
    use_new_directory: Callable[[], None]
    _former: int | None = field(default=None, init=False)

    @property
    def directory(self) -> str:
        """The path of the outboxes' directory; it changes if another user has taken the name."""
        return str(self.outboxes.path)

    @property
    def token(self) -> str:
        """The path of the file with the directory's token."""
        return f"{self.outboxes.path}/{TOKEN_NAME}"

    @property
    def rendezvous(self) -> str:
        """The path of the rendezvous file, which leads clients to the directory."""
        return rendezvous_path(self.socket_path)

    def put_back(self) -> None:
        """Creates the directory, its token and the rendezvous file, if they are missing or wrong.

        Raises CannotCreate, StorageBusy or OSError; then the daemon keeps the former directory.
        """
        self.finish()
        outboxes = self.outboxes
        before = former, directory, token = outboxes.fd, outboxes.path, outboxes.token
        # A directory with another inode is a replacement, even if it has the same token (a copy):
        # an earlier `forget` has not seen the outboxes in it.
        same = _is_same(former, directory)
        try:
            outboxes.prepare(self.socket_path, token if same else new_token(), claim=not same)
            moved = not os.path.samestat(os.fstat(former), os.fstat(outboxes.fd))
        except BaseException:
            if outboxes.fd != former:
                os.close(outboxes.fd)
            outboxes.fd, outboxes.path, outboxes.token = before
            raise
        if not moved:
            os.close(outboxes.fd)
            outboxes.fd = former  # the former descriptor has the lock
            return
        self._move_from(former)
        self._former = former
        self.use_new_directory()

    def finish(self) -> None:
        """Closes the former directory, after moving outboxes that clients created in it since."""
        if self._former is not None:
            self._move_from(self._former)
            os.close(self._former)
            self._former = None

    def _move_from(self, former: int) -> None:
        """Moves the outboxes of a former directory into the present one.

        An outbox that cannot be moved (to another file system) is unlinked if the daemon has it
        open. Its living producer notices that, and continues with another outbox.
        """
        opened = self.open_names()
        with contextlib.suppress(OSError):
            for name in os.listdir(former):
                if parse_name(name) is None:
                    continue
                try:
                    os.rename(name, name, src_dir_fd=former, dst_dir_fd=self.outboxes.fd)
                except OSError:
                    if name in opened:
                        with contextlib.suppress(OSError):
                            os.unlink(name, dir_fd=former)


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except OSError:
        return False
