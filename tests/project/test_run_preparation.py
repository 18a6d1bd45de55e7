"""`make run` before it starts a process: errors, plan, and printed texts."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.project.supervised_run import ACCOUNTS, DEADLINE_S, Run
from tests.support.ports import free_port
from webapp.run.messages import ready_text, totals_text
from webapp.run.plan import RunError, make_plan
from webapp.run.preparation import check_port, take_directory

# -- checks before the start -------------------------------------------------------------------


def refused(*, port: object, var: Path | str) -> tuple[int, str]:
    """Runs `python -m webapp.run`, which must fail; returns its exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "webapp.run"],
        env={**os.environ, "PORT": str(port), "VAR": str(var)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stdout


def test_a_port_in_use_is_reported_in_one_line_and_nothing_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, output = refused(port=port, var=tmp_path / "var")
    assert code == os.EX_UNAVAILABLE
    assert output == (
        f"make run: port {port} is in use by another program. "
        f"Choose another: make run PORT={port + 1}\n"
    )
    assert not (tmp_path / "var/logd").exists()


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "8000.0"])
def test_an_invalid_port_is_refused(port: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"PORT={port} is not a port") as error:
        make_plan({"PORT": port, "VAR": str(tmp_path)})
    assert error.value.exit_code == os.EX_USAGE


def test_a_path_too_long_for_a_socket_is_reported_in_one_line(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    code, output = refused(port=free_port(), var=deep)
    assert code == os.EX_CONFIG
    assert output.count("\n") == 1
    assert "at most 107" in output
    assert not deep.exists()


def test_the_longest_path_that_fits_is_accepted() -> None:
    longest = "/" + "x" * (107 - len("//logd/query.sock"))
    assert make_plan({"VAR": longest}).var == Path(longest)
    with pytest.raises(RunError):
        make_plan({"VAR": longest + "x"})


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_unwritable_directory_is_reported_in_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    code, output = refused(port=free_port(), var=tmp_path / place)
    assert code == os.EX_CANTCREAT
    assert output.count("\n") == 1
    assert "cannot be written" in output


def test_a_second_run_on_the_same_files_is_refused(run: Run) -> None:
    with take_directory(run.plan):
        code, output = refused(port=run.plan.port, var=run.plan.var)
    assert code == os.EX_TEMPFAIL
    assert f"another `make run` (process {os.getpid()}) is using" in output
    with take_directory(run.plan) as lock, pytest.raises(BlockingIOError):
        # The lock belongs to the file, not to the process.
        fcntl.flock(os.open(lock.name, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_port_with_connections_in_time_wait_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        browser = socket.create_connection(address)
        server.accept()[0].close()
        browser.close()
    check_port(address[1])


# -- texts and paths ---------------------------------------------------------------------------


def test_the_plan_uses_the_programs_of_this_environment() -> None:
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


def test_the_text_of_a_running_site_has_address_accounts_and_commands() -> None:
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


def test_the_totals_are_one_line() -> None:
    status = {"lost": 0, "stored": 50_000, "pending": 2, "commits": 9}
    assert totals_text(status) == "stored 50000, pending 2, lost 0"
