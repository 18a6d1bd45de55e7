"""Free ports on the loopback interface, for tests that start a server."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
