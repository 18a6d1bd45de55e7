"""Checks of an instance: files, daemon, free space. Pure: they judge gathered facts."""

from __future__ import annotations

from collections.abc import Iterator

from logd.render import format_time
from logd.status.checks.facts import Facts, File
from logd.status.checks.findings import FAIL, OK, WARN, Finding
from logd.status.text import format_duration, format_size
from logd.storage.last_verification import NOT_PROVEN, NOT_WHOLE
from logd_wire.outbox.layout import RING_BYTES_MIN, outbox_bytes

DISK_BYTES_MIN = 64 * 1024 * 1024
DISK_BYTES_WARN = 1024 * 1024 * 1024
DAYS_LEFT_MIN = 14
ROOM_S_MIN = 3600
RESTORED_NS_MAX = 86_400 * 10**9
VERIFIED_NS_MAX = 8 * 86_400 * 10**9
# Bytes of an outbox of a process that starts to log, and of a full outbox by default.
FIRST_BYTES = outbox_bytes(RING_BYTES_MIN)
OUTBOX_BYTES = 8 * 1024 * 1024


def _daemon(facts: Facts) -> Iterator[Finding]:
    trouble = facts.state and facts.state["trouble"]
    if facts.running_pid is None:
        why = f"; the last one failed: {trouble['what']}" if trouble else ""
        yield Finding("daemon", WARN, f"not running{why}", "systemctl start logd.socket logd")
    elif trouble:
        yield Finding(
            "daemon", FAIL, f"pid {facts.running_pid} cannot store events: {trouble['what']}",
            "follow that message; meanwhile events wait in the outboxes",
        )  # fmt: skip
    else:
        yield Finding("daemon", OK, f"running, pid {facts.running_pid}")


def _config(facts: Facts) -> Iterator[Finding]:
    file = facts.config
    if file.mode & 0o022:
        yield Finding(
            "config", FAIL,
            f"{file.path}: users other than {file.owner} can change it ({_mode(file)})",
            f"chmod go-w {file.path}",
        )  # fmt: skip
    else:
        yield Finding("config", OK, f"{file.path}: valid, only {file.owner} can change it")


def _key(facts: Facts) -> Iterator[Finding]:
    file = facts.key
    if facts.key_handed_over:
        where = "passed by the service manager"
    else:
        where = f"{file.path}: only {file.owner} can read it"
        if file.kind == "?" or (facts.key_problem and "Permission denied" in facts.key_problem):
            yield Finding(
                "key", WARN, f"{file.path}: {facts.user} cannot read it, so it is not checked",
                "run this check as root, or as the owner of the key",
            )  # fmt: skip
            return
    if facts.key_problem:
        yield Finding("key", FAIL, facts.key_problem, "restore the key from your copy")
    else:
        opened = "; it opens the database" if facts.state and facts.state["schema"] else ""
        yield Finding("key", OK, f"{where}{opened}; keep a copy in another place")


def _signing_key(facts: Facts) -> Iterator[Finding]:
    file, problem = facts.signing_key, facts.signing_key_problem
    if problem is not None and "Permission denied" in problem:
        yield Finding(
            "signing key", WARN, f"{file.path}: {facts.user} cannot read it, so it is not checked",
            "run this check as root, or as the owner of the key",
        )  # fmt: skip
    elif problem is not None:
        yield Finding(
            "signing key",
            FAIL,
            problem,
            "mend that, then restart logd; until then it signs no head",
        )
    elif facts.heads_signed:
        yield Finding("signing key", OK, "the heads of the trail are signed")
    elif not facts.has_signing_key:
        yield Finding(
            "signing key", WARN, f"{file.path}: does not exist, so the heads of the trail are not"
            " signed: a copy of one does not show who wrote it", "logd genkey, then restart logd",
        )  # fmt: skip
    elif facts.heads_signed is not None:
        yield Finding(
            "signing key", WARN, "the running daemon signs no head: it was started without the key",
            "restart logd; units of your own need LoadCredential= for it (systemd/README.md)",
        )  # fmt: skip
    else:
        yield Finding("signing key", OK, f"{file.path}: it signs the heads of the trail")


def _folder(facts: Facts) -> Iterator[Finding]:
    file = facts.folder
    if file.kind == "?":
        yield _inaccessible("folder", file, facts)
    elif file.kind != "directory":
        yield Finding(
            "folder", FAIL, f"{file.path}: no such directory",
            f"create it, owned by the user logd: install -d -m 0700 -o logd -g logd {file.path}",
        )  # fmt: skip
    elif file.mode & 0o022:
        yield Finding(
            "folder", FAIL, f"{file.path}: users other than {file.owner} can replace the database"
            f" ({_mode(file)})", f"chmod 0700 {file.path}",
        )  # fmt: skip
    else:
        yield Finding("folder", OK, f"{file.path}: owner {file.owner}, {_mode(file)}")


