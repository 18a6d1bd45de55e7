"""Serves the metrics over HTTP, on a Unix socket or the loopback, beside the reports."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from logd.config import Config
from logd.errors import LogdError
from logd.metrics import registry
from logd.receiver import bind

CONNECTIONS_MAX = 8
PEER_TIMEOUT_S = 5.0
BACKLOG = 16

_log = logging.getLogger("logd.reports")


class Exporter(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers GET /metrics on a socket that is bound already."""

    daemon_threads = True

    def __init__(self, sock: socket.socket, metrics: CollectorRegistry) -> None:
        super().__init__(sock.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()  # the one of its own
        self.socket = sock
        self.metrics = metrics
        self._seats = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """In a thread, while there are few: who connects and says nothing holds up nobody else."""
        if self._seats.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Answers, whatever comes of it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that goes away is no trouble."""


class _Handler(BaseHTTPRequestHandler):
    timeout = PEER_TIMEOUT_S
    server: Exporter

    def do_GET(self) -> None:
        if self.path.split("?")[0] not in ("/metrics", "/"):
            self.send_error(404)
            return
        encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encoder(self.server.metrics)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_of_each_request: object) -> None:
        pass


@contextlib.contextmanager
def serving(config: Config) -> Iterator[None]:
    """Serves while inside. Where it cannot, a line says so: reports go on without metrics."""
    try:
        exporter = Exporter(_listen(config), registry(config, from_figures=True))
    except (LogdError, OSError) as error:
        _log.warning("no metrics at %s: %s", config.metrics, error)
        yield
        return
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        exporter.shutdown()
        exporter.server_close()
        if isinstance(config.metrics, Path):
            config.metrics.unlink(missing_ok=True)


def _listen(config: Config) -> socket.socket:
    if isinstance(config.metrics, Path):
        sock = bind(config.metrics, socket.SOCK_STREAM, config.metrics_socket_mode)
        sock.listen(BACKLOG)
        return sock
    assert config.metrics is not None
    host, port = config.metrics
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
