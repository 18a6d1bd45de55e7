"""Reads the clocks, and stores the last trusted reading in the database.

`logd.clock.readings` decides whether a reading is trusted. The daemon stores a reading at its start
and then every ten minutes; commands that run without a daemon, and the option `--yes`, store one
too.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from logd.clock import readings
from logd.clock.readings import EARLIEST_NS, HOUR_NS, STEP_MAX_NS, Reading
from logd.config.settings import Config
from logd.errors import ClockRefused
from logd.storage import opening
from logd.storage.database import Connection
from logd.storage.store import Store
from logd.storage.tree_head import read_head
from logd_wire.rendezvous import current_boot_id

KEPT_EVERY_NS = HOUR_NS // 6

_STATUS_UNSYNC = 0x40  # STA_UNSYNC of adjtimex(2): the clock is not synchronised
_TIMEX_BYTES, _TIMEX_STATUS_AT = 256, 40
# systemd-timesyncd's directory, which exists while it runs;
# it has a file once the clock is synchronised.
_TIMESYNC = Path("/run/systemd/timesync")

_log = logging.getLogger("logd")


def read() -> Reading:
    """Reads all clocks."""
    return Reading(
        time.time_ns(),
        current_boot_id(),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        synchronised(),
    )


def synchronised(timesync: Path = _TIMESYNC) -> bool | None:
    """Returns whether the clock is synchronised, according to the kernel; None if unknown.

    A service's sandbox (ProtectClock=) forbids the call. systemd-timesyncd also leaves a file;
    other NTP daemons do not.
    """
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # with `modes` = 0, adjtimex only reads
    try:
        if ctypes.CDLL(None).adjtimex(timex) >= 0:
            status = int.from_bytes(timex.raw[_TIMEX_STATUS_AT : _TIMEX_STATUS_AT + 4], "little")
            return not status & _STATUS_UNSYNC
    except (OSError, AttributeError):
        pass
    return (timesync / "synchronized").exists() if timesync.is_dir() else None


def load(connection: Connection) -> Reading | None:
    """Returns the last trusted reading; if none is stored, the time of the last batch."""
    table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'clock'"
    if connection.execute(table).fetchone():
        row = connection.execute(
            "SELECT wall_ns, boot_id, boottime_ns, synchronised FROM clock"
        ).fetchone()
        if row is not None:
            wall_ns, boot_id, boottime_ns, known = row
            return Reading(wall_ns, boot_id, boottime_ns, None if known is None else bool(known))
    _, stored_ns = read_head(connection)
    return Reading(stored_ns, "", 0) if stored_ns and stored_ns >= EARLIEST_NS else None


def save(connection: Connection, reading: Reading, how: str = "REPLACE") -> None:
    """Stores a reading as the last trusted one, in the caller's transaction or in one of its own.

    With `how` IGNORE, it is stored only if there is none.
    """
    connection.execute(
        f"INSERT OR {how} INTO clock VALUES (1, ?, ?, ?, ?)",  # noqa: S608 - one of two words
        (reading.wall_ns, reading.boot_id, reading.boottime_ns, reading.synchronised),
    )


def check(
    config: Config, connection: Connection, now: Reading, what: str, *, yes: bool = False
) -> None:
    """Raises ClockRefused, which says `what` was not done, if the reading is not trusted.

    With `yes` a person has confirmed the clock: the reading is stored as the last trusted one.
    """
    why = readings.implausible(load(connection), now)
    if why is None:
        return
    if not yes or now.wall_ns < readings.EARLIEST_NS:
        raise clock_refusal(what, why)
    with opening.open_for_writing(config) as writable:
        save(writable, now)


def check_instance(config: Config, now: Reading, what: str, *, yes: bool) -> None:
    """Checks the clock as `check` does, for an instance whose database is not open."""
    with closing(opening.open_for_reading(config)) as connection:
        check(config, connection, now, what, yes=yes)


def clock_refusal(what: str, why: str) -> ClockRefused:
    """Returns the error for a clock that is not trusted: what was not done, why, and what to do."""
    return ClockRefused(
        f"{what}: {why}. Set the clock (timedatectl). If it is right, run this again with --yes."
    )


class TrailClock:
    """The clock of an open store: the time to record, and whether it is trusted."""

    def __init__(
        self,
        store: Store,
        read: Callable[[], Reading] = read,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._read = read
        self._clock_ns = clock_ns
        self._seen = load(store.connection)
        self._kept: Reading | None = None
        self._warned = False

    def now_ns(self) -> int:
        """Returns the time to record: the wall clock's, unless far behind the last trusted one."""
        wall_ns, seen = self._clock_ns(), self._seen
        if seen is None or wall_ns >= seen.wall_ns - STEP_MAX_NS:
            # The other clocks are not read, since this is called for each commit.
            return wall_ns
        return readings.stamp_ns(seen, self._read())

    def record_reading(self) -> None:
        """Stores the present reading every ten minutes, if it is trusted.

        Raises as `Store.commit`.
        """
        now = self._read()
        if self._kept is not None and now.boottime_ns < self._kept.boottime_ns + KEPT_EVERY_NS:
            return
        self._kept = now
        refused = self._reason_to_distrust(now) is not None
        seen = self._seen if refused else now
        if seen is not None:
            # A reading that is not trusted replaces none. If none is stored, store the one that
            # it was compared with, the time of the last batch, which will be another later.
            how = "IGNORE" if refused else "REPLACE"
            self._store.transact(
                lambda connection, _: save(connection, seen, how), now.wall_ns, flush=False
            )
        self._seen = seen
        self._warn(readings.implausible(seen, replace(now, synchronised=None)))

    def _warn(self, why: str | None) -> None:
        """Warns once that the clock is not trusted, and reports when it is trusted again."""
        if why is not None and not self._warned:
            _log.warning(
                "%s: until it is set, or confirmed by `logd prune --yes`, no event is pruned and no"
                " old backup removed", why,
            )  # fmt: skip
        elif why is None and self._warned:
            _log.info("the clock is trusted again")
        self._warned = why is not None

    def check(self, what: str) -> Reading:
        """Returns the present reading. Raises ClockRefused, naming `what`, if it is not trusted."""
        now = self._read()
        why = self._reason_to_distrust(now)
        if why is not None:
            raise clock_refusal(what, why)
        return now

    def check_from(self, start: Reading, what: str) -> None:
        """Raises ClockRefused if the clock was set since `start`."""
        why = readings.jumped(start, self._read())
        if why is not None:
            raise clock_refusal(what, why)

    def _reason_to_distrust(self, now: Reading) -> str | None:
        # The stored reading is read again, since a command may have stored another one.
        self._seen = load(self._store.connection)
        return readings.implausible(self._seen, now)