def _sockets(facts: Facts) -> Iterator[Finding]:
    for name, file in (("socket", facts.socket), ("reports", facts.query_socket)):
        if file.kind == "?":
            yield _inaccessible(name, file, facts)
        elif file.kind is None:
            verdict = WARN if facts.running_pid is None else FAIL
            yield Finding(
                name, verdict, f"{file.path}: does not exist",
                "start the daemon, or systemctl start logd.socket logd-query.socket",
            )  # fmt: skip
        elif file.kind != "socket":
            yield Finding(name, FAIL, f"{file.path}: is not a socket", "move it away")
        elif file.mode & 0o002 and name == "socket":
            yield Finding(
                name, WARN, f"{file.path}: every user of this machine can log events",
                'set socket_mode = "0660" (SocketMode=, SocketGroup= in logd.socket)',
            )  # fmt: skip
        else:
            yield Finding(name, OK, f"{file.path}: {file.owner}:{file.group}, {_mode(file)}")


def _runtime_files(facts: Facts) -> Iterator[Finding]:
    """Checks that the files that the running daemon depends on exist and are those it made."""
    if facts.running_pid is None or not facts.runtime_files:
        return
    found = False
    for file in facts.runtime_files:
        where = f"{file['name']}, {file['path']}"
        restored_ns = file["restored_ns"]
        if file["problem"]:
            found = True
            yield Finding("files", FAIL, f"{where}: {file['problem']}", file["remedy"])
        elif restored_ns is not None and facts.now_ns - restored_ns < RESTORED_NS_MAX:
            found = True
            yield Finding(
                "files", WARN, f"{where}: was removed or replaced, and restored by logd"
                f" ({file['restored']} times)", "find out what removes it: systemd-tmpfiles,"
                " RemoveIPC=, a cron job",
            )  # fmt: skip
    if not found:
        count = len(facts.runtime_files)
        yield Finding("files", OK, f"all {count} files that the daemon depends on are unchanged")


def _outboxes(facts: Facts) -> Iterator[Finding]:
    file = facts.outboxes
    if facts.outbox_kind not in ("tmpfs", "ramfs"):
        yield Finding(
            "outboxes", FAIL, f"{file.path} is on {facts.outbox_kind or 'nothing'}, not in memory:"
            " events would be written to a disk in plain text",
            "set outbox_directory to a path on a tmpfs",
        )  # fmt: skip
        return
    if file.kind == "?":
        yield _inaccessible("outboxes", file, facts)
        return
    if file.kind is None and facts.running_pid is None:
        yield Finding("outboxes", OK, f"{file.path}: in memory, created at the first start")
    elif file.kind is None:
        yield Finding(
            "outboxes", FAIL, f"{file.path}: does not exist, so clients have no outbox",
            "logd creates it again within a second; if it cannot, its log says why",
        )  # fmt: skip
    elif file.kind != "directory":
        yield Finding("outboxes", FAIL, f"{file.path}: is not a directory", "move it away")
    elif facts.folder.uid >= 0 and file.uid != facts.folder.uid:
        yield Finding(
            "outboxes", FAIL,
            f"{file.path}: owner {file.owner}, but {facts.folder.owner} owns the database",
            f"chown {facts.folder.owner} {file.path}",
        )  # fmt: skip
    elif facts.outbox_free_bytes is not None and facts.outbox_free_bytes < OUTBOX_BYTES:
        none = facts.outbox_free_bytes < FIRST_BYTES
        yield Finding(
            "outboxes", FAIL if none else WARN,
            f"{file.path}: {format_size(facts.outbox_free_bytes)} free, too little for another "
            + ("process that logs" if none else f"full outbox of {format_size(OUTBOX_BYTES)}"),
            "enlarge its tmpfs: mount -o remount,size=... ",
        )  # fmt: skip
    else:
        free = facts.outbox_free_bytes
        room = "" if free is None else (
            f", space for {free // FIRST_BYTES:,} more processes, or for {free // OUTBOX_BYTES:,}"
            " full outboxes"
        )  # fmt: skip
        yield Finding("outboxes", OK, f"{file.path}: in memory, {_mode(file)}{room}")
    if facts.socket_mode & 0o066 and not facts.many_users:
        yield Finding(
            "outboxes", WARN, "other users can send events but have no outbox: events that logd"
            " cannot receive at once are lost", "set many_users = true",
        )  # fmt: skip


