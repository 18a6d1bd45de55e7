"""`make run`'s supervisor, with stand-ins for logd, the player of history and the site.

The stand-ins keep a diary of what they were told, in order. The story with the real parts is in
tests/browser/test_story.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from logd_wire.rendezvous import Rendezvous, make_directory, write_rendezvous
from tests.support.instance import until
from tests.support.ports import free_port
from webapp.run import supervisor
from webapp.run.plan import (
    Plan,
    RunError,
    check_port,
    make_plan,
    ready_text,
    remove_incomplete,
    sums_text,
    take_directory,
)
from webapp.run.process import Events, Signalled
from webapp.run.supervisor import RESTARTS_MAX, Supervisor

DEADLINE_S = 20.0
ACCOUNTS = [("teacher", "frida", "chalk"), ("student", "kim", "pencil")]

# Each stand-in gets the diary's path, and what else it needs, as arguments.
DIARY = """
import os, signal, sys, time
def note(text):
    with open(sys.argv[1], "a") as diary:
        diary.write(f"{text} {os.getpid()}\\n")
"""
LOGD_INIT = DIARY + "note('init'); os.mkdir(sys.argv[2]); open(sys.argv[2] + '/logd.toml', 'w')"
LOGD_RUN = (
    DIARY
    + """
def stop(*_):
    note("logd stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("logd started")
print("logd: ready, listening", file=sys.stderr, flush=True)
while True:
    signal.pause()
"""
)
LOGD_STATUS = """print('{"stored": 12, "pending": 0, "lost": 0, "commits": 3}')"""
SEED = (
    DIARY
    + """
note("seeding")
os.mkdir(sys.argv[2])
open(sys.argv[2] + "/seeding", "w")
note("seeded")
open(sys.argv[2] + "/seeded", "w")
"""
)
SEED_THAT_TAKES_LONG = (
    DIARY
    + """
os.mkdir(sys.argv[2])
open(sys.argv[2] + "/seeding", "w")
note("seeding")
signal.pause()
"""
)
SITE = (
    DIARY
    + """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
def stop(*_):
    note("site stopped")
    print("[ERROR] Worker was sent SIGTERM!", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Page)
note("site started")
print("a warning of the site", flush=True)
server.serve_forever()
"""
)
SITE_THAT_TRICKLES = (
    DIARY
    + """
import socket
def stop(*_):
    note("site stopped")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as server:
    while True:
        peer, _ = server.accept()
        note("asked")
        try:
            while True:
                peer.send(b"x")
                time.sleep(0.01)
        except OSError:
            peer.close()
"""
)
FAILS = "import sys; print('the reason, in one line', file=sys.stderr); sys.exit(int(sys.argv[2]))"


@dataclass
class Run:
    """A supervisor in a thread, and what it says."""

    plan: Plan
    diary_path: Path
    events: Events = field(default_factory=queue.SimpleQueue)
    said: list[str] = field(default_factory=list)
    exit_code: int | None = None

    def start(self) -> None:
        self.diary_path.touch()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        supervisor = Supervisor(self.plan, self.events, self.said.append, lambda: ACCOUNTS)
        self.exit_code = supervisor.run()

    def ctrl_c(self) -> None:
        self.events.put(Signalled(signal.SIGINT))

    def end(self) -> int:
        """Waits for the end of the run; its exit code."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"still running, having said {self.said}"
        assert self.exit_code is not None
        return self.exit_code

    def run_to_the_end(self) -> int:
        self.start()
        return self.end()

    def until_open(self) -> None:
        until(lambda: "is open" in self.text, "the site is open")

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    @property
    def diary(self) -> list[str]:
        """What the stand-ins noted, without their process ids."""
        return [line.rsplit(" ", 1)[0] for line in self.diary_path.read_text().splitlines()]

    def pid(self, entry: str) -> int:
        """Which process made the latest such entry."""
        lines = self.diary_path.read_text().splitlines()
        return max(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(entry))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run on a free port, with stand-ins that behave; its children end with the test."""
    diary, port, var = tmp_path / "diary", free_port(), tmp_path / "var"
    var.mkdir()

    def stand_in(code: str, *arguments: object) -> tuple[str, ...]:
        return (sys.executable, "-S", "-c", code, str(diary), *map(str, arguments))

    plan = Plan(
        port=port,
        var=var,
        logd_init=stand_in(LOGD_INIT, var / "logd"),
        logd_run=stand_in(LOGD_RUN),
        logd_status=stand_in(LOGD_STATUS),
        seed=stand_in(SEED, var / "classroom"),
        site=stand_in(SITE, port),
    )
    run = Run(plan, diary)
    yield run
    with contextlib.suppress(AttributeError):  # never started
        run.ctrl_c()
        run.end()
    for line in diary.read_text().splitlines() if diary.exists() else ():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.rsplit(" ", 1)[1]), 0)


def other(command: tuple[str, ...], code: str, *arguments: object) -> tuple[str, ...]:
    """The same stand-in with another program."""
    return (*command[:3], code, command[4], *map(str, arguments or command[5:]))


# -- a run that goes well ----------------------------------------------------------------------


def test_the_first_run_makes_everything_and_stops_the_site_before_logd(run: Run) -> None:
    run.start()
    run.until_open()
    run.ctrl_c()
    assert run.end() == 0
    assert run.diary == [
        *("init", "logd started", "seeding", "seeded", "site started"),
        *("site stopped", "logd stopped"),
    ]
    assert run.said[-1] == "stored 12, pending 0, lost 0"


def test_the_second_run_keeps_what_the_first_one_made(run: Run) -> None:
    for _ in range(2):
        run.start()
        run.until_open()
        run.ctrl_c()
        assert run.end() == 0
        first, run.said[:] = list(run.said), []
        diary = run.diary
    assert diary.count("init") == 1
    assert diary.count("seeding") == 1
    assert diary.count("site stopped") == 2
    assert first[-1] == "stored 12, pending 0, lost 0"


def test_ctrl_c_shows_no_noise_of_the_children(run: Run) -> None:
    run.start()
    run.until_open()
    run.ctrl_c()
    run.end()
    assert run.said[-2:] == ["\nStopping the site, then logd.", "stored 12, pending 0, lost 0"]


def test_what_the_site_says_while_it_runs_is_shown(run: Run) -> None:
    run.start()
    until(lambda: "site | a warning of the site" in run.said, "the site's line")


def test_ctrl_c_while_the_history_is_played_ends_the_run(run: Run) -> None:
    run.plan = replace(run.plan, seed=other(run.plan.seed, SEED_THAT_TAKES_LONG))
    run.start()
    until(lambda: "seeding" in run.diary, "the history is being played")
    run.ctrl_c()
    assert run.end() == 0
    assert "the next `make run` begins it again" in run.text
    assert run.diary[-1] == "logd stopped"
    assert run.plan.incomplete


# -- children that fail ------------------------------------------------------------------------


def test_a_killed_logd_is_started_again_and_the_run_says_so(run: Run) -> None:
    run.start()
    run.until_open()
    os.kill(run.pid("logd started"), signal.SIGKILL)
    until(lambda: "logd is back." in run.said, "logd is back")
    assert "logd ended unexpectedly (killed by SIGKILL); starting it again (1 of" in run.text
    run.ctrl_c()
    assert run.end() == 0
    assert run.diary[-2:] == ["site stopped", "logd stopped"]


def test_a_logd_that_keeps_ending_is_given_up(run: Run) -> None:
    run.start()
    run.until_open()
    for died in range(1, RESTARTS_MAX + 2):
        os.kill(run.pid("logd started"), signal.SIGKILL)
        if died <= RESTARTS_MAX:
            until(lambda died=died: run.said.count("logd is back.") == died, "back")  # type: ignore
    assert run.end() != 0
    assert f"logd ended {RESTARTS_MAX + 1} times within 60 seconds" in run.text
    assert run.diary[-1] == "site stopped"


def test_a_logd_that_never_gets_ready_ends_the_run_with_its_own_words_and_code(run: Run) -> None:
    run.plan = replace(run.plan, logd_run=other(run.plan.logd_run, FAILS, 77))
    assert run.run_to_the_end() == 77
    assert "logd did not stay up (exit code 77). Its last lines:" in run.text
    assert "    the reason, in one line" in run.text


def test_a_failing_init_ends_the_run_with_its_reason(run: Run) -> None:
    run.plan = replace(run.plan, logd_init=other(run.plan.logd_init, FAILS, 73))
    assert run.run_to_the_end() == 73
    assert run.said == ["make run: `logd init` failed: the reason, in one line"]


def test_a_history_that_cannot_be_played_ends_the_run(run: Run) -> None:
    run.plan = replace(run.plan, seed=other(run.plan.seed, FAILS, 1))
    assert run.run_to_the_end() == os.EX_UNAVAILABLE
    assert "the history could not be played (exit code 1)" in run.text
    assert run.diary[-1] == "logd stopped"


def test_a_site_that_has_only_errors_ends_the_run(run: Run) -> None:
    broken = SITE.replace("200", "500")
    run.plan = replace(run.plan, site=other(run.plan.site, broken))
    assert run.run_to_the_end() == os.EX_SOFTWARE
    assert "the site answers its login page with an error (500). Its last lines:" in run.text
    assert "    a warning of the site" in run.text


def test_an_answer_that_trickles_in_without_end_does_not_hold_up_ctrl_c(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "HTTP_TIMEOUT_S", 0.2)
    run.plan = replace(run.plan, site=other(run.plan.site, SITE_THAT_TRICKLES))
    run.start()
    until(lambda: "asked" in run.diary, "the site is asked")
    run.ctrl_c()
    assert run.end() == 0
    assert run.diary[-2:] == ["site stopped", "logd stopped"]


def test_a_site_that_dies_ends_the_run_and_logd_is_still_stopped_cleanly(run: Run) -> None:
    run.start()
    run.until_open()
    os.kill(run.pid("site started"), signal.SIGKILL)
    assert run.end() == os.EX_SOFTWARE
    assert "the site ended by itself (killed by SIGKILL). Its last lines:" in run.text
    assert "    a warning of the site" in run.text
    assert run.diary[-1] == "logd stopped"
    assert run.said[-1] == "stored 12, pending 0, lost 0"


def test_a_program_that_is_not_there_is_named(run: Run) -> None:
    run.plan = replace(run.plan, logd_run=("/nowhere/logd", "run"))
    run.plan.logd.mkdir()
    run.plan.config.touch()
    assert run.run_to_the_end() == os.EX_UNAVAILABLE
    assert "logd cannot be started (/nowhere/logd: No such file or directory)" in run.text


def test_sums_that_cannot_be_had_are_no_traceback(run: Run) -> None:
    run.plan = replace(run.plan, logd_status=other(run.plan.logd_status, FAILS, 65))
    run.start()
    run.until_open()
    run.ctrl_c()
    run.end()
    assert run.said[-1] == ("The sums are not known: `logd status` failed: the reason, in one line")


def test_a_supervisor_killed_with_9_takes_its_children_along(run: Run, tmp_path: Path) -> None:
    code = (
        "import queue; from webapp.run.process import Child; import sys, os\n"
        "Child('logd', sys.argv[1:], queue.SimpleQueue(), dict(os.environ))\n"
        "import signal; signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, *run.plan.logd_run]) as supervisor:
        try:
            until(run.diary_path.exists, "the child has started")
            until(lambda: "logd started" in run.diary, "the child has started")
        finally:
            supervisor.kill()
    until(lambda: "logd stopped" in run.diary, "the child was told to stop")
    child = run.pid("logd started")
    until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


# -- half-finished first runs ------------------------------------------------------------------


def test_a_half_finished_first_run_is_said_removed_and_begun_again(run: Run) -> None:
    make_half(run.plan)
    neighbour = run.plan.var / "notes.txt"
    neighbour.write_text("not ours")
    run.start()
    run.until_open()
    assert "cut short" in run.said[0]
    assert run.diary[0] == "init"
    assert "seeded" in run.diary
    assert not (run.plan.classroom / "half.db").exists()
    assert neighbour.read_text() == "not ours"


def make_half(plan: Plan) -> None:
    plan.classroom.mkdir()
    plan.logd.mkdir()
    plan.config.touch()
    (plan.classroom / "seeding").touch()
    (plan.classroom / "half.db").touch()


def test_a_key_that_nothing_was_written_with_is_half_made_too(run: Run) -> None:
    run.plan.logd.mkdir()
    (run.plan.logd / "logd.key").touch()
    assert run.plan.incomplete
    (run.plan.logd / "activity.db").touch()
    assert not run.plan.incomplete


def test_what_a_killed_player_of_history_left_in_memory_goes_too(run: Run, tmp_path: Path) -> None:
    make_half(run.plan)
    outboxes = tmp_path / "outboxes"
    token = "0" * 32
    make_directory(str(outboxes), token, 0o700)
    (outboxes / "left-behind").touch()
    write_rendezvous(str(run.plan.logd / "logd.sock"), Rendezvous(str(outboxes), token, ""))
    remove_incomplete(run.plan)
    assert not outboxes.exists()
    assert not run.plan.logd.exists()


def test_a_directory_that_only_claims_to_be_the_outboxes_is_left_alone(
    run: Run, tmp_path: Path
) -> None:
    make_half(run.plan)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    write_rendezvous(str(run.plan.logd / "logd.sock"), Rendezvous(str(precious), "0" * 32, ""))
    remove_incomplete(run.plan)
    assert (precious / "thesis").exists()


def test_a_finished_first_run_is_never_removed(run: Run) -> None:
    make_half(run.plan)
    (run.plan.classroom / "seeded").touch()
    assert not run.plan.incomplete


# -- what is refused before anything starts ----------------------------------------------------


def refused(*, port: object, var: Path | str) -> tuple[int, str]:
    """A real `python -m webapp.run` that must end by itself: exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "webapp.run"],
        env={**os.environ, "PORT": str(port), "VAR": str(var)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stdout


def test_a_port_in_use_is_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, output = refused(port=port, var=tmp_path / "var")
    assert code == os.EX_UNAVAILABLE
    assert output == (
        f"make run: port {port} is in use by another program. "
        f"Choose another one: make run PORT={port + 1}\n"
    )
    assert not (tmp_path / "var/logd").exists()


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "8000.0"])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"PORT={port} is no port") as error:
        make_plan({"PORT": port, "VAR": str(tmp_path)})
    assert error.value.exit_code == os.EX_USAGE


