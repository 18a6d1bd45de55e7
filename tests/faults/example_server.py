"""The examples of `shared/examples`, under web servers as an administrator starts them."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.instance import DEADLINE_S, ROOT, Instance, Process, until

WSGI = ("plain_wsgi", "flask_app", "django_app")
CLIENTS = 8


def gunicorn(path: str, app: str, *options: str) -> list[str]:
    command = ["-m", "gunicorn", "--bind", f"unix:{path}", "--no-control-socket"]
    return [*command, "--workers", "2", *options, f"{app}:application"]


def uwsgi(path: str, app: str) -> list[str]:
    program = ["-c", "import pyuwsgi; pyuwsgi.run()", "--http-socket", path, "--master"]
    # A SIGHUP would start Python again without its environment: that is of the module `pyuwsgi`.
    reload = ["--lazy-apps", "--touch-workers-reload", f"{Path(path).parent}/app/{app}.py"]
    return [*program, *reload, "--processes", "2", "--module", f"{app}:application"]


def waitress(path: str, app: str) -> list[str]:
    return ["-m", "waitress", f"--unix-socket={path}", f"{app}:application"]


def flask_run(path: str, app: str) -> list[str]:
    return ["-m", "flask", "--app", app, "run", "--reload", "--host", f"unix://{path}"]


def uvicorn(path: str, app: str, *options: str) -> list[str]:
    return ["-m", "uvicorn", "--uds", path, "--log-level", "error", *options, f"{app}:application"]


def hypercorn(path: str, app: str) -> list[str]:
    return ["-m", "hypercorn", "--bind", f"unix:{path}", f"{app}:application"]


@dataclass(frozen=True)
class Kind:
    """A server: how it is started, and what can be done to it in the middle of requests."""

    command: Callable[[str, str], list[str]]
    replaces_workers: bool = False  # that are killed; else all of it is killed and started again
    reload: str | None = None  # by SIGHUP, or by a change of the application's file


KINDS = {
    "gunicorn sync": Kind(gunicorn, True, "SIGHUP"),
    "gunicorn gthread": Kind(
        lambda path, app: gunicorn(path, app, "--worker-class=gthread", "--threads=4"),
        True,
        "SIGHUP",
    ),
    "gunicorn gevent": Kind(
        lambda path, app: gunicorn(path, app, "--worker-class=gevent"), True, "SIGHUP"
    ),
    "gunicorn preload": Kind(lambda path, app: gunicorn(path, app, "--preload"), True),
    "uWSGI": Kind(uwsgi, True, "file"),
    "waitress": Kind(waitress),
    "flask run": Kind(flask_run, reload="file"),
    "uvicorn": Kind(uvicorn),
    "uvicorn workers": Kind(lambda path, app: uvicorn(path, app, "--workers", "2"), True, "SIGHUP"),
    "hypercorn": Kind(hypercorn),
}


class ExampleServer:
    """Runs a copy of the examples under a server, and asks it for numbered lessons."""

    def __init__(self, instance: Instance, kind: Kind, app: str) -> None:
        self._kind, self._app = kind, app
        self._code = instance.directory / "app"
        shutil.copytree(ROOT / "shared/examples", self._code)
        self._path = str(Path(instance.directory) / "http.sock")
        self._env = {"LOGD_SOCKET": instance.socket, "PYTHONPATH": f"{self._code}:{ROOT}"}
        self.answered: list[int] = []
        self.unanswered: list[int] = []  # the server ended in the middle of them
        self._start()

    def _start(self) -> None:
        Path(self._path).unlink(missing_ok=True)
        command = self._kind.command(self._path, self._app)
        self._process = Process(*command, env=self._env, start_new_session=True)

    # -- requests --------------------------------------------------------------------------------

    def ask_for_all(self, count: int, happenings: dict[int, Callable[[], None]]) -> None:
        """Asks for lessons 1 to `count`, several at once; does what is to happen after so many."""
        numbers = iter(range(1, count + 1))
        lock = threading.Lock()
        errors: list[Exception] = []

        def asking() -> None:
            try:
                while not errors:
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    happening = happenings.get(number)
                    if happening is not None:
                        happening()
                    self._ask(number)
            except Exception as error:  # noqa: BLE001 - raised in the test's thread
                errors.append(error)

        threads = [threading.Thread(target=asking) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("server", timeout=DEADLINE_S)
        headers = {"X-User": f"pupil-{number % 7}", "X-Request-ID": f"r{number}"}
        with contextlib.closing(connection), self._connected() as connection.sock:
            try:
                connection.request("GET", f"/lessons/{number}", headers=headers)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                self.unanswered.append(number)
                return
        assert (response.status, body.strip(b'"')) == (200, f"lesson {number}".encode()), body
        self.answered.append(number)

    def _connected(self) -> socket.socket:
        end_s = time.monotonic() + DEADLINE_S
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(DEADLINE_S)
            try:
                sock.connect(self._path)
                return sock
            except OSError:  # not up yet, or again
                sock.close()
                assert time.monotonic() < end_s, self._process.lines[-5:]
                assert self._process.popen.poll() in (None, -9), self._process.lines[-5:]
                time.sleep(0.01)

    # -- what happens to it ----------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL to a worker that the server replaces; else to all of it, and another start."""
        if self._kind.replaces_workers:
            os.kill(self._workers()[0], signal.SIGKILL)
        else:
            self._kill_all()
            self._start()

    def reload(self) -> None:
        """Has it load the application again, and waits until other processes serve it."""
        before = set(self._workers())
        if self._kind.reload == "SIGHUP":
            self._process.popen.send_signal(signal.SIGHUP)
        else:
            with open(self._code / f"{self._app}.py", "a") as file:
                file.write("\n# changed\n")
        until(lambda: set(self._workers()) - before, "the server has loaded it again")

    def _workers(self) -> list[int]:
        pid = self._process.popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = []
        for child in children:
            with contextlib.suppress(OSError):
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
        return found

    def _kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.popen.pid, signal.SIGKILL)
        self._process.close()

    def close(self) -> None:
        """Kills all of its processes."""
        self._kill_all()
