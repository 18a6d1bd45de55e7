"""Exit codes where a command does not begin its own work, or where nobody reads its answer."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logd.__main__ as entry
from logd.storage.database import connect
from logd.storage.keyfile import read as read_key
from logd_client import Client
from tests.support import forked_cli
from tests.support.instance import ROOT, Instance, check_sums, short_directory
from tests.support.namespaces import needs_users

STRANGER = 1000


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    forked_cli.load_commands()


@pytest.fixture(scope="module")
def stopped() -> Iterator[Instance]:
    """An instance with two events, which is not running, and a backup."""
    directory = short_directory()
    directory.chmod(0o755)
    instance = Instance(directory / "i")
    instance.directory.chmod(0o755)
    instance.config.path.chmod(0o644)
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="7", props={"schüler": "7"})
        assert client.emit("page_view", user="8")
        assert client.flush(20)
    check_sums(instance.settle(), attempted=2, accepted=2)
    instance.stop()
    instance.cli("backup", str(directory / "backup.db"))
    yield instance
    instance.close()
    shutil.rmtree(directory)


def line(instance: Instance, name: str, *arguments: str) -> list[str]:
    return [name, "--config", str(instance.config.path), *arguments]


def without_reader(arguments: list[str]) -> forked_cli.Done:
    """Runs a command whose standard output is a pipe that its reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return forked_cli.run(arguments, stdout=writing)
    finally:
        os.close(writing)


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize(("stdout", "code"), [("/dev/full", 75), (None, 74)])
def test_what_the_program_prints_of_itself_needs_an_output_too(
    option: str, stdout: str | None, code: int
) -> None:
    done = forked_cli.run([option], stdout=stdout)
    assert done.code == code, done
    assert "standard output: " in done.stderr
    assert without_reader([option]).code == 0


def test_a_completion_without_its_words_is_one_line_and_70() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "logd"],
        env={**os.environ, "_LOGD_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (70, 1), done


@pytest.mark.parametrize(
    ("error", "code"), [(ImportError("no room"), 71), (KeyboardInterrupt(), 130)]
)
def test_what_fails_before_the_command_line_is_there_is_one_line_and_not_1(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load = builtins.__import__

    def fail(name: str, *others: Any) -> Any:
        if name == "logd.cli":
            raise error
        return load(name, *others)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    monkeypatch.undo()
    assert ended.value.code == code
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith("logd: ")


def test_an_answer_is_the_same_when_nobody_reads_its_text(
    stopped: Instance, directory: Path
) -> None:
    place = directory / "i"
    shutil.copytree(stopped.directory, place)
    assert without_reader(["status", "--config", str(place / "logd.toml"), "--exit-code"]).code == 3
    verify = ["verify", "--config", str(place / "logd.toml")]
    assert without_reader(verify).code == 0
    database = connect(place / "activity.db", read_key(place / "logd.key"))
    database.execute("UPDATE event SET ts_ns = ts_ns + 1 WHERE id = 2")
    database.close()
    done = without_reader(verify)
    assert done.code == 1, done
    assert "not whole" in done.stderr
    assert without_reader(["conformance", "/bin/false"]).code == 1
    # One that only prints ends with its reader, as in `logd query | head`.
    assert without_reader(["query", "--config", str(place / "logd.toml")]).code == 0


def test_a_restore_that_is_not_confirmed_is_no_failed_check(
    stopped: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.commands.restore._confirmed", lambda: False)
    before = (stopped.directory / "activity.db").read_bytes()
    out = stopped.cli("restore", str(stopped.directory.parent / "backup.db"), code=130)
    assert "not confirmed, so nothing was done" in out
    assert (stopped.directory / "activity.db").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget", "7"),
        ("forget", "--user-file", "-", "--yes"),
        ("person", "--user-file", "-"),
        ("restore", "BACKUP"),
    ],
)
def test_without_standard_input_there_is_nothing_to_read_and_none_to_ask(
    arguments: tuple[str, ...], stopped: Instance
) -> None:
    backup = str(stopped.directory.parent / "backup.db")
    done = forked_cli.run(
        line(stopped, *(backup if part == "BACKUP" else part for part in arguments)), stdin=None
    )
    assert done.code == 2, done
    assert "internal error" not in done.stderr


def test_without_standard_input_there_are_no_anchors(stopped: Instance) -> None:
    done = forked_cli.run(line(stopped, "verify", "--anchors", "-"), stdin=None)
    assert done.code == 75, done
    assert "no anchors were found" in done.stderr


@pytest.mark.parametrize("name", ["query", "export"])
def test_a_property_that_is_no_text_is_refused(name: str, stopped: Instance) -> None:
    """Python passes bytes that are not of the locale as lone surrogates."""
    for where in ("\udcff=1", "a=\udcff"):
        done = forked_cli.run(line(stopped, name, "--where", where))
        assert done.code == 2, done
        assert "is not valid text (UTF-8)" in done.stderr


@pytest.mark.parametrize("name", ["query", "export"])
def test_a_property_is_understood_in_the_c_locale(
    name: str, stopped: Instance, directory: Path
) -> None:
    (out := directory / "out").touch()
    where = "sch\udcc3\udcbcler=7"
    done = forked_cli.run(
        line(stopped, name, "--format", "jsonl", "--where", where), stdout=str(out)
    )
    assert done.code == 0, done
    assert len(out.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("export", "-o", "made"), ("backup", "made"), ("init", "made")]
)
def test_a_working_directory_that_is_gone_is_named(
    arguments: tuple[str, ...], stopped: Instance, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := directory / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    name, *others = arguments
    done = forked_cli.run([name, *others] if name == "init" else line(stopped, name, *others))
    assert done.code == 2, done
    assert "made': the working directory: " in done.stderr


def test_a_configuration_under_a_path_that_is_no_text_is_named(
    stopped: Instance, directory: Path
) -> None:
    place = Path(os.fsdecode(os.fsencode(directory) + b"/\xff"))
    shutil.copytree(stopped.directory, place)
    for name in ("query", "status", "verify", "run"):
        done = forked_cli.run([name, "--config", str(place / "logd.toml")])
        assert done.code == 78, done
        assert r"\udcff/logd.toml: this path is not valid text" in done.stderr


@needs_users
@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "FILE"),
        ("verify", "--anchors", "FILE"),
        ("person", "--user-file", "FILE"),
        ("forget", "--user-file", "FILE"),
    ],
)
def test_a_file_of_others_that_a_command_is_to_read_is_77(
    arguments: tuple[str, ...], stopped: Instance, directory: Path
) -> None:
    directory.chmod(0o755)
    (folder := directory / "closed").mkdir(0o700)
    (file := folder / "file").write_text("7")
    named = [str(file) if part == "FILE" else part for part in arguments]
    done = forked_cli.run(line(stopped, *named), user=STRANGER)
    assert done.code == 77, done
    assert f"{folder} is " in done.stderr
