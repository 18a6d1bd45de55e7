"""The supervisor of `make run`: one run of logd and the site, from the first file to the last line.

It waits in one place, `_next_event`, for what children and signals report, and does there what such
an event always asks for; the rest of it reads as the order of things.
"""

from __future__ import annotations

import contextlib
import http
import json
import os
import queue
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable

from webapp.run.plan import HOST, Plan, RunError, ready_text, remove_incomplete, sums_text
from webapp.run.process import Child, Event, Events, Exited, Line, Signalled, describe_exit

LOGD_READY_TIMEOUT_S = 60.0
SITE_READY_TIMEOUT_S = 60.0
SITE_STOP_TIMEOUT_S = 10.0
LOGD_STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
HTTP_TIMEOUT_S = 2.0
STATUS_BYTES = len("HTTP/1.1 200")
LOOK_INTERVAL_S = 0.05
RESTARTS_MAX = 3
RESTARTS_WINDOW_S = 60.0

# Starting again what ended for one of these would end the same way: usage, damaged data, a missing
# or unsuitable file, key or setting.
_LASTING_EXIT_CODES = {
    os.EX_USAGE,
    os.EX_DATAERR,
    os.EX_UNAVAILABLE,
    os.EX_CANTCREAT,
    os.EX_NOPERM,
    os.EX_CONFIG,
}
_READY_MARK = "logd: ready"
_ANCHOR_MARK = "logd: anchor "  # where its chain ends, each minute: for a log, not for a terminal

Say = Callable[[str], None]
Accounts = Callable[[], Iterable[tuple[str, str, str]]]


class Stopped(Exception):
    """Somebody pressed Ctrl-C, or sent SIGTERM or SIGHUP."""


