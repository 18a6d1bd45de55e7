"""What a descriptor's number named when it was opened, to be compared with what it names now.

An application may close "all" descriptors (daemonizers, `os.closerange`) and open its own, which
get the same numbers. What is not ours any more is never written to, closed or unlocked.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Identity(NamedTuple):
    """A file or socket: device and inode, and how many names a file has."""

    device: int
    inode: int
    links: int

    @classmethod
    def of(cls, fd: int) -> Identity:
        """What `fd` names now. Raises OSError for a closed one."""
        status = os.fstat(fd)
        return cls(status.st_dev, status.st_ino, status.st_nlink)

    def matches(self, fd: int) -> bool:
        """Whether `fd` names it, and it has as many names as it had."""
        try:
            status = os.fstat(fd)
        except OSError:
            return False
        # Without making a tuple of our own: this is done before each send.
        return (
            status.st_ino == self.inode
            and status.st_dev == self.device
            and status.st_nlink == self.links
        )

    def names(self, status: os.stat_result) -> bool:
        """Whether that is the status of this file, with whatever number of names."""
        return (status.st_dev, status.st_ino) == (self.device, self.inode)
