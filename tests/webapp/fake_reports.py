"""A stand-in for logd's report process: speaks the query frames, answers from a table."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logd_wire.query import REQUEST_BYTES_MAX, encode_frame, read_frame

Reply = dict[str, Any]
Report = Callable[[dict[str, Any]], Reply]


class FakeReports:
    """Answers the reports that are set, and records every request."""

    def __init__(self, path: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reports: dict[str, Report] = {}
        owner = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while (message := read_frame(self.request.recv, REQUEST_BYTES_MAX)) is not None:
                    self.request.sendall(encode_frame(owner.answer(message)))

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def rows(
        self, report: str, *rows: dict[str, Any], following: int | None = None, **more: Any
    ) -> None:
        """Sets the rows that `report` answers with, and further fields of the answer."""
        answer = {"ok": True, "rows": list(rows), "next": following, **more}
        self.reports[report] = lambda _params: answer

    def refuse(self, report: str, code: str, message: str) -> None:
        self.reports[report] = lambda _params: {"ok": False, "error": code, "message": message}

    def answer(self, message: dict[str, Any]) -> Reply:
        self.requests.append(message)
        report = self.reports.get(message["report"])
        return report(message["params"]) if report else {"ok": True, "rows": [], "next": None}

    def asked(self, report: str) -> list[dict[str, Any]]:
        """Returns the parameters of all requests of `report`, in order."""
        return [message["params"] for message in self.requests if message["report"] == report]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
