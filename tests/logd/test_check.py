"""`logd check` reports what is wrong, with a remedy; the facts are passed in."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from logd.config import settings
from logd.status.checks import check, facts
from logd.status.checks.facts import Facts, File
from logd.status.checks.findings import FAIL, OK, WARN, Finding, lines, worst
from logd.status.checks.machine import Swap
from logd.status.disk import Disk
from tests.support.instance import ROOT, Instance, check_sums, emitters
from tests.support.namespaces import needs_users

NS = 10**9
NOW_NS = 1_762_178_700 * NS
DISK = Disk(10**9, 10**6, free_bytes=10**11, total_bytes=10**12, days_left=300.0)
STATE: dict[str, Any] = {
    "trouble": None, "schema": 2, "room_s": 7200.0, "last_stored_ns": NOW_NS - NS,
    "disk": asdict(DISK), "integrity": {"answer": "whole", "at_ns": NOW_NS - 3600 * NS},
}  # fmt: skip


def file(path: str, kind: str | None, mode: int, group: str = "logd") -> File:
    return File(path, kind, mode, 990, "logd", group)


GOOD = Facts(
    user="root",
    uid=0,
    now_ns=NOW_NS,
    config=File("/etc/logd/logd.toml", "file", 0o644, 0, "root", "root"),
    key=File("/etc/logd/logd.key", "file", 0o600, 0, "root", "root"),
    key_problem=None,
    key_handed_over=False,
    signing_key=File("/etc/logd/logd-signing.key", "file", 0o600, 0, "root", "root"),
    signing_key_problem=None,
    has_signing_key=True,
    heads_signed=True,
    folder=file("/var/lib/logd", "directory", 0o700),
    socket=file("/run/logd/logd.sock", "socket", 0o660, "logd-write"),
    query_socket=file("/run/logd/query.sock", "socket", 0o660, "logd-read"),
    outboxes=file("/run/logd/outboxes", "directory", 0o3733),
    socket_mode=0o660,
    many_users=True,
    outboxes_max=4000,
    state=STATE,
    state_problem=None,
    running_pid=4711,
    inherited=True,
    queue_datagrams=None,
    queue_datagrams_now=513,
    open_files=8192,
    core_bytes=0,
    synchronised=True,
    clock_problem=None,
    outbox_kind="tmpfs",
    outbox_options=("rw", "noswap"),
    outbox_free_bytes=2**31,
    remove_ipc=True,
    outbox_users=(),
    swaps=(),
    hibernation=False,
)


def state(**changed: Any) -> Facts:
    return replace(GOOD, state=STATE | changed)


def disk(**changed: Any) -> Facts:
    return state(disk=asdict(replace(DISK, **changed)))


def found(of: Facts, name: str) -> list[Finding]:
    return [finding for finding in check.judge(of) if finding.name == name]


def test_a_machine_as_it_should_be_has_nothing_to_do() -> None:
    findings = check.judge(GOOD)
    assert [finding for finding in findings if finding.verdict != OK or finding.do] == []
    assert worst(findings) == OK
    names = {finding.name for finding in findings}
    assert names == {
        "config", "key", "signing key", "folder", "daemon", "socket", "reports", "outboxes", "room",
        "removeipc", "disk", "integrity", "queue", "open files", "core dumps", "clock", "swap",
        "hibernation",
    }  # fmt: skip


FILE: dict[str, Any] = {
    "name": "token", "path": "/run/logd/outboxes/token", "problem": None, "since_ns": None,
    "remedy": "logd puts it back", "restored": 0, "restored_ns": None,
}  # fmt: skip
DAY_NS = 86_400 * NS


def files(**changed: Any) -> Facts:
    return replace(GOOD, runtime_files=(FILE, FILE | changed))


PLAIN = Swap("/dev/sda2", encrypted=False)
IN_SHM = replace(GOOD, outboxes=file("/dev/shm/logd-990-ab", "directory", 0o700))


@pytest.mark.parametrize(
    ("name", "of", "verdict", "says", "do"),
    [
        ("config", replace(GOOD, config=replace(GOOD.config, mode=0o664)), FAIL,
         "users other than root can change it (mode 0664)", "chmod go-w /etc/logd/logd.toml"),
        ("key", replace(GOOD, key_problem="/etc/logd/logd.key: the key is open to others"), FAIL,
         "open to others", "restore"),
        ("key", replace(GOOD, key_problem="x: cannot be read: Permission denied", user="ann"), WARN,
         "ann cannot read it", "as root"),
        ("key", replace(GOOD, key_handed_over=True), OK,
         "passed by the service manager; it opens the database", ""),
        ("signing key", GOOD, OK, "the heads of the trail are signed", ""),
        ("signing key", replace(GOOD, heads_signed=None, running_pid=None), OK,
         "logd-signing.key: it signs the heads", ""),
        ("signing key", replace(GOOD, heads_signed=False), WARN,
         "the running daemon signs no head", "restart logd"),
        ("signing key", replace(GOOD, has_signing_key=False, heads_signed=False), WARN,
         "/etc/logd/logd-signing.key: does not exist, so the heads of the trail are not signed",
         "logd genkey, then restart logd"),
        ("signing key", replace(GOOD, signing_key_problem="x: the key is open to others"), FAIL,
         "open to others", "until then it signs no head"),
        ("signing key", replace(GOOD, signing_key_problem="Permission denied", user="ann"), WARN,
         "ann cannot read it", "as root"),
        ("folder", replace(GOOD, folder=replace(GOOD.folder, mode=0o770)), FAIL,
         "can replace the database", "chmod 0700 /var/lib/logd"),
        ("folder", replace(GOOD, folder=replace(GOOD.folder, kind=None)), FAIL,
         "no such directory", "install -d -m 0700"),
        ("folder", replace(GOOD, folder=replace(GOOD.folder, kind="?"), user="ann"), WARN,
         "ann has no access", "as root"),
        ("daemon", replace(GOOD, running_pid=None), WARN, "not running", "systemctl start"),
        ("daemon", state(trouble={"what": "disk full", "since_ns": 1}), FAIL,
         "pid 4711 cannot store events: disk full", "follow that message"),
        ("socket", replace(GOOD, socket=replace(GOOD.socket, kind=None)), FAIL,
         "does not exist", "start"),
        ("socket", replace(GOOD, socket=replace(GOOD.socket, kind=None), running_pid=None), WARN,
         "does not exist", "start"),
        ("socket", replace(GOOD, socket=replace(GOOD.socket, kind="file")), FAIL,
         "is not a socket", "move"),
        ("socket", replace(GOOD, socket=replace(GOOD.socket, mode=0o666)), WARN,
         "every user of this machine can log", "socket_mode"),
        ("reports", replace(GOOD, query_socket=replace(GOOD.query_socket, kind="?")), WARN,
         "has no access", "root"),
        ("files", files(), OK, "all 2 files that the daemon depends on are unchanged", ""),
        ("files", files(problem="not there"), FAIL,
         "token, /run/logd/outboxes/token: not there", "logd puts it back"),
        ("files", files(restored=2, restored_ns=NOW_NS - DAY_NS + NS), WARN,
         "restored by logd (2 times)", "find out what removes it"),
        ("files", files(restored=2, restored_ns=NOW_NS - DAY_NS), OK, "all 2", ""),
        ("outboxes", replace(GOOD, outboxes=replace(GOOD.outboxes, kind=None)), FAIL,
         "does not exist, so clients have no outbox", "creates it again"),
        ("outboxes", replace(GOOD, outbox_kind="ext4"), FAIL, "is on ext4, not in memory", "tmpfs"),
        ("outboxes", replace(GOOD, outbox_kind=None), FAIL, "on nothing", "tmpfs"),
        ("outboxes", replace(GOOD, outboxes=replace(GOOD.outboxes, kind="file")), FAIL,
         "not a directory", "move"),
        ("outboxes", replace(GOOD, outboxes=replace(GOOD.outboxes, uid=1, owner="daemon")), FAIL,
         "owner daemon, but logd owns the database", "chown logd"),
        ("outboxes", replace(GOOD, outbox_free_bytes=1000), FAIL,
         "free, too little for another process", "remount"),
        ("outboxes", replace(GOOD, outbox_free_bytes=69_631), FAIL, "another process", "remount"),
        ("outboxes", replace(GOOD, outbox_free_bytes=69_632), WARN,
         "too little for another full outbox of 8.0 MiB", "remount"),
        ("outboxes", replace(GOOD, outbox_free_bytes=8 * 2**20), OK,
         "space for 120 more processes, or for 1 full outboxes", ""),
        ("room", state(room_s=1800.0), WARN, "full in 30 min (0.5 h)", "outbox_bytes"),
        ("room", state(room_s=0.0), FAIL, "full in less than a second", "OUTBOX_BYTES"),
        ("room", state(room_s=None), OK, "no outbox fills up", ""),
        ("removeipc", replace(IN_SHM, outbox_users=("ann",)), WARN,
         "when ann log out, logind removes", "loginctl enable-linger ann"),
        ("removeipc", replace(IN_SHM, outbox_users=("ann",), remove_ipc=False), OK, "", ""),
        ("removeipc", IN_SHM, OK, "services that log must not set RemoveIPC=", ""),
        ("disk", disk(free_bytes=10**6), FAIL, "976.6 KiB free", "free some space now"),
        ("disk", disk(free_bytes=10**9), WARN, "953.7 MiB free", "logd prune"),
        ("disk", disk(days_left=13.0), WARN, "enough for 13 days", "logd prune"),
        ("disk", disk(free_bytes=None), WARN, "unknown", "df"),
        ("integrity", state(integrity=None), WARN, "never verified", "logd verify"),
        ("integrity", state(integrity={"answer": "whole", "at_ns": NOW_NS - 9 * DAY_NS}), WARN,
         "whole when verified 2025-10-25", "list-timers"),
        ("integrity", state(integrity={"answer": "not_proven", "at_ns": NOW_NS}), WARN,
         "whole in itself", "restore nothing"),
        ("integrity", state(integrity={"answer": "not_whole", "at_ns": NOW_NS}), FAIL,
         "not whole when verified 2025-11-03", "change nothing until the cause is known"),
        ("database", replace(GOOD, state=None, state_problem="it is of a newer logd"), FAIL,
         "newer logd", "nothing can be stored"),
        ("queue", replace(GOOD, queue_datagrams_now=11), WARN,
         "11 events of one datagram each, the limit of net.unix.max_dgram_qlen now",
         "sysctl -w net.unix.max_dgram_qlen=512"),
        ("queue", replace(GOOD, queue_datagrams=11, inherited=False), WARN,
         "11 events of one datagram each, the limit of the socket", "systemctl restart logd"),
        ("queue", replace(GOOD, queue_datagrams_now=None), WARN, "unknown", "on the host"),
        ("open files", replace(GOOD, open_files=1024), WARN,
         "1,024 of the daemon, too few for outboxes_max = 4,000", "LimitNOFILE="),
        ("open files", replace(GOOD, open_files=30, running_pid=None), FAIL,
         "30 of this shell", "LimitNOFILE="),
        ("open files", replace(GOOD, open_files=-1), OK, "no limit", ""),
        ("core dumps", replace(GOOD, core_bytes=-1), WARN, "to disk", "LimitCORE=0"),
        ("clock", replace(GOOD, clock_problem="it says 2028"), FAIL, "2028: no events are pruned",
         "--yes"),
        ("clock", replace(GOOD, synchronised=False), WARN, "not synchronised", "set-ntp"),
        ("clock", replace(GOOD, synchronised=None), WARN, "unknown", "timedatectl"),
        ("clock", state(last_stored_ns=NOW_NS + 90 * NS), WARN,
         "the newest event was stored 1 min 30 s in the future", "timedatectl"),
        ("swap", replace(GOOD, swaps=(PLAIN,), outbox_options=("rw",)), WARN,
         "/dev/sda2: not encrypted, as far as logd can tell; events", "noswap"),
        ("swap", replace(GOOD, swaps=(PLAIN,)), WARN, "it excludes the outboxes", "encrypt it"),
        ("swap", replace(GOOD, swaps=(Swap("/swap", encrypted=None),), outbox_options=()), WARN,
         "/swap: not encrypted, as far as", "noswap"),
        ("swap", replace(GOOD, swaps=(Swap("/dev/zram0", encrypted=True, memory=True),)), OK,
         "encrypted, or in memory", ""),
        ("hibernation", replace(GOOD, swaps=(PLAIN,), hibernation=True), WARN,
         "would write all memory to /dev/sda2 in plain text", "systemctl mask hibernate.target"),
        ("hibernation", replace(GOOD, hibernation=True), OK, "no swap to write memory to", ""),
        ("hibernation", replace(GOOD, swaps=(Swap("/dev/dm-1", encrypted=True),), hibernation=True),
         OK, "to encrypted swap", ""),
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_is_found_with_what_to_do(
    name: str, of: Facts, verdict: str, says: str, do: str
) -> None:
    finding = next(
        (finding for finding in found(of, name) if finding.verdict != OK), found(of, name)[0]
    )
    assert finding.verdict == verdict, finding
    assert says in finding.says
    assert (do in finding.do) if do else finding.do == ""
    others = [f for f in check.judge(of) if f.name != name and f.verdict == FAIL]
    assert others == []


def test_who_may_send_but_has_no_outbox_is_a_warning() -> None:
    findings = found(replace(GOOD, many_users=False), "outboxes")
    assert [finding.verdict for finding in findings] == [OK, WARN]
    assert "have no outbox" in findings[1].says
    assert "many_users = true" in findings[1].do


def test_a_queue_that_was_raised_after_the_socket_was_made_is_distinguished() -> None:
    findings = found(replace(GOOD, queue_datagrams=11, inherited=False), "queue")
    assert "raised since, to 512" in findings[-1].says
    (inherited,) = found(GOOD, "queue")
    assert "a socket keeps the limit from when systemd created it" in inherited.says


def test_the_verdict_of_all_is_the_worst_and_each_line_says_what_to_do() -> None:
    findings = [
        Finding("a", OK, "fine"),
        Finding("b", WARN, "odd", "this"),
        Finding("c", FAIL, "bad"),
    ]
    assert [worst(findings[:n]) for n in (1, 2, 3)] == [OK, WARN, FAIL]
    assert list(lines(findings)) == [
        "ok    a            fine", "warn  b            odd", "                   -> this",
        "fail  c            bad", "1 ok, 1 warn, 1 fail",
    ]  # fmt: skip


# -- really --------------------------------------------------------------------------------------


def checks(instance: Instance, code: int = 0) -> dict[str, dict[str, str]]:
    said = json.loads(instance.cli("check", "--json", code=code).splitlines()[0])
    return {finding["name"]: finding for finding in said["checks"]}


def test_it_works_with_the_daemon_down_and_up_and_changes_nothing(instance: Instance) -> None:
    before = {path.name for path in instance.directory.iterdir()}
    down = checks(instance)
    assert down["daemon"]["says"] == "not running"
    assert {path.name for path in instance.directory.iterdir()} == before
    daemon = instance.start()
    with emitters(instance, count=1, events=10) as (emitter,):
        emitter.finish()
    check_sums(instance.settle(), attempted=10, accepted=10)
    up = checks(instance)
    assert up["daemon"]["says"] == f"running, pid {daemon.popen.pid}"
    assert "it opens the database" in up["key"]["says"]
    assert "it signs the heads of the trail" in down["signing key"]["says"]
    assert up["signing key"]["says"] == "the heads of the trail are signed"
    assert (up["outboxes"]["verdict"], up["socket"]["verdict"]) == ("ok", "ok")
    assert "the limit of the socket" in up["queue"]["says"]
    assert "of the daemon" in up["open files"]["says"]
    text = instance.cli("check")
    assert text.splitlines()[0].startswith("ok    config")
    assert text.splitlines()[-1].endswith(" 0 fail")


def test_something_that_fails_ends_it_with_1(instance: Instance) -> None:
    instance.config.key_file.chmod(0o644)
    failed = checks(instance, code=1)["key"]
    assert failed["verdict"] == "fail"
    assert "chmod 600" in failed["says"]


@needs_users
def test_a_user_without_rights_gets_a_report_of_what_it_may_not_see(instance: Instance) -> None:
    instance.start()
    for path in (instance.directory, instance.directory.parent):
        path.chmod(0o711)
    code = (
        # Loaded first: the interpreter's own files may be for root only.
        "import os, sys\nfrom logd.cli import main\nmain.load_command('check')\n"
        "os.setgid(65534); os.setuid(65534)\nmain(['check', '--config', sys.argv[1]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(instance.config.path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot read it, so it is not checked" in done.stdout


def test_facts_of_an_instance_that_is_nowhere_are_facts(directory: Path) -> None:
    made = settings.parse('outbox_directory = "/nowhere/x"', directory / "none" / "logd.toml")
    nothing = facts.gather(made)
    assert (nothing.folder.kind, nothing.socket.kind) == (None, None)
    assert nothing.running_pid is None
    assert nothing.key_problem is not None and "the key cannot be read" in nothing.key_problem
    assert worst(check.judge(nothing)) == FAIL
