"""Every cell of the threat model in systemd/README.md names a test, or is marked open (rule 12)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.instance import ROOT, Instance, check_sums, until
from tests.support.namespaces import needs_users

PAGE = ROOT / "systemd" / "README.md"
# Rows and columns of each table of the threat model: what may be done, and who can forge a head.
TABLES = [(6, 6), (3, 3)]


def all_test_names() -> set[str]:
    """Every test function of the tree."""
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    return names


def threat_tables() -> list[list[list[str]]]:
    """The rows of each table, without its head."""
    section = PAGE.read_text().split("## Threat model")[1]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in tables
    ]


def test_every_cell_of_the_threat_model_is_tested_or_declared_open() -> None:
    tables = threat_tables()
    assert [(len(rows), len(rows[0])) for rows in tables] == TABLES
    for rows in tables:
        for row in rows:
            assert len(row) == len(rows[0]), row
            for cell in row[1:]:
                assert "tested" in cell or "open" in cell or cell == "-", (row[0], cell)


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert len(named) > 10
    assert named - all_test_names() == set()


def as_nobody(code: str, *arguments: str) -> str:
    """Runs Python as a user without rights, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys\n{code}", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_users
def test_a_user_outside_cannot_write_to_the_socket(instance: Instance) -> None:
    """The socket's permissions refuse it, also if its directory is open."""
    for path in (instance.directory, instance.directory.parent):
        path.chmod(0o755)
    instance.start()
    output = as_nobody(
        "from logd_client import Client\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "c = Client(sys.argv[1])\nprint(c.emit('page_view'), c.stats()['refused'])\n",
        instance.socket,
    )
    assert output.split() == ["False", "1"]
    check_sums(instance.status(), attempted=1, accepted=0, refused=1)
    assert instance.status()["quarantined"] == 0


@needs_users
def test_a_user_outside_can_neither_read_nor_remove_an_outbox(instance: Instance) -> None:
    """In a directory that is open to many users it cannot even list the names."""
    instance.configure(many_users=True, socket_mode="0666")
    for path in (instance.directory, instance.directory.parent):
        path.chmod(0o711)
    instance.start()
    code = (
        "from logd_client import Client\nc = Client(sys.argv[1])\nc.emit('page_view')\n"
        "path = os.readlink(f'/proc/self/fd/{c._producers.current.outbox._fd}')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "    for attempt in (lambda: open(path, 'rb'), lambda: os.unlink(path),\n"
        "                    lambda: os.rename(path, path + 'x'),\n"
        "                    lambda: os.listdir(os.path.dirname(path))):\n"
        "        try: attempt(); print('allowed')\n"
        "        except PermissionError: print('denied')\n"
        "    sys.stdout.flush(); os._exit(0)\n"
        "os.waitpid(pid, 0)\nassert c.flush(20)\n"
    )
    assert as_nobody(code, instance.socket).split() == ["denied"] * 4
    until(lambda: instance.status()["stored"] == 1, "stored")
    check_sums(instance.status(), attempted=1, accepted=1)
    assert Path(instance.config.outbox_directory).stat().st_mode & 0o7777 == 0o3733
