"""Gathers the facts that `logd check` judges, about the machine and the instance.

Gathering changes nothing. A fact that the user cannot access is None, or marked.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from logd import instance_lock
from logd.audit.head_signer import read_private_key
from logd.clock.readings import implausible
from logd.config.settings import Config
from logd.errors import KeyFileError, LogdError, NoDatabase
from logd.ingest.outbox_directory import filesystem_type, mount_fields
from logd.ingest.receiver import queue_length
from logd.self_repair.repairs import read_state
from logd.self_repair.runtime_files import observed
from logd.status.checks.machine import Swap, hibernation, remove_ipc, swaps
from logd.status.collect import collect_status
from logd.storage import keyfile, opening, trail_clock
from logd.storage.database import DatabaseError
from logd.storage.migrations import NewerSchema

_REGULAR_UID_MIN, _NOBODY_UID = 1000, 65534


@dataclass(frozen=True)
class File:
    """A file and its permissions.

    `kind` is None if it does not exist, "?" if it is not accessible.
    """

    path: str
    kind: str | None  # "file", "directory", "socket" or "other"
    mode: int = 0
    uid: int = -1
    owner: str = ""
    group: str = ""


@dataclass(frozen=True)
class Facts:
    """All facts that the checks use."""

    user: str
    uid: int
    now_ns: int
    # Facts about the instance.
    config: File
    key: File
    key_problem: str | None
    key_handed_over: bool
    signing_key: File
    signing_key_problem: str | None
    has_signing_key: bool
    heads_signed: bool | None  # whether the running daemon signs the heads that it logs
    folder: File
    socket: File
    query_socket: File
    outboxes: File
    socket_mode: int
    many_users: bool
    outboxes_max: int
    # The status; None if the database cannot be read, with the reason in `state_problem`.
    # A database that does not exist yet is no problem.
    state: dict[str, Any] | None
    state_problem: str | None
    running_pid: int | None
    inherited: bool  # the running daemon's socket was created by the service manager
    queue_datagrams: int | None  # queue length of the present socket, if known
    # Facts about the machine.
    queue_datagrams_now: int | None  # queue length of a socket created now
    open_files: int | None  # limit of descriptors of the running daemon, or of this shell
    core_bytes: int | None  # limit of core files of the running daemon; -1: none
    synchronised: bool | None
    clock_problem: str | None  # how the clock contradicts the times in the trail
    outbox_kind: str | None
    outbox_options: tuple[str, ...]
    outbox_free_bytes: int | None
    remove_ipc: bool  # logind removes a user's files in /dev/shm at logout
    outbox_users: tuple[str, ...]  # users who log in and out and have outboxes
    swaps: tuple[Swap, ...]
    hibernation: bool
    # The files that the daemon needs, as `logd status` has them.
    runtime_files: tuple[dict[str, Any], ...] = ()


def gather(config: Config) -> Facts:
    """Gathers all facts. Problems become facts, not exceptions."""
    state, state_problem = None, None
    try:
        state = collect_status(config)
    except LogdError as error:
        state_problem = str(error)
    pid, _page = instance_lock.read_lock_page(config.lock_file)
    figures = instance_lock.read_runtime_stats(config.lock_file) if pid is not None else None
    limits = _limits(pid)
    has_signing_key, signing_key_problem = _signing_key(config)
    mounted = config.outbox_directory
    if not mounted.exists():
        mounted = mounted.parent
    return Facts(
        user=_user(os.geteuid()),
        uid=os.geteuid(),
        now_ns=time.time_ns(),
        config=_file(config.path),
        key=_file(config.key_file),
        key_problem=_key_problem(config),
        key_handed_over=keyfile.credential(config.key_file.name) is not None,
        signing_key=_file(config.signing_key_file),
        signing_key_problem=signing_key_problem,
        has_signing_key=has_signing_key,
        heads_signed=figures.heads_signed if figures is not None else None,
        folder=_file(config.database.parent),
        socket=_file(config.socket),
        query_socket=_file(config.query_socket),
        outboxes=_file(config.outbox_directory),
        socket_mode=config.socket_mode,
        many_users=config.many_users,
        outboxes_max=config.outboxes_max,
        state=state,
        state_problem=state_problem,
        running_pid=pid,
        inherited=figures is not None and figures.queue_datagrams is None,
        queue_datagrams=figures.queue_datagrams if figures else None,
        queue_datagrams_now=queue_length(),
        open_files=limits.get("Max open files", resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        core_bytes=limits.get("Max core file size"),
        synchronised=trail_clock.synchronised(),
        clock_problem=_clock_problem(config),
        outbox_kind=filesystem_type(mounted),
        outbox_options=_mount_options(mounted),
        outbox_free_bytes=_free(mounted),
        remove_ipc=Path("/run/systemd/system").is_dir() and remove_ipc(Path("/")),
        outbox_users=tuple(_regular_users(config.outbox_directory)),
        swaps=tuple(swaps(Path("/"))),
        hibernation=hibernation(Path("/")),
        runtime_files=tuple(
            observed(instance_lock.read_runtime_files(config.lock_file), read_state, time.time_ns())
        ),
    )


def _clock_problem(config: Config) -> str | None:
    try:
        with closing(opening.open_for_reading(config)) as connection:
            # The synchronisation of the clock is a check of its own.
            now = replace(trail_clock.read(), synchronised=None)
            return implausible(trail_clock.load(connection), now)
    except (LogdError, DatabaseError):
        return None  # another check reports an unreadable database


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _file(path: Path) -> File:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return File(str(path), None)
    except OSError:
        return File(str(path), "?")
    kinds = {0o10: "file", 0o04: "directory", 0o14: "socket"}
    return File(
        str(path),
        kinds.get(status.st_mode >> 12, "other"),
        status.st_mode & 0o7777,
        status.st_uid,
        _user(status.st_uid),
        _group(status.st_gid),
    )


def _key_problem(config: Config) -> str | None:
    """Returns what is wrong with the key, or that it does not open the database; else None."""
    try:
        keyfile.read(config.key_file)
        opening.open_for_reading(config).close()
    except (NoDatabase, NewerSchema):
        return None  # the key is not at fault; `state_problem` has the reason
    except LogdError as error:
        return str(error)
    return None


def _signing_key(config: Config) -> tuple[bool, str | None]:
    """Returns whether there is a key that signs heads, and what is wrong with it."""
    path = config.signing_key_file
    try:
        found = read_private_key(config) is not None
    except KeyFileError as error:
        return True, str(error)
    return found or os.path.exists(f"{path}.cred"), None  # noqa: PTH110 - False for any error


def _limits(pid: int | None) -> dict[str, int]:
    """Returns the soft limits of the running daemon, if this user may read them (proc(5))."""
    found = {}
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines() if pid else []
    except OSError:
        lines = []
    for line in lines:
        for name in ("Max open files", "Max core file size"):
            if line.startswith(name):
                soft = line[len(name) :].split()[0]
                found[name] = -1 if soft == "unlimited" else int(soft)
    return found


def _mount_options(path: Path) -> tuple[str, ...]:
    """Returns the mount options of the file system that holds `path`."""
    fields = mount_fields(path)
    return (*fields[5].split(","), *fields[-1].split(",")) if fields else ()


def _free(path: Path) -> int | None:
    try:
        of = os.statvfs(path)
    except OSError:
        return None
    return of.f_bavail * of.f_frsize


def _regular_users(directory: Path) -> Iterator[str]:
    uids = set()
    try:
        uids.add(directory.stat().st_uid)
        uids |= {entry.stat(follow_symlinks=False).st_uid for entry in os.scandir(directory)}
    except OSError:
        pass
    yield from (
        _user(uid) for uid in sorted(uids) if uid >= _REGULAR_UID_MIN and uid != _NOBODY_UID
    )
