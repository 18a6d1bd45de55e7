"""Files that a command line names, of every kind: what each command makes of them.

None is written to but a new one, or one that --force replaces; none keeps a command waiting.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.audit import anchor_sources
from logd.audit.signed_note import Signer
from logd.cli import main
from logd.commands._command import Command
from logd.errors import EXIT_USAGE
from logd_client import Client
from tests.support import forked_cli
from tests.support.instance import Instance, check_sums, short_directory
from tests.support.namespaces import needs_users

LONG = "x" * 300
NOT_UTF_8 = "a\udcffb"
VKEY = Signer("logd/00", bytes(32)).vkey
# The arguments of each command, and whether it writes the file NAME or reads it.
WRITING = {
    "export": ("export", "--output", "NAME"),
    "export --force": ("export", "--output", "NAME", "--force"),
    "prove": ("prove", "1", "--output", "NAME"),
    "backup": ("backup", "--", "NAME"),
    "init": ("init", "--", "NAME"),
}
READING = {
    "restore": ("restore", "--yes", "--", "NAME"),
    "key": ("restore", "--yes", "good", "--key-file", "NAME"),
    "rekey": ("rekey", "--new-key-file", "NAME"),
    "head": ("verify", "--checkpoint", "NAME"),
    "proof": ("prove", "--check", "NAME", "--public-key", VKEY),
}
COMMANDS = WRITING | READING
# What is in the way, and of each command the exit code and a part of the message.
FIFO_OR_DEVICE = {
    "export": (73, "not a regular file"), "export --force": (73, "not a regular file"),
    "backup": (73, "already exists"), "init": (73, "is not a directory"),
    "restore": (73, "is not a file"), "key": (77, "not a regular file"),
    "rekey": (77, "not a regular file"),
}  # fmt: skip
FOLDER = {
    "export": (73, "is a directory"), "export --force": (73, "is a directory"),
    "restore": (73, "is not a file"), "key": (77, "not a regular file"),
    "rekey": (77, "not a regular file"),
}  # fmt: skip
EXPECTED: dict[str, dict[str, tuple[int, str]]] = {
    **dict.fromkeys(("fifo", "/dev/full", "/dev/null", "/dev/stdin"), FIFO_OR_DEVICE),
    "file": {
        "export": (73, "--force"), "backup": (73, "already exists"),
        "init": (73, "is not a directory"), "restore": (77, "cannot be decrypted"),
        "key": (77, "64 hexadecimal digits"), "rekey": (77, "64 hexadecimal digits"),
    },
    "link": {
        "export": (73, "not a regular file"), "export --force": (73, "not a regular file"),
        "backup": (73, "already exists"), "init": (73, "is not a directory"),
        "restore": (77, "cannot be decrypted"), "key": (77, "64 hexadecimal digits"),
        "rekey": (77, "64 hexadecimal digits"),
    },
    "dangling": {
        "export": (73, "not a regular file"), "export --force": (73, "not a regular file"),
        "backup": (73, "already exists"), "init": (73, "is not a directory"),
        "restore": (73, "no such file"), "key": (77, "No such file"),
        "rekey": (77, "No such file"),
    },
    **dict.fromkeys(("folder", ".", "..", "/"), FOLDER),
    "missing/x": {
        "export": (73, "No such file or directory"), "backup": (73, "No such file or directory"),
        "restore": (73, "no such file"), "key": (77, "No such file"), "rekey": (77, "No such file"),
    },
    "file/x": {
        "export": (73, "Not a directory"), "backup": (73, "Not a directory"),
        "init": (73, "Not a directory"), "restore": (73, "no such file"),
        "key": (77, "Not a directory"), "rekey": (77, "Not a directory"),
    },
    "": dict.fromkeys(COMMANDS, (EXIT_USAGE, "is empty")),
    LONG: dict.fromkeys(COMMANDS, (EXIT_USAGE, "File name too long")),
    "circle": dict.fromkeys(("key", "rekey"), (77, "Too many levels of symbolic links")),
    NOT_UTF_8: dict.fromkeys(COMMANDS, (EXIT_USAGE, "not valid text (UTF-8)")),
    "-": dict.fromkeys(
        COMMANDS.keys() - {"export", "export --force", "prove"},
        (EXIT_USAGE, "A file of that name is ./-"),
    ),
}  # fmt: skip
# What is in the way of `export` is in that of `prove`, and heads and proofs are read alike.
for rows in (FIFO_OR_DEVICE, *EXPECTED.values()):
    if "export" in rows:
        rows["prove"] = rows["export"]
for name, problem in {
    **dict.fromkeys(("fifo", "folder", "/dev/full", "."), "not a regular file"),
    **dict.fromkeys(("file", "link"), "not text in UTF-8"),
    **dict.fromkeys(("dangling", "missing/x"), "No such file"),
    **{"file/x": "Not a directory", "circle": "Too many levels of symbolic links"},
}.items():
    EXPECTED[name] |= dict.fromkeys(("head", "proof"), (65, problem))
TABLE = [(name, command) for name, commands in EXPECTED.items() for command in sorted(commands)]


@pytest.fixture(scope="module")
def stopped() -> Iterator[Instance]:
    """An instance with an event and a backup, and no daemon."""
    forked_cli.load_commands()
    directory = short_directory()
    directory.chmod(0o755)
    instance = Instance(directory / "i")
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="7")
        assert client.flush(20)
    check_sums(instance.settle(), attempted=1, accepted=1)
    instance.stop()
    instance.cli("backup", str(directory / "good"))
    yield instance
    instance.close()
    shutil.rmtree(directory)


@pytest.fixture
def here(stopped: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of every kind."""
    shutil.copy(stopped.directory.parent / "good", tmp_path / "good")
    (tmp_path / "file").write_bytes(b"theirs\xff")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    instance: Instance, name: str, command: str, stdout: str = os.devnull, user: int | None = None
) -> forked_cli.Done:
    first, *others = (name if part == "NAME" else part for part in COMMANDS[command])
    config = [] if first == "init" else ["--config", str(instance.config.path)]
    done = forked_cli.run([first, *config, *others], stdout=stdout, user=user)
    known = main.load_command(first)
    assert isinstance(known, Command)
    assert done.code in {*known.exits, EXIT_USAGE} - {1}, done
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    return done


