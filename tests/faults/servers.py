"""Web servers as an administrator starts them, with an app that logs in each worker at once."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import DEADLINE_S, Instance, Process, until

WORKERS = 4
APP = "tests.faults.server_app:create_app()"

needs_uwsgi = pytest.mark.skipif(
    importlib.util.find_spec("pyuwsgi") is None,
    reason="uWSGI is not installed: there is no wheel of pyuwsgi for this Python and machine",
)


def uwsgi(path: str, *options: str) -> list[str]:
    """uWSGI with its defaults: nothing tells Python of the workers' fork."""
    program = ["-c", "import pyuwsgi; pyuwsgi.run()"]
    return [*program, "--http-socket", path, "--processes", str(WORKERS), "--module", APP, *options]


def gunicorn(path: str, *options: str) -> list[str]:
    """gunicorn, which forks by `os.fork`."""
    program = ["-m", "gunicorn", "--bind", f"unix:{path}", "--no-control-socket"]
    return [*program, "--workers", str(WORKERS), *options, APP]


class Server:
    """Starts a web server, and waits until all of its workers have answered."""

    def __init__(self, instance: Instance, command: list[str], path: str, events: int) -> None:
        self._path = path
        self._meeting = instance.directory / "meeting"
        self._meeting.mkdir()
        env = {
            "LOGD_SOCKET": instance.socket,
            "MEETING": str(self._meeting),
            "WORKERS": str(WORKERS),
            "EVENTS": str(events),
        }
        self._process = Process(*command, env=env, start_new_session=True)

    def answers(self) -> list[dict[str, Any]]:
        """Each worker's counts, once all of them have logged."""
        until(self._listens, "the server is up")
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(lambda _: self._ask(), range(WORKERS)))

    def _listens(self) -> bool:
        assert self._process.popen.poll() is None, self._process.lines
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self._path) == 0

    def _ask(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("server", timeout=2 * DEADLINE_S)
        with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(2 * DEADLINE_S)
            sock.connect(self._path)
            connection.sock = sock
            connection.request("GET", "/events")
            response = connection.getresponse()
            body = response.read()
        assert response.status == 200, (response.status, body)
        answer: dict[str, Any] = json.loads(body)
        return answer

    @property
    def boots(self) -> tuple[int, int]:
        """Events that were logged when the app was loaded: accepted, refused."""
        text = (self._meeting / "boots").read_bytes()
        return text.count(b"="), text.count(b"-")

    def close(self) -> None:
        """Kills all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.popen.pid, signal.SIGKILL)
        self._process.close()


def server_path(instance: Instance) -> str:
    """Where a server listens."""
    return str(Path(instance.directory) / "http.sock")
