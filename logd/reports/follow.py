"""Follows the trail for `logd tail --follow`, across restarts and a replaced database.

The daemon may restart, migrate the schema, or be stopped. The database may be replaced, by a
restored backup or by the same trail with a new key. Then it is opened again, and the batches'
hashes show from which event on the two differ, so that no event is printed twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from logd.config.settings import Config
from logd.errors import LogdError, NoDatabase, StorageBusy
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.selection import Selection, newest, newest_id, pages
from logd.storage import opening
from logd.storage.database import Connection, DatabaseError, translate
from logd.storage.migrations import NewerSchema, OlderSchema
from logd_wire.query import Row

INTERVAL_S = 0.25

Notify = Callable[[str], None]
File = tuple[int, int]


def follow_events(
    config: Config, selection: Selection, lines: int, follow: bool, notify: Notify
) -> Iterator[Row]:
    """Yields the newest selected events, oldest first; with `follow`, then new ones without an end.

    With `follow` it waits for a database that cannot be read yet, and passes the reason to
    `notify`. Raises LogdError if waiting would not help.
    """
    follower = Follower(config, selection, notify)
    try:
        follower.open(wait=follow)
        yield from follower.newest(lines)
        while follow:
            time.sleep(INTERVAL_S)
            yield from follower.read_new()
    finally:
        follower.close()


class Follower:
    """A position in the trail: every event up to the id `last` has been read."""

    def __init__(self, config: Config, selection: Selection, notify: Notify) -> None:
        self.last = 0
        self._config = config
        self._selection = selection
        self._notify = notify
        self._connection: Connection | None = None
        self._file: File | None = None
        self._stale = False
        self._trouble: str | None = None

    def open(self, *, wait: bool) -> None:
        """Opens the database; with `wait`, waits until it exists and has the current schema."""
        while True:
            try:
                self._open()
            except (NoDatabase, OlderSchema, StorageBusy) as error:
                if not wait:
                    raise
                self._report(str(error))
                time.sleep(INTERVAL_S)
            else:
                return

    def newest(self, lines: int) -> Iterator[Row]:
        """Yields at most `lines` of the newest events, oldest first."""
        self.last = newest_id(self._connection)
        return newest(
            self._connection, self._selection, lines, up_to_id=self.last, rows_max=PAGE_ROWS_MAX
        )

    def read_new(self) -> Iterator[Row]:
        """Yields events stored since the last call.

        A failure is reported once, and later calls retry.
        """
        try:
            if self._stale or _identity(self._config.database) not in (self._file, None):
                self._open()
            yield from self._read_page()
            self._trouble = None
        except NewerSchema:
            raise  # this program cannot read a newer schema, however long it waits
        except LogdError as error:
            self._report(str(error))
        except DatabaseError as error:
            self._stale = True
            self._report(str(translate(error, self._config.database)))

    def _read_page(self) -> Iterator[Row]:
        top = newest_id(self._connection)
        if top <= self.last:
            return
        found = pages(
            self._connection,
            self._selection,
            after_id=self.last,
            up_to_id=top,
            rows_max=PAGE_ROWS_MAX,
        )
        for _position, rows in found:
            for row in rows:
                self.last = row["id"]
                yield row
        self.last = top

    def _open(self) -> None:
        # The identity is read before opening,
        # so that the next call notices a file that replaces it meanwhile.
        file = _identity(self._config.database)
        connection = opening.open_for_events(self._config)
        before, self._connection = self._connection, connection
        self._file, self._stale = file, False
        if before is not None:
            same = common_events(before, connection)
            before.close()
            if same < self.last:
                self._notify(
                    f"{self._config.database}: the database was replaced, and differs from event"
                    f" {same + 1} on; continuing from there"
                )
                self.last = same

    def close(self) -> None:
        """Closes the database."""
        if self._connection is not None:
            self._connection.close()

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._notify(f"waiting: {trouble}")
        self._trouble = trouble


def common_events(one: Connection, other: Connection) -> int:
    """Returns the id of the last event that two trails have in common, 0 if there is none.

    A batch's hash includes its time and its salts, so trails that differ in one batch differ in all
    later batches. A binary search finds the last equal one.
    """
    low, high = 0, min(_last_batch(one), _last_batch(other))
    while low < high:
        middle = (low + high + 1) // 2
        at = _common_row(one, other, middle)
        if _batch(one, at) == _batch(other, at):
            low = middle
        else:
            high = min(middle, at) - 1
    found = _batch(other, _common_row(one, other, low))
    return found[0] if found else 0


def _common_row(one: Connection, other: Connection, batch: int) -> int:
    """Returns the last batch up to the given one with a row in both trails; 0 if there is none."""
    while True:
        rows = [
            int(trail.execute(
                "SELECT coalesce(max(id), 0) FROM batch WHERE id <= ?", (batch,)
            ).fetchone()[0])
            for trail in (one, other)
        ]  # fmt: skip
        if rows[0] == rows[1]:
            return rows[0]
        batch = min(rows)


def _last_batch(connection: Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()[0])


def _batch(connection: Connection, batch: int) -> tuple[int, bytes] | None:
    """Returns the id of the batch's last event, and the batch's hash; None if it has no row."""
    row: tuple[int, bytes] | None = connection.execute(
        "SELECT first_event + events - 1, hash FROM batch WHERE id = ?", (batch,)
    ).fetchone()
    return row


def _identity(path: Path) -> File | None:
    try:
        found = path.stat()
    except OSError:
        return None  # the file is being replaced; the open one can still be read
    return found.st_dev, found.st_ino