def contents(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(("name", "command"), TABLE)
def test_a_file_that_a_command_cannot_use_is_named_and_left_as_it_is(
    stopped: Instance, here: Path, name: str, command: str
) -> None:
    before, trail = contents(here), len(stopped.events())
    code, message = EXPECTED[name][command]
    done = run(stopped, name, command)
    assert (done.code, message in done.stderr) == (code, True), done
    assert contents(here) == before
    assert len(stopped.events()) == trail, "what did not begin is not recorded"


@pytest.mark.parametrize("name", ["new", "./-", "folder/x", "=1+1", "\x1b[2J", "Łukasz 李", "a b"])
@pytest.mark.parametrize("command", ["export", "prove", "backup", "init"])
def test_a_new_file_of_any_name_is_written(
    stopped: Instance, here: Path, name: str, command: str
) -> None:
    assert run(stopped, name, command).code == 0
    assert (here / name).exists()
    assert not (here / f"{name}.partial").exists()


@pytest.mark.parametrize("command", ["export", "export --force", "prove"])
def test_a_dash_is_standard_output_for_every_command_with_an_output(
    stopped: Instance, here: Path, command: str
) -> None:
    out = here / "out"
    out.touch()
    assert run(stopped, "-", command, stdout=str(out)).code == 0
    assert (b"logd/event-proof" if command == "prove" else b'"page_view"') in out.read_bytes()
    assert not (here / "-").exists()
    assert run(stopped, "-", command, stdout="/dev/full").code == 75
    with_output = [
        name
        for name in forked_cli.COMMANDS
        if any("--output" in option.opts for option in main.load_command(name).params)
    ]
    assert with_output == ["export", "prove"]


@needs_users
@pytest.mark.parametrize("command", ["export", "prove", "backup", "init"])
def test_a_folder_that_may_not_be_written_is_77_with_whom_to_be(
    stopped: Instance, here: Path, command: str
) -> None:
    locked = here / "locked"
    locked.mkdir(mode=0o755)
    for folder in (here, *here.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    before = contents(here)
    os.chown(stopped.directory, 1000, 1000)
    for path in stopped.directory.iterdir():
        os.chown(path, 1000, 1000)
    done = run(stopped, str(locked / "x"), command, user=1000)
    assert done.code == 77, done
    assert str(locked) in done.stderr and "run it as root" in done.stderr, done
    assert contents(here) == before


def test_anchors_are_read_from_a_file_without_lines_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(3 * anchor_sources.LINE_CHARS_MAX + 1)
    with path.open() as lines:
        lengths = [len(line) for line in anchor_sources.bounded_lines(lines)]
    assert lengths == [*[anchor_sources.LINE_CHARS_MAX] * 3, 1]
