"""`tail --follow`: reads on in the trail, whatever happens to the daemon and to the file.

The daemon may restart, bring the schema up to date, or be away. The database may be replaced: by a
restored backup, or by the same trail under a new key. Then it is opened anew, and the chain tells
from which event on the two differ: what was shown already is not shown again.
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

Say = Callable[[str], None]
File = tuple[int, int]


def events(
    config: Config, selection: Selection, lines: int, follow: bool, say: Say
) -> Iterator[Row]:
    """The newest events chosen, so many, oldest first; with `follow` those to come, without an end.

    With `follow` it waits for what is not there yet, and `say` hears what it waits for. Raises
    LogdError kinds where waiting would not help.
    """
    follower = Follower(config, selection, say)
    try:
        follower.open(wait=follow)
        yield from follower.newest(lines)
        while follow:
            time.sleep(INTERVAL_S)
            yield from follower.look()
    finally:
        follower.close()


class Follower:
    """A place in the trail: `last` is the id up to which every event was looked at."""

    def __init__(self, config: Config, selection: Selection, say: Say) -> None:
        self.last = 0
        self._config = config
        self._selection = selection
        self._say = say
        self._connection: Connection | None = None
        self._file: File | None = None
        self._stale = False
        self._trouble: str | None = None

    def open(self, *, wait: bool) -> None:
        """Opens the database; with `wait`, once there is one of today's schema."""
        while True:
            try:
                self._open()
            except (NoDatabase, OlderSchema, StorageBusy) as error:
                if not wait:
                    raise
                self._tell(str(error))
                time.sleep(INTERVAL_S)
            else:
                return

    def newest(self, lines: int) -> list[Row]:
        """At most so many of the newest events, oldest first."""
        self.last = newest_id(self._connection)
        return newest(
            self._connection, self._selection, lines, up_to_id=self.last, rows_max=PAGE_ROWS_MAX
        )

    def look(self) -> Iterator[Row]:
        """What has come since. What keeps it from being read is said once, and tried again."""
        try:
            if self._stale or _file(self._config.database) not in (self._file, None):
                self._open()
            yield from self._more()
            self._trouble = None
        except NewerSchema:
            raise  # no later look of this program's can read it
        except LogdError as error:
            self._tell(str(error))
        except DatabaseError as error:
            self._stale = True
            self._tell(str(translate(error, self._config.database)))

    def _more(self) -> Iterator[Row]:
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
        # Looked at first: a file that takes its place meanwhile is noticed at the next look.
        file = _file(self._config.database)
        connection = opening.open_for_events(self._config)
        before, self._connection = self._connection, connection
        self._file, self._stale = file, False
        if before is not None:
            same = common_events(before, connection)
            before.close()
            if same < self.last:
                self._say(
                    f"{self._config.database}: is another trail from event {same + 1} on;"
                    " going on from there"
                )
                self.last = same

    def close(self) -> None:
        """Lets go of the database."""
        if self._connection is not None:
            self._connection.close()

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._say(f"waiting: {trouble}")
        self._trouble = trouble


def common_events(one: Connection, other: Connection) -> int:
    """The id of the last event up to which two trails are the same, 0 for none.

    A batch's hash covers all batches before it, so that halving finds the last they share.
    """
    low, high = 0, min(_last_batch(one), _last_batch(other))
    while low < high:
        middle = (low + high + 1) // 2
        if _batch(one, middle) == _batch(other, middle):
            low = middle
        else:
            high = middle - 1
    found = _batch(other, low)
    return found[0] if found else 0


def _last_batch(connection: Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()[0])


def _batch(connection: Connection, batch: int) -> tuple[int, bytes] | None:
    """The id of its last event, and its hash."""
    row: tuple[int, bytes] | None = connection.execute(
        "SELECT first_event + events - 1, hash FROM batch WHERE id = ?", (batch,)
    ).fetchone()
    return row


def _file(path: Path) -> File | None:
    try:
        found = path.stat()
    except OSError:
        return None  # it is being replaced; what is open can still be read
    return found.st_dev, found.st_ino
