"""The Classroom under gunicorn with its own settings, beside an instance of logd, for tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator

from tests.support.instance import DEADLINE_S, Instance, Process, until
from tests.support.ports import free_port

# Accounts are made by a process of their own: the test's process has no client and no outbox.
_FILL = """
import sys
from tests.webapp.conftest import fill
from webapp import create_app
fill(create_app({"ACTIVITY_LOG_ENABLED": False}))
"""


class ClassroomSite:
    """One gunicorn at a time, with the accounts of the tests of the site."""

    def __init__(self, instance: Instance) -> None:
        self.port = free_port()
        self._env = {
            "CLASSROOM_DIR": str(instance.directory / "site"),
            "LOGD_DIR": str(instance.directory),
            "CLASSROOM_INSECURE_HTTP": "1",
        }
        fill = Process("-c", _FILL, env=self._env)
        assert fill.popen.wait(DEADLINE_S) == 0, fill.lines
        fill.close()
        self.master: Process | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.master = Process(
            *("-m", "gunicorn", "--config", "python:webapp.classroom.gunicorn_conf"),
            *("--bind", f"127.0.0.1:{self.port}", "webapp.classroom.wsgi:application()"),
            env=self._env,
            start_new_session=True,
        )
        until(self._answers, f"the site answers: {self.master.lines}")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/login")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL to the master and its workers."""
        assert self.master is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.master.popen.pid, signal.SIGKILL)
        self.master.close()

    def restart(self) -> None:
        self.kill()
        self.start()


@contextlib.contextmanager
def classroom_site(instance: Instance) -> Iterator[ClassroomSite]:
    """A running site; it ends with the `with` block."""
    site = ClassroomSite(instance)
    try:
        site.start()
        yield site
    finally:
        if site.master is not None:
            site.kill()
