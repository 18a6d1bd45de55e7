"""Finds the directory of outboxes by the socket's path, for client and daemon.

Outboxes are plain text, so their directory lies in memory (tmpfs), not beside the socket. The
daemon writes a small file beside its socket that names the directory and a random token; the
directory holds the same token. A client whose /dev/shm is another one (a container) finds no
directory of that name, or one with another token, and works without an outbox.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from logd_wire.causes import why_no_outbox

RENDEZVOUS_SUFFIX = ".outboxes"
TOKEN_NAME = "token"  # noqa: S105 - a file's name
RENDEZVOUS_BYTES_MAX = 4096
_UIDS = 2**32 - 1  # the number of user ids that a user namespace can map
_OVERFLOW_UID = 65534
_IN_MEMORY = "/dev/shm"  # noqa: S108 - in memory, as it should be
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")

# Modes of the directory: for its owner alone, or with `many_users` writable, but not readable,
# by others. In a shared directory others cannot remove files, and new files get the daemon's group.
MODE_PRIVATE = 0o700
MODE_SHARED = 0o3733


class NoOutbox(Exception):
    """No outbox that the daemon would read can be made in this process; the message says why."""


class NotOurs(NoOutbox):
    """The directory's path leads to another user's directory, or to another kind of file."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """The directory of outboxes, its token, and the boot in which the directory was made.

    `uid` is the daemon's user id, in decimal, in its own user namespace `user_namespace`; both are
    empty if the daemon does not write them.
    """

    directory: str
    token: str
    boot_id: str
    uid: str = ""
    user_namespace: str = ""

    @classmethod
    def of_this_process(cls, directory: str, token: str) -> Rendezvous:
        """Returns the rendezvous for a directory of this process, in this boot."""
        return cls(directory, token, current_boot_id(), str(os.geteuid()), current_user_namespace())

    def text(self) -> str:
        """Returns the text of the rendezvous file: one `name=value` a line."""
        lines = f"directory={self.directory}\ntoken={self.token}\nboot_id={self.boot_id}\n"
        if self.user_namespace:
            lines += f"uid={self.uid}\nuser_namespace={self.user_namespace}\n"
        return lines


def rendezvous_path(socket_path: str) -> str:
    """Returns the path of the file that names the directory of outboxes."""
    return socket_path + RENDEZVOUS_SUFFIX


def current_boot_id() -> str:
    """Returns the kernel's random id of this boot (proc(5)); "" if there is no /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def current_user_namespace() -> str:
    """Returns the name of this process's user namespace; "" if there is no /proc.

    The kernel names the initial one "user:[4026531837]" (namespaces(7)).
    """
    try:
        return str(Path("/proc/self/ns/user").readlink())
    except OSError:
        return ""


def maps_ids_to_themselves() -> bool:
    """Whether user ids in this user namespace equal those of its parent (user_namespaces(7))."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return True  # there is no /proc, or the kernel has no user namespaces
    return [line.split() for line in lines] == [["0", "0", str(_UIDS)]]


def _overflow_uid() -> int:
    """Returns the user id that the kernel shows for users not mapped into this user namespace."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return _OVERFLOW_UID


def uid_for_daemon(rendezvous: Rendezvous, owner: int) -> int:
    """Returns the user id of this process as the daemon sees it.

    `owner` is the daemon's, seen here.

    In a user namespace of its own (a rootless container) a process has another id than outside.
    Raises NoOutbox if the id outside is not certain: the daemon refuses a file with a wrong id in
    its name.
    """
    euid = os.geteuid()
    namespace = current_user_namespace()
    if rendezvous.user_namespace == namespace:
        return euid
    if not rendezvous.user_namespace and maps_ids_to_themselves():
        return euid
    # The owner of the daemon's files is the daemon's user, unless that user is not mapped here.
    if euid == owner != _overflow_uid() and rendezvous.uid.isascii() and rendezvous.uid.isdigit():
        return int(rendezvous.uid)
    raise NoOutbox(
        f"user id {euid} of this process's user namespace has another number outside, which cannot "
        "be determined: run it as the user that logd runs as, or in logd's user namespace"
    )


