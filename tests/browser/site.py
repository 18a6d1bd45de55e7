"""A site of its own under gunicorn, without logd, that a test may kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask

from tests.support.instance import ROOT, until
from tests.support.ports import free_port
from tests.webapp.conftest import CHEAP, fill
from webapp import create_app

START_S, STOP_S = 60.0, 20.0


@dataclass
class SiteProcess:
    """gunicorn on a site's directory; a restart keeps the port and the database."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "CLASSROOM_DIR": str(self.directory / "site"),
            "ACTIVITY_LOG_SOCKET": str(self.directory / "log.sock"),
            "ACTIVITY_QUERY_SOCKET": str(self.directory / "query.sock"),
        }

    def app(self) -> Flask:
        """Returns an app on the same database, to fill it and to look into it."""
        return create_app({**self.settings, "PASSWORD_METHOD": CHEAP})

    def fill(self) -> None:
        fill(self.app())

    def start(self) -> None:
        with (self.directory / "screen").open("ab") as screen:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"),
                    *("--config", "python:webapp.classroom.gunicorn_conf"),
                    "webapp.classroom.wsgi:application()",
                ],
                env={
                    **os.environ,
                    **self.settings,
                    "CLASSROOM_INSECURE_HTTP": "1",
                    "WEB_CONCURRENCY": "1",
                },
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )
        until(self._answers, "the site answers", START_S)

    def kill(self) -> None:
        """Kills the server with all its workers."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_S)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "screen").read_text()
        try:
            with urllib.request.urlopen(f"{self.address}/login", timeout=5) as answer:
                return int(answer.status) == 200
        except OSError:
            return False
