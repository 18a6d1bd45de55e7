"""Resolves the path of the daemon's socket: the rendezvous file lies beside the socket itself.

A path may be relative, lead through symbolic links, or be a mount of the socket alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from logd_wire.paths import SOCKET_PATH_BYTES_MAX
from logd_wire.rendezvous import rendezvous_path


def absolute(path: str) -> str:
    """Returns the absolute path, which stays valid when the process changes its directory.

    Returns the path as given if the absolute one does not fit into a socket's address.
    """
    if path.startswith("/"):
        return path
    with contextlib.suppress(OSError):  # the working directory was removed
        # The path is not normalised, since `..` after a
        # symbolic link leads elsewhere than in the text.
        path = _if_it_fits(str(Path.cwd() / path), path)
    return path


def locate(path: str) -> str:
    """Returns the path of the socket itself if a rendezvous file lies beside it, else `path`.

    Links are followed as the kernel follows them when it connects. For a mount of the socket alone
    the kernel reports the name that the daemon has bound it to, which counts if it leads to this
    very socket.
    """
    target = os.path.realpath(path)
    if not os.path.lexists(rendezvous_path(target)):
        target = os.path.realpath(_bound_to(path) or target)
    # `path` is a fallback, since the daemon may have been given a link with the file beside it.
    return target if os.path.lexists(rendezvous_path(target)) else path


def to_connect(located: str, given: str) -> str:
    """Returns the path to connect to: the located one if it fits into a socket's address."""
    return _if_it_fits(located, given)


def _if_it_fits(path: str, other: str) -> str:
    return path if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX else other


def _bound_to(path: str) -> str | None:
    """Returns the name that the socket at `path` was bound to, if it leads to the same socket."""
    with (
        contextlib.suppress(OSError, ValueError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking,
    ):
        asking.connect(path)
        name = asking.getpeername()
        if isinstance(name, str) and name.startswith("/") and Path(name).samefile(path):
            return name
    return None
