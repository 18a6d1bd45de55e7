"""Checks paths of Unix sockets, with a clearer error than the kernel's."""

from __future__ import annotations

import os

# sockaddr_un.sun_path holds 108 bytes, one of them the final NUL (unix(7)).
SOCKET_PATH_BYTES_MAX = 107


class PathTooLong(ValueError):
    """A path is too long for a socket address."""


def check_socket_path(path: str | os.PathLike[str]) -> None:
    """Raises PathTooLong for a path of over 107 bytes, naming the path and its length."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise PathTooLong(
            f"the socket path {os.fspath(path)!r} has {length} bytes; a Unix socket's path has at "
            f"most {SOCKET_PATH_BYTES_MAX}. Place the instance in a shorter directory."
        )
