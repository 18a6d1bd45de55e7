"""Detects that a descriptor's number was reused: it names another file than when it was opened.

An application may close "all" descriptors (daemonizers, `os.closerange`) and open its own, which
get the same numbers. A descriptor that is the application's is never written to, closed or
unlocked.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Identity(NamedTuple):
    """Identifies a file or socket: device, inode and number of names."""

    device: int
    inode: int
    links: int

    @classmethod
    def of(cls, fd: int) -> Identity:
        """Returns the identity of the file that `fd` names now.

        Raises OSError if `fd` is closed.
        """
        status = os.fstat(fd)
        return cls(status.st_dev, status.st_ino, status.st_nlink)

    def matches(self, fd: int) -> bool:
        """Whether `fd` names the same file, with the same number of names."""
        try:
            status = os.fstat(fd)
        except OSError:
            return False
        # The fields are compared one by one,
        # since making a tuple takes longer, and each send does this.
        return (
            status.st_ino == self.inode
            and status.st_dev == self.device
            and status.st_nlink == self.links
        )

    def names(self, status: os.stat_result) -> bool:
        """Whether `status` (of `os.stat`) is of this file, with any number of names."""
        return (status.st_dev, status.st_ino) == (self.device, self.inode)