class Supervisor:
    """One run of logd and the site. `events` is where signals and children report."""

    def __init__(self, plan: Plan, events: Events, say: Say, accounts: Accounts) -> None:
        self._plan = plan
        self._events = events
        self._say = say
        self._accounts = accounts
        self._logd: Child | None = None
        self._logd_is_ready = False
        self._site: Child | None = None
        self._site_is_open = False
        self._seed: Child | None = None
        self._logd_was_ready = False
        self._restarts_s: list[float] = []

    def run(self) -> int:
        """Everything from the first file to the last line. The exit code: 0 when told to stop."""
        exit_code = os.EX_OK
        try:
            self._make_instance()
            logd = self._start_logd()
            self._wait(lambda: self._logd_is_ready, LOGD_READY_TIMEOUT_S, logd)
            self._logd_was_ready = True
            self._play_history()
            site = self._start_site()
            self._wait(self._site_answers, SITE_READY_TIMEOUT_S, site)
            self._site_is_open = True
            self._say(ready_text(self._plan, self._accounts()))
            for line in site.last_lines:
                self._say_of(site, line)
            while True:
                self._next_event()
        except Stopped:
            pass
        except RunError as error:
            self._say(f"make run: {error}")
            exit_code = error.exit_code
        finally:
            self._stop()
        return exit_code

    # -- coming up -------------------------------------------------------------------------------

    def _make_instance(self) -> None:
        if self._plan.incomplete:
            self._say("An earlier first run was cut short; removing what it made, to begin again.")
            remove_incomplete(self._plan)
        if not self._plan.config.exists():
            self._command("logd init", self._plan.logd_init)

    def _command(self, name: str, command: tuple[str, ...]) -> str:
        """Runs a short command to its end; its output. Raises RunError when it fails."""
        try:
            done = subprocess.run(  # noqa: S603 - the plan's own commands
                command,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"`{name}` failed: {error}", os.EX_UNAVAILABLE) from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise RunError(f"`{name}` failed: {said}", done.returncode)
        return done.stdout

    def _start(
        self, name: str, command: tuple[str, ...], env: dict[str, str], *, lines: bool = True
    ) -> Child:
        try:
            return Child(name, command, self._events, env, lines=lines)
        except OSError as error:
            raise RunError(
                f"{name} cannot be started ({command[0]}: {error.strerror}). `make setup` repairs "
                "the environment.",
                os.EX_UNAVAILABLE,
            ) from error

    def _start_logd(self) -> Child:
        self._logd_is_ready = False
        self._logd = self._start("logd", self._plan.logd_run, dict(os.environ))
        return self._logd

    def _play_history(self) -> None:
        if self._plan.has_history:
            return
        self._say("First run: playing 60 days of a school's history through logd.")
        env = self._plan.site_environment(os.environ)
        # Its progress bar belongs to the terminal, so its output is ours.
        seed = self._seed = self._start("seed", self._plan.seed, env, lines=False)
        while True:
            event = self._next_event()
            if isinstance(event, Exited) and event.child is seed:
                self._seed = None
                if event.code != 0:
                    raise RunError(
                        f"the history could not be played ({describe_exit(event.code)}); "
                        "the next `make run` begins again.",
                        os.EX_UNAVAILABLE,
                    )
                return

    def _start_site(self) -> Child:
        env = self._plan.site_environment(os.environ)
        self._site = self._start("site", self._plan.site, env)
        return self._site

    def _site_answers(self) -> bool:
        """Whether the login page does. Raises RunError when all it has is an error."""
        status = _status_of(self._plan.port, "/login")
        if status is None:
            return False
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            assert self._site is not None
            raise RunError(
                f"the site answers its login page with an error ({status})."
                + _last_lines(self._site),
                os.EX_SOFTWARE,
            )
        return True

    def _wait(self, holds: Callable[[], bool], timeout_s: float, child: Child) -> None:
        """Handles events until the condition holds. Raises RunError after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline_s:
                raise RunError(
                    f"{child.name} was not ready within {timeout_s:.0f} seconds."
                    + _last_lines(child),
                    os.EX_UNAVAILABLE,
                )
            self._next_event(LOOK_INTERVAL_S)

    # -- while it runs ---------------------------------------------------------------------------

    def _next_event(self, timeout_s: float | None = None) -> Event | None:
        """Waits for one event and does what it always asks for; None after the timeout.

        Raises Stopped, and RunError when a child that the run needs has ended.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        match event:
            case Signalled():
                raise Stopped
            case Line(child, text) if child is self._logd and _READY_MARK in text:
                self._logd_is_ready = True
                if self._restarts_s:
                    self._say("logd is back.")
            case Line(child, text) if child is self._logd and text.startswith(_ANCHOR_MARK):
                pass
            case Line(child, text) if self._is_up(child):
                self._say_of(child, text)
            case Exited(child, code) if child is self._site:
                self._site = None
                raise RunError(
                    f"the site ended by itself ({describe_exit(code)})." + _last_lines(child),
                    os.EX_SOFTWARE,
                )
            case Exited(child, code) if child is self._logd:
                self._logd = None
                self._logd_ended(child, code)
        return event

    def _say_of(self, child: Child, line: str) -> None:
        named = line.startswith(f"{child.name}: ")  # logd says who it is
        self._say(line if named else f"{child.name} | {line}")

    def _is_up(self, child: Child) -> bool:
        # Before that, the last lines are told by whoever waits, if it comes to that.
        return (child is self._site and self._site_is_open) or (
            child is self._logd and self._logd_is_ready
        )

    def _logd_ended(self, child: Child, code: int) -> None:
        if not self._logd_was_ready or code in _LASTING_EXIT_CODES:
            raise RunError(
                f"logd did not stay up ({describe_exit(code)})." + _last_lines(child),
                code if code > 0 else os.EX_UNAVAILABLE,
            )
        now_s = time.monotonic()
        self._restarts_s = [s for s in self._restarts_s if now_s - s < RESTARTS_WINDOW_S]
        if len(self._restarts_s) >= RESTARTS_MAX:
            raise RunError(
                f"logd ended {RESTARTS_MAX + 1} times within {RESTARTS_WINDOW_S:.0f} seconds, the "
                f"last time with {describe_exit(code)}." + _last_lines(child),
                os.EX_UNAVAILABLE,
            )
        self._restarts_s.append(now_s)
        self._say(
            f"logd ended unexpectedly ({describe_exit(code)}); starting it again "
            f"({len(self._restarts_s)} of at most {RESTARTS_MAX} within a minute). "
            "Events wait in the outboxes meanwhile."
        )
        # Nothing waits for it: the site works without, and says so where it matters.
        self._start_logd()

    # -- going down ------------------------------------------------------------------------------

    def _stop(self) -> None:
        """The site first, so that logd still takes its last events; each within its deadline."""
        if self._seed is not None:
            self._seed.stop(SITE_STOP_TIMEOUT_S)
            self._say("\nStopped while playing the history; the next `make run` begins it again.")
        if self._site is not None:
            self._say("\nStopping the site, then logd.")
            self._site.stop(SITE_STOP_TIMEOUT_S)
        if self._logd is not None:
            code = self._logd.stop(LOGD_STOP_TIMEOUT_S)
            if code != 0:
                self._say(
                    f"logd did not stop cleanly ({describe_exit(code)})." + _last_lines(self._logd)
                )
        if self._logd_was_ready:
            self._say_sums()

    def _say_sums(self) -> None:
        try:
            status = json.loads(self._command("logd status", self._plan.logd_status))
        except (RunError, ValueError) as error:
            self._say(f"The sums are not known: {error}")
            return
        self._say(sums_text(status))


def _status_of(port: int, path: str) -> int | None:
    """The HTTP status of a page; None without one within HTTP_TIMEOUT_S, however slowly it comes.

    Not by http.client, whose timeout is for each read: what else listens on that port could hold
    up Ctrl-C for hours.
    """
    deadline_s = time.monotonic() + HTTP_TIMEOUT_S
    answer = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, port), timeout=HTTP_TIMEOUT_S) as sock,
    ):
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
        while len(answer) < STATUS_BYTES and (left_s := deadline_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            part = sock.recv(STATUS_BYTES - len(answer))
            if not part:
                break
            answer += part
    found = re.fullmatch(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else None


def _last_lines(child: Child) -> str:
    if not child.last_lines:
        return ""
    return "\n    ".join([" Its last lines:", *child.last_lines])