def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    code, output = refused(port=free_port(), var=deep)
    assert code == os.EX_CONFIG
    assert output.count("\n") == 1
    assert "at most 107" in output
    assert not deep.exists()


def test_the_longest_path_that_fits_is_taken() -> None:
    longest = "/" + "x" * (107 - len("//logd/query.sock"))
    assert make_plan({"VAR": longest}).var == Path(longest)
    with pytest.raises(RunError):
        make_plan({"VAR": longest + "x"})


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    code, output = refused(port=free_port(), var=tmp_path / place)
    assert code == os.EX_CANTCREAT
    assert output.count("\n") == 1
    assert "cannot be written" in output


def test_a_second_run_on_the_same_files_is_refused(run: Run) -> None:
    with take_directory(run.plan):
        code, output = refused(port=run.plan.port, var=run.plan.var)
    assert code == os.EX_TEMPFAIL
    assert f"another `make run` (process {os.getpid()}) already uses" in output
    with take_directory(run.plan) as lock, pytest.raises(BlockingIOError):
        # The lock is the file's, whoever opens it.
        fcntl.flock(os.open(lock.name, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_port_whose_connections_only_linger_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        browser = socket.create_connection(address)
        server.accept()[0].close()
        browser.close()
    check_port(address[1])


# -- texts and paths ---------------------------------------------------------------------------


def test_the_plan_starts_the_programs_of_this_very_environment() -> None:
    plan = make_plan({})
    programs = Path(sys.executable).parent
    assert plan.url == "http://127.0.0.1:8000"
    assert plan.var == Path.cwd() / "var"
    assert plan.logd_run == (
        str(programs / "logd"),
        "run",
        "--config",
        str(Path.cwd() / "var/logd/logd.toml"),
    )
    assert plan.seed[0] == plan.site[0] == sys.executable
    assert "127.0.0.1:8000" in plan.site


def test_the_site_knows_both_directories_and_no_key() -> None:
    plan = make_plan({"VAR": "/v"})
    assert plan.site_environment({"HOME": "/root"}) == {
        "HOME": "/root",
        "CLASSROOM_DIR": "/v/classroom",
        "LOGD_DIR": "/v/logd",
        "CLASSROOM_INSECURE_HTTP": "1",
    }


def test_the_text_on_the_screen_has_all_that_a_newcomer_needs() -> None:
    plan = replace(make_plan({"PORT": "8123"}), logd_run=(str(Path.cwd() / ".venv/bin/logd"),))
    assert ready_text(plan, ACCOUNTS) == (
        "\n"
        "  The Classroom is open: http://127.0.0.1:8123\n"
        "\n"
        "    role      user name   password\n"
        "    teacher   frida       chalk\n"
        "    student   kim         pencil\n"
        "\n"
        "    files   var\n"
        "    watch   .venv/bin/logd tail --follow --config var/logd/logd.toml\n"
        "    stop    Ctrl-C\n"
    )


def test_the_sums_are_one_line() -> None:
    status = {"lost": 0, "stored": 50_000, "pending": 2, "commits": 9}
    assert sums_text(status) == "stored 50000, pending 2, lost 0"