def read_rendezvous(socket_path: str) -> Rendezvous:
    """Reads the rendezvous file of the daemon at `socket_path`.

    Raises NoOutbox if it cannot be read.
    """
    path = rendezvous_path(socket_path)
    try:
        text = _read_small(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NoOutbox(
                f"{path}: no such file: `logd init` and each start of logd make it; or the socket "
                "alone is mounted here, without its directory"
            ) from error
        raise NoOutbox(f"{path}: {why_no_outbox(error)}") from error
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    directory, token = fields.get("directory", ""), fields.get("token", "")
    if not directory.startswith("/") or not _TOKEN.match(token):
        raise NoOutbox(f"{path} does not name a directory and a token")
    return Rendezvous(
        directory,
        token,
        fields.get("boot_id", ""),
        fields.get("uid", ""),
        fields.get("user_namespace", ""),
    )


def _read_small(path: str, dir_fd: int | None = None) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        # pread is used, since a child forked in the middle of this shares the file position.
        return os.pread(fd, RENDEZVOUS_BYTES_MAX, 0).decode("utf-8", "replace")
    except OSError as error:
        # A pipe in place of the file is not read, since that could block.
        if error.errno == errno.ESPIPE:
            return ""
        raise
    finally:
        os.close(fd)


class OpenDirectory(NamedTuple):
    """The open directory of outboxes, and this user's id as the daemon sees it."""

    fd: int
    path: str
    uid: int


def open_directory(socket_path: str, directory: str | None = None) -> OpenDirectory:
    """Opens the outboxes' directory, after checking that it is the daemon's.

    `directory` overrides the path that the daemon names, not the token. Raises NoOutbox.
    """
    try:
        return _open_directory(socket_path, directory)
    except OSError as error:
        raise NoOutbox(f"{error.filename or socket_path}: {why_no_outbox(error)}") from error


def _open_directory(socket_path: str, directory: str | None) -> OpenDirectory:
    rendezvous = read_rendezvous(socket_path)
    owner = Path(rendezvous_path(socket_path)).stat().st_uid
    uid = uid_for_daemon(rendezvous, owner)
    path = directory or rendezvous.directory
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        # Mode 3733 lets others enter the directory but not list it;
        # creating files needs O_PATH only.
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        # If the directory was made in this boot, it is in another mount namespace.
        # After a reboot it is gone, and a process of the daemon's user may start before the daemon.
        made_now = rendezvous.boot_id == current_boot_id()
        if made_now or owner != os.geteuid() or uid != os.geteuid():
            raise NoOutbox(f"{path} is not there: does this process have its own /dev/shm?") from (
                error
            )
        make_directory(path, rendezvous.token, MODE_PRIVATE)
        write_rendezvous(socket_path, Rendezvous.of_this_process(path, rendezvous.token))
        return _open_directory(socket_path, directory)
    try:
        if os.fstat(fd).st_uid != owner:
            raise NoOutbox(f"{path} belongs to uid {os.fstat(fd).st_uid}, logd runs as {owner}")
        token = _read_small(TOKEN_NAME, dir_fd=fd).strip()
        if token != rendezvous.token:
            raise NoOutbox(f"{path} is another daemon's: its token differs")
    except OSError as error:
        os.close(fd)
        raise NoOutbox(f"{path}/{TOKEN_NAME}: {why_no_outbox(error)}") from error
    except BaseException:  # whatever happens, even if a signal handler raises
        os.close(fd)
        raise
    return OpenDirectory(fd, path, uid)


def new_token() -> str:
    """Returns a random token: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def make_directory(path: str, token: str | None, mode: int) -> str:
    """Makes the outboxes' directory, or takes this user's own, and writes the token into it.

    Returns the token: the given one, else the directory's own, else a new one. Raises NotOurs for a
    directory of another user, or something that is not a directory, and NoOutbox.
    """
    try:
        Path(path).mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise NoOutbox(f"{path}: cannot be made: {error.strerror}") from error
    fd = _open_ours(path)
    try:
        token = token or _read_token(TOKEN_NAME, dir_fd=fd) or new_token()
        # The token is written first: once others may make
        # files in the directory, they could take its name.
        _put(TOKEN_NAME, token + "\n", dir_fd=fd)
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)
    except OSError as error:
        raise NoOutbox(f"{path}/{TOKEN_NAME}: cannot be written: {error.strerror}") from error
    finally:
        os.close(fd)
    return token


def _open_ours(path: str) -> int:
    """Opens a directory that this user owns, after giving the user all rights to it."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # O_PATH opens the directory whatever its mode is; the mode is corrected below.
        found = os.open(path, os.O_PATH | flags)
    except OSError as error:
        raise _not_ours(path, error) from error
    try:
        try:
            status = os.fstat(found)
        except OSError as error:  # the path may be covered by another user's mount
            raise _not_ours(path, error) from error
        if status.st_uid != os.geteuid():
            raise NotOurs(
                f"{path} belongs to uid {status.st_uid}, not to this process ({os.geteuid()})"
            )
        if status.st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{found}").chmod(0o700)
        return os.open(".", os.O_RDONLY | flags, dir_fd=found)
    except OSError as error:
        raise NoOutbox(f"{path}: {error.strerror}") from error
    finally:
        os.close(found)


def _not_ours(path: str, error: OSError) -> NoOutbox:
    """Returns the error for a directory that cannot be opened: NoOutbox for a shortage."""
    passing = (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
    return (NoOutbox if error.errno in passing else NotOurs)(f"{path}: {error.strerror}")


def default_directory(socket_path: str) -> str:
    """Returns the default directory of outboxes: in memory, one for each user and instance."""
    return f"{_IN_MEMORY}/logd-{os.geteuid()}-{_digest(socket_path)}"


def default_directory_in_use(socket_path: str) -> str:
    """Returns the directory of outboxes in use: the default, or the one chosen in its place."""
    pattern = rf"{_IN_MEMORY}/logd-\d+-{_digest(socket_path)}(-[0-9a-f]{{16}})?"
    with contextlib.suppress(NoOutbox):
        named = read_rendezvous(socket_path).directory
        # A copied instance has the original's file beside its socket,
        # which names another directory.
        if re.fullmatch(pattern, named):
            return named
    return default_directory(socket_path)


def other_directory(socket_path: str) -> str:
    """Returns a random name for the outboxes' directory, which no other user can have taken."""
    return f"{default_directory(socket_path)}-{secrets.token_hex(8)}"


def _digest(socket_path: str) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(socket_path))).hexdigest()[:16]


