"""`make run`'s supervisor, with stand-ins for logd, the seed command and the site.

tests/browser/test_story.py runs it with the real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from logd_wire.rendezvous import Rendezvous, make_directory, write_rendezvous
from tests.project.supervised_run import (
    FAILS,
    SEED_WITHOUT_END,
    SITE,
    SITE_WITH_SLOW_ANSWERS,
    Run,
    other,
)
from tests.support.instance import until
from webapp.run import supervisor
from webapp.run.plan import Plan
from webapp.run.preparation import remove_incomplete
from webapp.run.supervisor import RESTARTS_MAX

# -- a successful run --------------------------------------------------------------------------


def test_the_first_run_makes_everything_and_stops_the_site_before_logd(run: Run) -> None:
    run.start()
    run.until_open()
    run.ctrl_c()
    assert run.end() == 0
    assert run.record == [
        *("init", "logd started", "seeding", "seeded", "site started"),
        *("site stopped", "logd stopped"),
    ]
    assert run.printed[-1] == "stored 12, pending 0, lost 0"


def test_the_second_run_keeps_what_the_first_one_made(run: Run) -> None:
    for _ in range(2):
        run.start()
        run.until_open()
        run.ctrl_c()
        assert run.end() == 0
        first, run.printed[:] = list(run.printed), []
        record = run.record
    assert record.count("init") == 1
    assert record.count("seeding") == 1
    assert record.count("site stopped") == 2
    assert first[-1] == "stored 12, pending 0, lost 0"


def test_ctrl_c_prints_no_output_of_the_children(run: Run) -> None:
    run.start()
    run.until_open()
    run.ctrl_c()
    run.end()
    assert run.printed[-2:] == ["\nStopping the site, then logd.", "stored 12, pending 0, lost 0"]


def test_output_of_the_site_is_printed_while_it_runs(run: Run) -> None:
    run.start()
    until(lambda: "site | a warning of the site" in run.printed, "the site's line")


def test_ctrl_c_while_the_history_is_loaded_ends_the_run(run: Run) -> None:
    run.plan = replace(run.plan, seed=other(run.plan.seed, SEED_WITHOUT_END))
    run.start()
    until(lambda: "seeding" in run.record, "the history is being played")
    run.ctrl_c()
    assert run.end() == 0
    assert "the next `make run` starts over" in run.text
    assert run.record[-1] == "logd stopped"
    assert run.plan.incomplete


# -- failing children --------------------------------------------------------------------------


def test_a_killed_logd_is_restarted_and_the_restart_is_printed(run: Run) -> None:
    run.start()
    run.until_open()
    os.kill(run.pid("logd started"), signal.SIGKILL)
    until(lambda: "logd has restarted." in run.printed, "logd has restarted")
    assert "logd ended unexpectedly (killed by SIGKILL); restarting it (1 of" in run.text
    run.ctrl_c()
    assert run.end() == 0
    assert run.record[-2:] == ["site stopped", "logd stopped"]


def test_too_many_restarts_of_logd_end_the_run(run: Run) -> None:
    run.start()
    run.until_open()
    for died in range(1, RESTARTS_MAX + 2):
        os.kill(run.pid("logd started"), signal.SIGKILL)
        if died <= RESTARTS_MAX:
            until(lambda n=died: run.printed.count("logd has restarted.") == n, "back")  # type: ignore[misc] # a lambda's default
    assert run.end() != 0
    assert f"logd ended {RESTARTS_MAX + 1} times within 60 seconds" in run.text
    assert run.record[-1] == "site stopped"


def test_a_logd_that_fails_at_startup_ends_the_run_with_its_output_and_exit_code(run: Run) -> None:
    run.plan = replace(run.plan, logd_run=other(run.plan.logd_run, FAILS, 77))
    assert run.run_to_the_end() == 77
    assert "logd failed (exit code 77). Its last lines:" in run.text
    assert "    the reason, in one line" in run.text


def test_a_failing_init_ends_the_run_with_its_output(run: Run) -> None:
    run.plan = replace(run.plan, logd_init=other(run.plan.logd_init, FAILS, 73))
    assert run.run_to_the_end() == 73
    assert run.printed == ["make run: `logd init` failed: the reason, in one line"]


def test_a_history_that_cannot_be_loaded_ends_the_run(run: Run) -> None:
    run.plan = replace(run.plan, seed=other(run.plan.seed, FAILS, 1))
    assert run.run_to_the_end() == os.EX_UNAVAILABLE
    assert "the demo history could not be loaded (exit code 1)" in run.text
    assert run.record[-1] == "logd stopped"


def test_a_site_that_answers_with_an_error_ends_the_run(run: Run) -> None:
    broken = SITE.replace("200", "500")
    run.plan = replace(run.plan, site=other(run.plan.site, broken))
    assert run.run_to_the_end() == os.EX_SOFTWARE
    assert "the site answers its login page with an error (500). Its last lines:" in run.text
    assert "    a warning of the site" in run.text


def test_an_endless_slow_answer_does_not_delay_ctrl_c(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "HTTP_TIMEOUT_S", 0.2)
    run.plan = replace(run.plan, site=other(run.plan.site, SITE_WITH_SLOW_ANSWERS))
    run.start()
    until(lambda: "asked" in run.record, "the site is asked")
    run.ctrl_c()
    assert run.end() == 0
    assert run.record[-2:] == ["site stopped", "logd stopped"]


def test_a_site_that_dies_ends_the_run_and_logd_is_still_stopped_cleanly(run: Run) -> None:
    run.start()
    run.until_open()
    os.kill(run.pid("site started"), signal.SIGKILL)
    assert run.end() == os.EX_SOFTWARE
    assert "the site ended unexpectedly (killed by SIGKILL). Its last lines:" in run.text
    assert "    a warning of the site" in run.text
    assert run.record[-1] == "logd stopped"
    assert run.printed[-1] == "stored 12, pending 0, lost 0"


def test_a_missing_program_is_named(run: Run) -> None:
    run.plan = replace(run.plan, logd_run=("/nowhere/logd", "run"))
    run.plan.logd.mkdir()
    run.plan.config.touch()
    assert run.run_to_the_end() == os.EX_UNAVAILABLE
    assert "logd cannot be started (/nowhere/logd: No such file or directory)" in run.text


def test_a_failing_status_command_is_reported_in_one_line(run: Run) -> None:
    run.plan = replace(run.plan, logd_status=other(run.plan.logd_status, FAILS, 65))
    run.start()
    run.until_open()
    run.ctrl_c()
    run.end()
    assert run.printed[-1] == (
        "The totals are not known: `logd status` failed: the reason, in one line"
    )


def test_children_stop_when_the_supervisor_is_killed(run: Run, tmp_path: Path) -> None:
    code = (
        "import queue; from webapp.run.process import Child; import sys, os\n"
        "Child('logd', sys.argv[1:], queue.SimpleQueue(), dict(os.environ))\n"
        "import signal; signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, *run.plan.logd_run]) as supervisor:
        try:
            until(run.record_path.exists, "the child has started")
            until(lambda: "logd started" in run.record, "the child has started")
        finally:
            supervisor.kill()
    until(lambda: "logd stopped" in run.record, "the child was stopped")
    child = run.pid("logd started")
    until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


# -- interrupted first runs --------------------------------------------------------------------


def test_an_interrupted_first_run_is_reported_removed_and_repeated(run: Run) -> None:
    make_incomplete(run.plan)
    neighbour = run.plan.var / "notes.txt"
    neighbour.write_text("not ours")
    run.start()
    run.until_open()
    assert "was interrupted" in run.printed[0]
    assert run.record[0] == "init"
    assert "seeded" in run.record
    assert not (run.plan.classroom / "half.db").exists()
    assert neighbour.read_text() == "not ours"


def make_incomplete(plan: Plan) -> None:
    plan.classroom.mkdir()
    plan.logd.mkdir()
    plan.config.touch()
    (plan.classroom / "seeding").touch()
    (plan.classroom / "half.db").touch()


def test_a_key_without_a_database_counts_as_an_interrupted_first_run(run: Run) -> None:
    run.plan.logd.mkdir()
    (run.plan.logd / "logd.key").touch()
    assert run.plan.incomplete
    (run.plan.logd / "activity.db").touch()
    assert not run.plan.incomplete


def test_outboxes_of_an_interrupted_first_run_are_removed(run: Run, tmp_path: Path) -> None:
    make_incomplete(run.plan)
    outboxes = tmp_path / "outboxes"
    token = "0" * 32
    make_directory(str(outboxes), token, 0o700)
    (outboxes / "left-behind").touch()
    write_rendezvous(str(run.plan.logd / "logd.sock"), Rendezvous(str(outboxes), token, ""))
    remove_incomplete(run.plan)
    assert not outboxes.exists()
    assert not run.plan.logd.exists()


def test_a_directory_without_the_token_is_not_removed(run: Run, tmp_path: Path) -> None:
    make_incomplete(run.plan)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    write_rendezvous(str(run.plan.logd / "logd.sock"), Rendezvous(str(precious), "0" * 32, ""))
    remove_incomplete(run.plan)
    assert (precious / "thesis").exists()


def test_a_finished_first_run_is_never_removed(run: Run) -> None:
    make_incomplete(run.plan)
    (run.plan.classroom / "seeded").touch()
    assert not run.plan.incomplete
