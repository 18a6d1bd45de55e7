"""Serves the metrics over HTTP, on a Unix socket or the loopback, beside the reports."""

from __future__ import annotations

import contextlib
import http
import io
import logging
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from logd.config.settings import Config
from logd.errors import LogdError
from logd.ingest.receiver import bind
from logd.log_limit import ThrottledLog
from logd.serve.request_server import Credentials, RequestServer
from logd.status.metrics import metrics_registry

SEATS_MAX = 128
RUNNING_MAX = 2
BACKLOG = socket.SOMAXCONN  # a full queue refuses non-blocking clients
HEAD_BYTES_MAX = 16 * 1024
# Seconds between checks that the socket exists, and between attempts to create one.
CHECK_S = 1.0
RETRY_S = 5.0

_log = logging.getLogger("logd.reports")


class MetricsService:
    """The HTTP service for a `RequestServer`: answers GET /metrics, then closes."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self._metrics = metrics

    def take_request(self, received: bytearray, *, ended: bool) -> bytes | None:
        """Returns the head of a request once it is complete; the body is not read."""
        whole = any(end in received for end in (b"\r\n\r\n", b"\n\n"))
        if not received or not (whole or ended or len(received) > HEAD_BYTES_MAX):
            return None
        head = bytes(received)
        received.clear()
        return head

    def deny(self, _credentials: Credentials) -> bytes | None:
        """Returns None for every peer: whoever could connect to the socket has permission."""
        return None

    def answer(self, request: bytes, _credentials: Credentials) -> tuple[bytes, bool]:
        """Returns the response; the connection ends after it."""
        return _Handler(_Buffers(request), self._metrics).response, False

    def error(self, code: str, message: str) -> bytes:
        """Returns an error response, without metrics."""
        status = http.HTTPStatus.REQUEST_TIMEOUT
        if code == "busy":
            status = http.HTTPStatus.SERVICE_UNAVAILABLE
        head = f"HTTP/1.0 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n\r\n"
        return f"{head}{message}\n".encode()


class _Buffers:
    """Stands in for a socket, in memory: supplies a request and collects the response."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.written = b""

    def makefile(self, *_mode: object) -> io.BytesIO:
        return io.BytesIO(self._request)

    def sendall(self, data: bytes) -> None:
        self.written += data


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, buffers: _Buffers, metrics: CollectorRegistry) -> None:
        self._metrics = metrics
        super().__init__(buffers, ("", 0), None)  # type: ignore[arg-type] # needs no server
        self.response = buffers.written

    def do_GET(self) -> None:
        if self.path.split("?")[0] not in ("/metrics", "/"):
            self.send_error(404)
            return
        encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encoder(self._metrics)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_of_each_request: object) -> None:
        pass


@contextlib.contextmanager
def serving(config: Config) -> Iterator[None]:
    """Serves metrics in a `with` block; a failure is only logged: reports work without metrics."""
    server = _MetricsServer(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.over.set()
        thread.join()


class _MetricsServer:
    """Serves metrics until `over` is set; restarts if its socket is removed or was not made."""

    def __init__(self, config: Config) -> None:
        self.over = threading.Event()
        self._config = config
        self._service = MetricsService(metrics_registry(config, from_figures=True))
        self._throttled = ThrottledLog(_log)

    def run(self) -> None:
        where = self._config.metrics
        while not self.over.is_set():
            try:
                listener = _listen(self._config)
            except (LogdError, OSError) as error:
                self._throttled.warning("no metrics at %s: %s", where, error)
                self.over.wait(RETRY_S)
                continue
            self._serve(listener)
            if not self.over.is_set():
                self._throttled.warning(
                    "metrics at %s: the socket was removed or replaced: created again", where
                )

    def _serve(self, listener: socket.socket) -> None:
        """Answers requests until the process ends or the socket has lost its path."""
        bound = self._identity()
        server = RequestServer(
            listener, self._service, seats_max=SEATS_MAX, running_max=RUNNING_MAX
        )
        lifeline_fd, end_fd = os.pipe2(os.O_CLOEXEC)
        thread = threading.Thread(target=server.serve, args=(lifeline_fd,), daemon=True)
        thread.start()
        while thread.is_alive() and self._identity() == bound and not self.over.wait(CHECK_S):
            pass
        os.close(end_fd)
        thread.join()
        os.close(lifeline_fd)
        server.close()
        listener.close()
        if isinstance(self._config.metrics, Path) and self._identity() == bound:
            self._config.metrics.unlink(missing_ok=True)

    def _identity(self) -> tuple[int, int] | None:
        if not isinstance(self._config.metrics, Path):
            return None
        with contextlib.suppress(OSError):
            status = self._config.metrics.lstat()
            return status.st_dev, status.st_ino
        return None


def _listen(config: Config) -> socket.socket:
    if isinstance(config.metrics, Path):
        sock = bind(config.metrics, socket.SOCK_STREAM, config.metrics_socket_mode)
        sock.listen(BACKLOG)
        return sock
    assert config.metrics is not None
    host, port = config.metrics
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
