"""What each line of the units, tmpfiles, sysusers and sysctl files protects.

A removed or changed line fails here, and so does a new one without a reason in a table.
tests/systemd boots the units and tests their effect.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logd.config.settings import Config
from logd.serve.loop import DESCRIPTORS_RESERVED
from tests.project.unit_lines import OWN, PLAIN, SANDBOX
from tests.support.instance import ROOT

FOLDER = ROOT / "systemd"
UNITS = sorted(
    path
    for kind in ("service", "socket", "timer", "target", "mount")
    for path in FOLDER.glob(f"*.{kind}")
)
SERVICES = [path.name for path in UNITS if path.suffix == ".service"]

# A key, all of its values in order, and what they protect.


def parsed(path: Path) -> dict[str, list[str]]:
    """Every key of a unit with its values, whatever its section; no key is in two."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_every_unit_is_in_the_table() -> None:
    assert {path.name for path in UNITS} == set(OWN)


@pytest.mark.parametrize("unit", OWN)
def test_each_line_of_a_unit_protects_what_the_table_says(unit: str) -> None:
    expected = dict(SANDBOX if unit in SERVICES else {}) | OWN[unit]
    found = parsed(FOLDER / unit)
    for key, row in expected.items():
        if row is None:
            assert key not in found, f"{unit}: {key}= is there"
        elif row[0]:
            assert found.get(key) == row[0], f"{unit}: {key}= has changed; it protects: {row[1]}"
    unexplained = found.keys() - expected.keys() - PLAIN
    assert not unexplained, f"{unit}: add to this test what these protect: {unexplained}"


def test_others_can_neither_list_the_outboxes_nor_execute_there_nor_fill_memory() -> None:
    options = parsed(FOLDER / "run-logd-writers-outboxes.mount")["Options"][0].split(",")
    assert {"mode=3733", "uid=logd", "gid=logd", "nosuid", "nodev", "noexec"} <= set(options)
    (size,) = (int(option[5:-1]) for option in options if option.startswith("size="))
    assert 0 < size <= 50, "in percent of the memory"
    (inodes,) = (option for option in options if option.startswith("nr_inodes="))
    assert re.fullmatch(r"nr_inodes=\d{1,2}k", inodes)


def test_limits_of_the_daemon_have_room_for_what_its_configuration_allows() -> None:
    lines = parsed(FOLDER / "logd.service")
    assert int(lines["LimitNOFILE"][0]) >= Config.outboxes_max + DESCRIPTORS_RESERVED
    assert int(lines["TimeoutStopSec"][0][:-1]) >= 2 * Config.stop_timeout_s


def test_a_key_that_systemd_decrypts_takes_the_place_of_the_plain_one() -> None:
    assert parsed(FOLDER / "encrypted-key.conf") == {
        "LoadCredential": [""],
        "LoadCredentialEncrypted": ["logd.key:/etc/logd/logd.key.cred"],
    }
    # Its name sorts behind the other's, which takes away all plain ones.
    assert parsed(FOLDER / "encrypted-signing-key.conf") == {
        "LoadCredentialEncrypted": ["logd-signing.key:/etc/logd/logd-signing.key.cred"],
    }
    assert sorted(path.name for path in FOLDER.glob("encrypted-*.conf")) == [
        "encrypted-key.conf",
        "encrypted-signing-key.conf",
    ]


def rows(path: str) -> list[list[str]]:
    lines = (FOLDER / path).read_text().splitlines()
    return [re.sub(r'"[^"]*"', "-", line).split() for line in lines if line and line[0] != "#"]


def test_folders_are_private_and_the_group_can_enter_that_of_the_outboxes() -> None:
    assert rows("tmpfiles.d/logd.conf") == [
        ["d", "/run/logd", "0755", "logd", "logd", "-"],  # sockets have modes of their own
        ["d", "/run/logd/writers", "0710", "logd", "logd-write", "-"],  # may be entered, not listed
        ["d", "/var/lib/logd", "0700", "logd", "logd", "-"],
        ["d", "/var/backups/logd", "0700", "logd", "logd", "-"],
        ["d", "/var/lib/classroom", "0700", "classroom", "classroom", "-"],
    ]


def test_the_site_joins_both_access_groups_and_no_user_joins_logd_s() -> None:
    """The fifth column is the home, the sixth the shell: without one neither user can log in."""
    assert rows("sysusers.d/logd.conf") == [
        ["u", "logd", "-", "-", "/var/lib/logd", "-"],
        ["g", "logd-write", "-"],
        ["g", "logd-read", "-"],
        ["u", "classroom", "-", "-", "/var/lib/classroom", "-"],
        ["m", "classroom", "logd-write"],
        ["m", "classroom", "logd-read"],
    ]


def test_the_kernels_queue_holds_a_second_of_events_for_clients_without_an_outbox() -> None:
    (setting,) = rows("sysctl.d/60-logd.conf")
    assert setting[0] == "net.unix.max_dgram_qlen"
    assert int(setting[2]) >= 2000


@pytest.mark.parametrize("program", ["logd", "classroom"])
def test_a_command_imports_nothing_of_the_callers_directory_or_environment(program: str) -> None:
    text = (FOLDER / "bin" / program).read_text()
    assert "/usr/local/lib/logd/bin/python -I -m " in text
