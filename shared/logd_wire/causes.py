"""Explains why a datagram was not sent, an outbox not made, or a report not answered.

One sentence for each error number, which says what to fix.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

_NOT_RUNNING = "nothing listens at {path}: logd is not running"
_NO_DESCRIPTOR = "{path}: {error}: raise the limit of open files (ulimit -n, LimitNOFILE=)"
# Errors of connecting and sending to the daemon's socket (unix(7), connect(2), send(2)).
_SENDING: Mapping[int, str] = {
    errno.ENOENT: "there is no socket {path}: logd is not running, or the path is wrong",
    errno.ECONNREFUSED: _NOT_RUNNING,
    errno.ENOTCONN: _NOT_RUNNING,
    errno.ECONNRESET: _NOT_RUNNING,
    errno.EAGAIN: "the queue of {path} is full: logd is behind or does not store: see"
    " `logd status`",
    errno.EACCES: "user {uid} may not write to {path}: see socket_mode in logd.toml, SocketMode="
    " and SocketGroup= in logd.socket, and the modes of the directories above it",
    errno.EPERM: "the system's policy (AppArmor, SELinux) forbids it to user {uid} at {path}",
    errno.EMSGSIZE: "the event is larger than the kernel sends at once: raise"
    " net.core.wmem_default, or log less in one event",
    errno.EPROTOTYPE: "{path} is not a datagram socket: give the path of logd's socket for events,"
    " not the one for reports",
    errno.ENOTDIR: "{path}: a part of the path is not a directory",
    errno.ELOOP: "{path}: symbolic links form a loop",
    errno.EAFNOSUPPORT: "{path}: Unix sockets are forbidden here (RestrictAddressFamilies=)",
    errno.EMFILE: _NO_DESCRIPTOR,
    errno.ENFILE: _NO_DESCRIPTOR,
    errno.ENOBUFS: "{path}: the kernel has no memory for it",
    errno.ENOMEM: "{path}: the kernel has no memory for it",
}
# Errors whose likely cause is that the daemon is absent; other errors do not show whether it runs.
_ABSENT = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET)

# Errors of the socket for reports that have another fix than those of the socket for events.
_ASKING: Mapping[int, str] = {
    errno.EACCES: "user {uid} may not connect to {path}: see query_socket_mode in logd.toml,"
    " SocketMode= and SocketGroup= in logd-query.socket, and the modes of the directories above it",
    errno.EPROTOTYPE: "{path} is not a stream socket: give the path of logd's socket for reports,"
    " not the one for events",
}

# Errors of finding and making an outbox.
_KEEPING: Mapping[int, str] = {
    errno.EACCES: "user {uid} has no permission",
    errno.EPERM: "the system's policy forbids it to user {uid}",
    errno.ENOSPC: "the memory for outboxes is full: logd is not running, or it is too small (size="
    " of its mount)",
    errno.EDQUOT: "user {uid} has used up its quota there",
    errno.EROFS: "it is mounted read-only here",
    errno.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "the machine has as many files open as it may (fs.file-max)",
    errno.ENOMEM: "this process or the machine is out of memory (ulimit -v, MemoryMax=)",
    errno.ENOLCK: "the kernel has no locks left",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f, LimitFSIZE=)",
    errno.ELOOP: "it is a symbolic link, which is not followed",
    errno.ENOTDIR: "a part of the path is not a directory",
}


def why_not_sent(code: int, path: str) -> str:
    """Explains why the daemon's socket at `path` did not take a datagram. `code`: the errno."""
    text = _SENDING.get(code, "{path}: {error}")
    if code == errno.ECONNREFUSED and _is_replaced(path):
        text = "logd has replaced the socket that is mounted at {path}: mount its directory instead"
    return text.format(path=path, error=os.strerror(code), uid=os.geteuid())


def _is_replaced(path: str) -> bool:
    """Whether a mount at `path` shows a former daemon's socket, which has lost its own name."""
    try:
        return Path(path).stat().st_nlink == 0
    except OSError:
        return False


def why_full(code: int, path: str) -> str:
    """Explains why an outbox is full. `code`: the errno of the last send, 0 if it succeeded."""
    if code in (0, errno.EAGAIN):
        return "logd is behind or does not store: see `logd status`"
    why = why_not_sent(code, path)
    return why if code in _ABSENT else f"whether logd runs is not known: {why}"


def why_no_outbox(error: OSError) -> str:
    """Explains a system error about the outboxes' files: the kernel's text, and what to do."""
    text = error.strerror or str(error)
    meaning = _KEEPING.get(error.errno or 0)
    return text if meaning is None else f"{text}: {meaning.format(uid=os.geteuid())}"


def why_no_answer(error: Exception, path: str) -> str:
    """Explains why a request to the daemon's report socket at `path` got no answer."""
    code = getattr(error, "errno", None) or 0
    text = _ASKING.get(code)
    if text is None and code in _SENDING and code not in (*_ABSENT, errno.EAGAIN):
        text = _SENDING[code]
    if text is None:
        text = "logd did not answer at {path}: {error}. Is it running? See `logd status`."
        return text.format(path=path, error=error)
    return text.format(path=path, error=os.strerror(code), uid=os.geteuid())
