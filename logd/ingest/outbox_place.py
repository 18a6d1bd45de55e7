"""Restores the outboxes' directory, its token and the rendezvous file of a running daemon.

The daemon can read an open outbox even without its name. Outboxes in a former directory, which was
renamed or covered by another, are moved to where clients and a later daemon find them.
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

    `open_names` returns the outboxes that the daemon has open; `use_new_directory` is called when
    the directory is another one than before.
    """

    outboxes: OutboxDirectory
    socket_path: str
    open_names: Callable[[], Container[str]]
    use_new_directory: Callable[[], None]
    _former: int | None = field(default=None, init=False)

    @property
    def directory(self) -> str:
        """The path of the outboxes' directory; changes if another user has taken the name."""
        return str(self.outboxes.path)

    @property
    def token(self) -> str:
        """The path of the token's file."""
        return f"{self.outboxes.path}/{TOKEN_NAME}"

    @property
    def rendezvous(self) -> str:
        """The path of the file that leads clients to the directory."""
        return rendezvous_path(self.socket_path)

    def put_back(self) -> None:
        """Creates what is missing or wrong of directory, token and rendezvous file.

        Raises CannotCreate, StorageBusy or OSError; then the daemon keeps the former directory.
        """
        self.finish()
        outboxes = self.outboxes
        before = former, directory, token = outboxes.fd, outboxes.path, outboxes.token
        # A directory with another inode has been replaced, even if it holds our token (a copy): its
        # outboxes are not those that an earlier forget has seen.
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
            outboxes.fd = former  # which has the lock
            return
        self._move_from(former)
        self._former = former
        self.use_new_directory()

    def finish(self) -> None:
        """Closes the former directory, after moving what clients have still created there."""
        if self._former is not None:
            self._move_from(self._former)
            os.close(self._former)
            self._former = None

    def _move_from(self, former: int) -> None:
        """Moves the outboxes of a former directory into the present one.

        One that cannot be moved (to another file system) is unlinked if the daemon has it open: its
        living producer notices that, and continues with another outbox.
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
