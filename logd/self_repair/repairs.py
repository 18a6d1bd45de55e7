"""Lists the files that a running daemon depends on, each with the function that restores it.

`logd.self_repair.runtime_files` compares and restores them; the store itself checks the database
after each commit (`logd.storage.database_files`).
"""

from __future__ import annotations

import logging
import socket
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from logd.config.settings import Config
from logd.ingest.outbox_place import OutboxPlace
from logd.ingest.receiver import bind, check_not_in_use, queue_length
from logd.instance_lock import InstanceLock
from logd.self_repair.runtime_files import (
    OWNED,
    PRESENT,
    SAME,
    UNCHANGED,
    FileState,
    Item,
    RuntimeFiles,
)
from logd.storage import keyfile

_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "link",
}
_log = logging.getLogger("logd")


def read_state(path: str) -> FileState:
    """Returns the present state of a file, without opening it."""
    try:
        status = Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return FileState(None)
    except OSError:
        return FileState("?")
    return FileState(
        _KINDS.get(stat.S_IFMT(status.st_mode), "other"),
        status.st_dev,
        status.st_ino,
        status.st_uid,
        stat.S_IMODE(status.st_mode),
        status.st_ctime_ns,
    )


class SelfRepair:
    """Checks and restores the files of a running daemon, between the daemon's steps.

    `replace_socket` and `replace_listener` take over a socket that was bound again; they are None
    if the service manager holds the sockets, since only it can bind them. `also` has further
    checks, run at the same interval.
    """

    def __init__(
        self,
        config: Config,
        lock: InstanceLock,
        place: OutboxPlace,
        *,
        replace_socket: Callable[[socket.socket, int | None], None] | None,
        replace_listener: Callable[[socket.socket], None] | None,
        also: Iterable[Callable[[], None]],
    ) -> None:
        self._config = config
        self._lock = lock
        self._place = place
        self._replace_socket = replace_socket
        self._replace_listener = replace_listener
        self._also = tuple(also)
        self.files = RuntimeFiles(self._items(), read_state, time.time_ns, _log)
        self._lock.publish_files(self.files.published())

    def run(self, now_s: float) -> None:
        """Compares, restores and reports the files if a comparison is due.

        Raises a LogdError if the process has to end: another daemon has the instance's lock, or the
        database is gone.
        """
        if not self.files.is_due(now_s):
            return
        self._place.finish()
        changed = self.files.check(now_s)
        for check in self._also:
            check()
        if changed:
            self._lock.publish_files(self.files.published())

    def apply_config(self, config: Config) -> None:
        """Checks the files of a reloaded configuration, in place of the former one's."""
        self._config = config
        self.files.replace(self._items())
        self._lock.publish_files(self.files.published())

    def _items(self) -> list[Item]:
        config, place = self._config, self._place
        items = [
            Item(
                "lock file", lambda: str(self._lock.path), SAME,
                "a second daemon could start", put_back=self._lock.put_back,
            ),
            Item(
                "outboxes", lambda: place.directory, OWNED,
                "clients find no outbox, so events are not kept while logd is away",
                put_back=place.put_back,
            ),
            Item("token", lambda: place.token, UNCHANGED, "clients find no outbox",
                 put_back=place.put_back),
            Item("rendezvous", lambda: place.rendezvous, UNCHANGED, "clients find no outbox",
                 put_back=place.put_back),
            Item(
                "socket", lambda: str(config.socket), SAME, "no process can begin to send events",
                "systemctl restart logd.socket", self._bind_again if self._replace_socket else None,
            ),
            Item(
                "query socket", lambda: str(config.query_socket), SAME, "no report is answered",
                "systemctl restart logd-query.socket",
                self._listen_again if self._replace_listener else None,
            ),
            Item(
                "configuration", lambda: str(config.path), PRESENT,
                "the next start and the next report process will fail", "Put it back",
            ),
        ]  # fmt: skip
        if keyfile.credential(config.key_file.name) is None:
            items.append(
                Item(
                    "key", lambda: str(config.key_file), PRESENT,
                    "the next start cannot open the database", "Restore it from your copy",
                )
            )  # fmt: skip
        signing_key = config.signing_key_file
        there = read_state(str(signing_key)).kind == "file"
        if there and keyfile.credential(signing_key.name) is None:
            items.append(
                Item(
                    "signing key", lambda: str(signing_key), PRESENT,
                    "from the next start on the heads of the trail are not signed",
                    "Restore it from your copy, or make another: logd genkey",
                )
            )  # fmt: skip
        if isinstance(config.metrics, Path):
            items.append(
                Item(
                    "metrics socket", lambda: str(config.metrics), PRESENT,
                    "no metrics can be read", "The report process makes it again within seconds",
                    optional=True,
                )
            )  # fmt: skip
        if config.anchor_file is not None:
            items.append(
                Item(
                    "anchors", lambda: str(config.anchor_file), SAME,
                    "earlier anchors are not in it", "Find out who did that, then restart logd",
                    optional=True,
                )
            )  # fmt: skip
        return items

    def _bind_again(self) -> None:
        assert self._replace_socket is not None
        config = self._config
        made = bind(config.socket, socket.SOCK_DGRAM, config.socket_mode)
        self._replace_socket(made, queue_length())

    def _listen_again(self) -> None:
        assert self._replace_listener is not None
        config = self._config
        # The socket is checked now, not at the start,
        # when a killed daemon's report process may still be listening.
        check_not_in_use(config.query_socket, socket.SOCK_STREAM)
        made = bind(config.query_socket, socket.SOCK_STREAM, config.query_socket_mode)
        made.listen(socket.SOMAXCONN)
        self._replace_listener(made)
