"""Access of each service from inside its sandbox, and of other users from outside."""

from __future__ import annotations

import json

import pytest

from tests.systemd.box import PYTHON, SOURCE, Box
from tests.systemd.load import SOCKET

pytestmark = pytest.mark.booted
UNITS = "/usr/local/lib/systemd/system"

# The attempts of tests/systemd/probe.py that succeed; all others fail.
REACH = {
    "logd": {"read the database", "write /var/lib/logd", "write /run/logd", "write outboxes",
             "ask for reports"},
    "logd-backup": {"read the database", "write /var/lib/logd", "list the backups",
                    "write /var/backups/logd", "ask for reports"},
    "logd-prune": {"read the database", "write /var/lib/logd", "write /run/logd",
                   "write outboxes", "ask for reports"},
    "logd-verify": {"read the database", "write /var/lib/logd", "ask for reports"},
    "logd-hold": set(),
    # Its /dev/shm is private.
    "classroom": {"read the site's database", "write /var/lib/classroom", "write outboxes",
                  "write /dev/shm", "ask for reports"},
}  # fmt: skip


def probe(box: Box, service: str) -> set[str]:
    """Returns what a process could do that runs with the settings of the service."""
    name = f"probe-{service}"
    box.run(f"cp {UNITS}/{service}.service /run/systemd/system/{name}.service")
    file = box.path(f"/run/systemd/system/{name}.service.d/probe.conf")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "[Service]\nType=oneshot\nRemainAfterExit=no\nRestart=no\nWatchdogSec=0\n"
        "ExecStartPre=\nExecStopPost=\nExecStart=\n"
        f"ExecStart={PYTHON} {SOURCE}/tests/systemd/probe.py\n"
        f"StandardOutput=truncate:/run/test/{name}\n"
    )
    box.run(f"systemctl daemon-reload && systemctl start {name}")
    return set(json.loads(box.path(f"/run/test/{name}").read_text()))


@pytest.fixture(scope="module")
def open_box(box: Box) -> Box:
    """The box with other users' files that only a sandbox protects."""
    for folder in ("/home", "/var/tmp"):
        box.run(f"cd {folder} && echo x > of-all && chmod 0666 of-all")
    return box


@pytest.mark.parametrize("service", REACH)
def test_a_service_reaches_what_it_needs_and_nothing_else(open_box: Box, service: str) -> None:
    assert probe(open_box, service) == REACH[service]


def test_every_probe_succeeds_without_a_sandbox(open_box: Box) -> None:
    """Otherwise a failed attempt in the sandbox would prove nothing."""
    could = json.loads(open_box.run(f"{PYTHON} {SOURCE}/tests/systemd/probe.py"))
    assert {*could} >= {
        "read the key", "read the database", "read the site's database", "list the backups",
        "read /etc/shadow", "list /root", "list /home", "write /etc", "write the program",
        "read /var/tmp", "write /dev/shm", "write /run/test", "use IPv4", "make namespaces",
        "see other processes",
    }  # fmt: skip


def test_the_running_site_sees_neither_key_nor_database(box: Box) -> None:
    """In the service's mounts even root cannot read them."""
    pid = box.show("classroom", "MainPID")
    for path in ("/etc/logd/logd.toml", "/var/lib/logd/activity.db", "/var/backups/logd/x"):
        output = box.run(f"nsenter --target {pid} --mount cat {path}", code=1)
        assert "denied" in output or "No such file" in output
    environment = box.path(f"/proc/{pid}/environ").read_bytes()
    assert b"CREDENTIALS_DIRECTORY" not in environment


@pytest.mark.parametrize("user", ["classroom", "app", "outsider", "nobody"])
def test_no_other_user_reads_key_database_or_backups(box: Box, user: str) -> None:
    keys = ("/etc/logd/logd.key", "/etc/logd/logd-signing.key")
    for path in (*keys, "/var/lib/logd/activity.db", "/var/backups/logd"):
        read = "ls" if path == "/var/backups/logd" else "cat"
        assert "Permission denied" in box.try_to(f"runuser -u {user} -- {read} {path}").stderr


def test_a_user_outside_the_group_cannot_log_and_cannot_fill_the_outboxes(box: Box) -> None:
    before = box.settle()
    code = (
        "from logd_client import Client; "
        f"c = Client('{SOCKET}'); print(c.emit('page_view'), c.stats()['outbox']['reason'])"
    )
    output = box.run(f'runuser -u outsider -- {PYTHON} -c "{code}"')
    assert output.startswith("False")
    assert "Permission denied" in output
    for command in ("ls /run/logd/writers/outboxes", "touch /run/logd/writers/outboxes/x"):
        assert "denied" in box.try_to(f"runuser -u outsider -- {command}").stderr
    after = box.settle()
    assert after["stored"] == before["stored"]
    assert after["quarantined"] == before["quarantined"]


@pytest.mark.parametrize(
    ("user", "answer"), [("classroom", "stored"), ("app", "Permission denied")]
)
def test_only_the_group_of_readers_is_answered(box: Box, user: str, answer: str) -> None:
    code = (
        "from logd_wire.query import QueryClient; "
        "print(QueryClient('/run/logd/query.sock', timeout_s=20).ask('summary'))"
    )
    done = box.try_to(f'runuser -u {user} -- {PYTHON} -c "{code}"')
    assert answer in done.stdout + done.stderr


def test_a_member_of_the_group_may_log_but_not_read_others_outboxes(box: Box) -> None:
    assert "denied" in box.run("runuser -u app -- ls /run/logd/writers/outboxes", code=2)
    box.run("runuser -u app -- touch /run/logd/writers/outboxes/mine")
    box.run("runuser -u classroom -- rm -f /run/logd/writers/outboxes/mine", code=1)
    box.run("runuser -u app -- rm /run/logd/writers/outboxes/mine")
