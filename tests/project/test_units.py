"""Static checks of the unit files: `systemd-analyze`, restarts, timers, configuration, commands.

tests/systemd boots them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from logd.config.settings import parse
from logd.config.table import SECTIONS, SETTINGS, template
from logd.errors import EXIT_SOFTWARE, EXITS
from tests.support.instance import ROOT
from tests.systemd.page import PAGE, commands_by_section, lines

FOLDER = ROOT / "systemd"
KINDS = ("service", "socket", "timer", "target", "mount")
UNITS = sorted(path for kind in KINDS for path in FOLDER.glob(f"*.{kind}"))
SERVICES = [path for path in UNITS if path.suffix == ".service"]
# In tenths: an exposure of 1.0. systemd-journald has 4.3.
EXPOSURE_MAX = 10
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed, with a Python that exists on this machine."""
    for unit in UNITS:
        text = unit.read_text().replace("/usr/local/lib/logd/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@needs_systemd
def test_systemd_analyze_reports_nothing_about_the_units(units: Path) -> None:
    """It exits with 0 even for an unknown key, so its output must be empty."""
    done = analyze("verify", *(f"./{unit.name}" for unit in UNITS), folder=units)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@needs_systemd
@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_every_service_has_an_exposure_below_the_limit(units: Path, service: Path) -> None:
    done = analyze(
        "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", f"./{service.name}",
        folder=units,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"Overall exposure level for .*: 0\.\d SAFE", done.stdout)


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_every_sandbox_has_what_the_score_does_not_count(service: Path) -> None:
    """No core file, no removal of outboxes by RemoveIPC=, and a read-only /run."""
    text = service.read_text()
    for line in ("LimitCORE=0", "ReadOnlyPaths=/run", "ProtectSystem=strict"):
        assert f"\n{line}\n" in text
    assert "\nRemoveIPC=no\n" in text or "\nDynamicUser=yes\n" in text
    assert ("\nDynamicUser=yes\n" in text) == (service.stem == "logd-hold")
    if "LoadCredential=" in text:
        assert "\n#LoadCredentialEncrypted=logd.key:" in text


def test_neither_a_cleaner_nor_a_stop_removes_runtime_files() -> None:
    """systemd-tmpfiles cleans where an age is given; a stop removes what RuntimeDirectory= made."""
    for line in (FOLDER / "tmpfiles.d" / "logd.conf").read_text().splitlines():
        if line and not line.startswith("#"):
            kind, path, _mode, _user, _group, age, *rest = line.split()
            assert (kind, age, rest) == ("d", "-", []), path
    for unit in UNITS:
        assert "RuntimeDirectory=" not in re.sub("^#.*", "", unit.read_text(), flags=re.MULTILINE)
    for socket in (FOLDER / "logd.socket", FOLDER / "logd-query.socket"):
        assert "RemoveOnStop=" not in socket.read_text()


def test_a_restart_is_tried_where_it_may_help_and_nowhere_else() -> None:
    text = (FOLDER / "logd.service").read_text()
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert prevented is not None
    in_vain = {code for code, end in EXITS.items() if end.restart.startswith("no")}
    # 70 is an internal error, which may be temporary; 243 is systemd's exit code for a missing key.
    assert {int(code) for code in prevented[1].split()} == in_vain - {EXIT_SOFTWARE} | {243}


TIMERS = [path for path in UNITS if path.suffix == ".timer"]
# Zones whose clocks go forward at two, one or midnight, and by half an hour or two hours.
FORWARD = {
    "Europe/Berlin": "2027-03-28",
    "Europe/London": "2027-03-28",
    "America/New_York": "2027-03-14",
    "America/Havana": "2027-03-14",
    "Asia/Beirut": "2027-03-28",
    "Australia/Lord_Howe": "2026-10-04",
    "Antarctica/Troll": "2027-03-28",
}


def runs(zone: zoneinfo.ZoneInfo, day: date, at: time) -> int:
    """How often that time occurs in that night: perhaps not, or twice, when the clocks change."""
    local = datetime.combine(day, at)
    both = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sum(moment.astimezone(zone).replace(tzinfo=None) == local for moment in both)


def test_every_timer_elapses_exactly_once_in_every_night() -> None:
    zones = zoneinfo.available_timezones()
    if not zones >= FORWARD.keys():
        pytest.skip("this machine does not have the time zones")
    texts = [timer.read_text() for timer in TIMERS]
    times = [
        time.fromisoformat(re.findall(r"^OnCalendar=\*-\*-\* (\d\d:\d\d)$", text, re.MULTILINE)[0])
        for text in texts
    ]
    nights = [(zoneinfo.ZoneInfo(name), date.fromisoformat(day)) for name, day in FORWARD.items()]
    for zone, day in nights:
        tried = {
            runs(zone, day, time(minutes // 60, minutes % 60)) for minutes in range(0, 240, 10)
        }
        assert 0 in tried, f"{zone}: no time is missing on {day}"
    for zone in map(zoneinfo.ZoneInfo, zones):
        days = [date(2027, 1, 1) + timedelta(days=number) for number in range(365)]
        noons = [datetime.combine(day, time(12), zone).utcoffset() for day in days]
        nights += [(zone, days[n]) for n in range(1, 365) if noons[n] != noons[n - 1]]
    assert len(nights) > 200
    assert {runs(zone, day, at) for zone, day in nights for at in times} == {1}


@pytest.mark.parametrize("timer", TIMERS, ids=lambda path: path.stem)
def test_what_runs_at_night_is_ordered_after_a_synchronised_clock(timer: Path) -> None:
    for unit in (timer, timer.with_suffix(".service")):
        after = re.findall(r"^After=(.*)$", unit.read_text(), re.MULTILINE)
        assert "time-sync.target" in " ".join(after).split(), unit.name
        # A passive target: only the provider may start it (systemd.special(7)).
        assert not re.search(r"^(Wants|Requires)=.*time-sync", unit.read_text(), re.MULTILINE)


# Settings that a service has with a value or comment of its own, or not at all.
OWN_LINES = {
    "database", "key_file", "socket", "socket_mode", "query_socket", "query_socket_mode",
    "query_group", "metrics", "metrics_socket_mode", "outbox_directory", "many_users",
    "backup_directory", "anchor_file",
}  # fmt: skip


def test_the_installed_configuration_has_every_setting_of_the_template_but_modes() -> None:
    """As a service, the modes of the sockets are set in the socket units."""

    def settings(text: str) -> dict[str, object]:
        table: dict[str, object] = {}
        for line in text.splitlines():
            if re.match(r"(# )?[a-z_]+ = ", line):
                table |= tomllib.loads(line.removeprefix("# "))
        return table

    text = (FOLDER / "logd.toml").read_text()
    modes = {"socket_mode", "query_socket_mode"}
    assert settings(text).keys() == settings(template()).keys() - modes
    config = parse(text, Path("/etc/logd/logd.toml"))
    assert str(config.key_file) == "/etc/logd/logd.key"
    assert config.many_users


def test_the_installed_configuration_has_the_lines_of_the_template_but_for_its_own_values() -> None:
    lines = (FOLDER / "logd.toml").read_text().splitlines()
    text = " ".join(line.removeprefix("# ") for line in lines)
    for section in SECTIONS[1:]:
        own = {"Outboxes hold", ""}  # the installed outboxes are on a tmpfs of their own
        if section.introduction[:13] not in own:
            assert section.introduction in text
    for name, setting in SETTINGS.items():
        line = next((line for line in lines if re.match(rf"(# )?{name}[ .]", line)), None)
        if name in OWN_LINES:
            assert line != setting.line(commented_out=setting.is_commented_out), name
        else:
            assert line == setting.line(commented_out=setting.is_commented_out), name


def test_an_install_without_a_suitable_python_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    """The error is one line."""
    home = tmp_path / "home"
    done = subprocess.run(
        [FOLDER / "install", "install"],
        env={"PATH": "/usr/bin:/bin", "DESTDIR": str(home), "PYTHON": "/nowhere/python3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Python 3.11 or later is needed" in done.stderr
    assert not home.exists()


def test_every_section_with_commands_is_run_by_a_test() -> None:
    """tests/systemd/test_page.py runs them, section by section, in a booted systemd."""
    tests = (ROOT / "tests/systemd/test_page.py").read_text()
    tests += (ROOT / "tests/systemd/conftest.py").read_text()
    sections = commands_by_section()
    assert len(sections) >= 5
    for heading in sections:
        assert f'"{heading}"' in tests, heading


def test_every_command_in_the_text_is_in_a_block_that_is_run() -> None:
    run = {command for commands in commands_by_section().values() for command in commands}
    text = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`((?:systemctl|logd|journalctl|classroom) [^`]+)`", text):
        command = " ".join(span.split())
        assert any(line.startswith(command) for line in run) or command in PROSE, command


# Commands that the text mentions without running them.
PROSE = {
    *("logd init DIR", "logd query", "logd forget 17 --dry-run"),
    "classroom forget-user 17",
}


def test_commands_are_taken_from_a_block_as_a_shell_would() -> None:
    block = "a b  # why\n# only words\nc \\\n    --long   d\n\n"
    assert lines(block) == ["a b", "c --long d"]