def _put(name: str, text: str, dir_fd: int | None = None) -> None:
    """Writes the file in one step, so that a client never reads a part of it. Raises OSError.

    A file that has the content already is not written, so that a daemon can start, and empty the
    outboxes, when memory or disk is full.
    """
    if _contains(name, text, dir_fd):
        return
    # The name is random, so that other users, who may make files there, cannot have taken it.
    temporary = f"{'' if dir_fd is None else '.'}{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o644, dir_fd=dir_fd)
    try:
        try:
            os.fchmod(fd, 0o644)
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise


def _contains(name: str, text: str, dir_fd: int | None) -> bool:
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        ours = (stat.S_IFREG | 0o644, os.geteuid())
        return (status.st_mode, status.st_uid) == ours and _read_small(name, dir_fd) == text
    except OSError:
        return False


def read_token(directory: str) -> str | None:
    """Returns the token in a directory, or None when there is no valid one."""
    return _read_token(f"{directory}/{TOKEN_NAME}")


def _read_token(path: str, dir_fd: int | None = None) -> str | None:
    try:
        token = _read_small(path, dir_fd).strip()
    except OSError:
        return None
    return token if _TOKEN.match(token) else None


def write_rendezvous(socket_path: str, rendezvous: Rendezvous) -> None:
    """Writes the file by which clients find the outboxes, in one step. Raises OSError."""
    _put(rendezvous_path(socket_path), rendezvous.text())