def _room(facts: Facts) -> Iterator[Finding]:
    room_s: float | None = facts.state["room_s"] if facts.state else None
    if room_s is None:
        yield Finding("room", OK, "at the current rate no outbox fills up")
        return
    until_full = f"{format_duration(room_s)} ({room_s / 3600:.1f} h)"
    says = f"at the current rate the first outbox is full in {until_full}"
    if room_s < ROOM_S_MIN:
        yield Finding(
            "room", FAIL if room_s == 0 else WARN, f"{says} if nothing more is stored",
            "give clients more memory: outbox_bytes= of Client, ACTIVITY_LOG_OUTBOX_BYTES of Flask",
        )  # fmt: skip
    else:
        yield Finding("room", OK, f"{says} if logd stops")


def _remove_ipc(facts: Facts) -> Iterator[Finding]:
    if not facts.outboxes.path.startswith("/dev/shm/"):  # noqa: S108 - a path to compare with
        yield Finding("removeipc", OK, "the outboxes are not in /dev/shm, which RemoveIPC= clears")
    elif facts.remove_ipc and facts.outbox_users:
        yield Finding(
            "removeipc", WARN, f"when {', '.join(facts.outbox_users)} log out, logind removes"
            " their outboxes in /dev/shm", "set outbox_directory to a tmpfs of its own,"
            f" or loginctl enable-linger {facts.outbox_users[0]}, or RemoveIPC=no in logind.conf",
        )  # fmt: skip
    else:
        yield Finding(
            "removeipc", OK, "no regular user has an outbox; services that log must not set"
            " RemoveIPC= or DynamicUser=",
        )  # fmt: skip


def _disk(facts: Facts) -> Iterator[Finding]:
    if facts.state is None:
        if not facts.key_problem:  # a problem with the key is reported by its own check
            todo = "fix this first: nothing can be stored"
            yield Finding("database", FAIL, str(facts.state_problem), todo)
        return
    disk = facts.state["disk"]
    free, days = disk["free_bytes"], disk["days_left"]
    if free is None:
        yield Finding("disk", WARN, f"{facts.folder.path}: free space unknown", "df -h")
        return
    says = f"{format_size(free)} free" + ("" if days is None else f", enough for {days:,.0f} days")
    if free < DISK_BYTES_MIN:
        yield Finding(
            "disk", FAIL, says, "free some space now: nothing can be stored on a full disk"
        )
    elif free < DISK_BYTES_WARN or (days is not None and days < DAYS_LEFT_MIN):
        yield Finding("disk", WARN, says, "free some space, or keep less: logd prune --help")
    else:
        yield Finding("disk", OK, says)


def _integrity(facts: Facts) -> Iterator[Finding]:
    """Checks the answer of the last `logd verify`, and whether that is recent."""
    if facts.state is None or not facts.state["schema"]:
        return
    found = facts.state["integrity"]
    if found is None:
        yield Finding("integrity", WARN, "never verified", "logd verify; enable logd-verify.timer")
        return
    when = f"when verified {format_time(found['at_ns'])}"
    if found["answer"] == NOT_WHOLE:
        yield Finding(
            "integrity", FAIL, f"the trail was not whole {when}",
            "logd verify --anchor names what and where; change nothing until the cause is known",
        )  # fmt: skip
    elif found["answer"] == NOT_PROVEN:
        yield Finding(
            "integrity", WARN, f"the trail was whole in itself {when}, but no anchors prove it",
            "keep the journal for longer, or set anchor_file in logd.toml; restore nothing",
        )  # fmt: skip
    elif facts.now_ns - found["at_ns"] > VERIFIED_NS_MAX:
        yield Finding("integrity", WARN, f"whole {when}", "systemctl list-timers 'logd-*'")
    else:
        yield Finding("integrity", OK, f"whole {when}")


def _mode(file: File) -> str:
    return f"mode {file.mode:04o}"


def _inaccessible(name: str, file: File, facts: Facts) -> Finding:
    return Finding(
        name,
        WARN,
        f"{file.path}: {facts.user} has no access, so it is not checked",
        "run this check as root",
    )


CHECKS = (
    *(_config, _key, _signing_key, _folder, _daemon, _sockets, _runtime_files),
    *(_outboxes, _room, _remove_ipc, _disk, _integrity),
)
