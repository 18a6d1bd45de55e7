"""Removes the rows of batches whose events are all removed; nodes of the Merkle tree replace them.

Without a collapse every pruned batch would keep its row for ever, and so would every removed run of
events. The tree's hashes stay the same. The runs of a removal are deleted, and its events kept as a
number, once all of its batches are collapsed: the hash over the removal needs every run, and shows
until then that no other event was put in the place of a removed one. An internal event records how
many batches and events each step collapsed. A batch with a row in the loss ledger stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from logd.batch import BATCHES_COLLAPSED, Batch
from logd.storage import merkle, removal_log
from logd.storage.database import Connection
from logd.storage.hash_chain import read_chained
from logd.storage.store import Store
from logd.storage.tree import TILE_BATCHES, TILE_LEVEL, Piece, Tree
from logd_wire.schema import INT64_MAX

TILES_PER_STEP = 4
# How many removals have their runs deleted after one pass over all runs.
REMOVALS_PER_PASS = 50
RUNS_PER_STEP = 2000


@dataclass
class _Tile:
    """A tile's batches whose rows can be removed: their numbers, their events as (first, end)."""

    number: int
    batches: list[int] = field(default_factory=list)
    events: list[tuple[int, int]] = field(default_factory=list)


def collapse(store: Store, clock_ns: Callable[[], int]) -> Iterator[None]:
    """Collapses all batches that can be, in bounded steps, one transaction at each `next`.

    Only complete tiles are collapsed, so that the newest batches stay. Raises as `Store.commit`;
    where rows were changed, an error after which `logd.maintenance.worker` gives the job up.
    """
    connection, waiting = store.connection, list[_Tile]()
    # The tile that still grows is left out.
    for tile in _tiles(connection, store.head.batch >> TILE_LEVEL):
        found = None if tile is None else _find(connection, tile)
        if found is not None and found.batches:
            waiting.append(found)
        if len(waiting) == TILES_PER_STEP:
            _write(store, waiting, clock_ns())
            waiting = []
        yield
    if waiting:
        _write(store, waiting, clock_ns())
        yield
    yield from _delete_runs(store, clock_ns)


def _tiles(connection: Connection, end: int) -> Iterator[int | None]:
    """Yields the tiles before `end` with a batch that has removed events, in ascending order.

    Yields None after each step over events whose batches are collapsed already.
    """
    after, done = 0, -1
    while True:
        row = connection.execute(
            "SELECT max(first, ?1) FROM removed WHERE last >= ?1 AND first >= coalesce("
            "(SELECT max(first) FROM removed WHERE first <= ?1), ?1) ORDER BY first LIMIT 1",
            (after,),
        ).fetchone()
        if row is None:
            return
        (event,) = row
        batch, batch_end = connection.execute(
            "SELECT id, first_event + events FROM batch WHERE first_event <= ?"
            " ORDER BY first_event DESC, id DESC LIMIT 1",
            (event,),
        ).fetchone() or (0, 0)
        if event < batch_end:
            tile = (batch - 1) >> TILE_LEVEL
            # A record that was changed may name an event of a tile that is done: the work ends.
            if not done < tile < end:
                return
            yield tile
            done = tile
            following = connection.execute(
                "SELECT first_event FROM batch WHERE id > ? ORDER BY id LIMIT 1",
                ((tile + 1) << TILE_LEVEL,),
            ).fetchone()
        else:
            yield None
            following = connection.execute(
                "SELECT min(first_event) FROM batch WHERE first_event > ?", (event,)
            ).fetchone()
        if following is None or following[0] is None:
            return
        (after,) = following


def _find(connection: Connection, tile: int) -> _Tile:
    """Returns which of a tile's 256 batches can lose their rows."""
    found = _Tile(tile)
    rows = connection.execute(
        "SELECT id, first_event, first_event + events, EXISTS"
        " (SELECT 1 FROM loss WHERE batch = batch.id) FROM batch WHERE id > ? AND id <= ?"
        " ORDER BY id",
        (tile * TILE_BATCHES, (tile + 1) * TILE_BATCHES),
    ).fetchall()
    runs = _removed(connection, rows[0][1], rows[-1][2])
    at, empty = 0, list[tuple[int, int, int]]()
    for batch, first, end, has_losses in rows:
        while at < len(runs) and runs[at][1] <= first:
            at += 1
        if not has_losses and at < len(runs) and runs[at][0] <= first < end <= runs[at][1]:
            empty.append((batch, first, end))
    chained = read_chained(connection).batches
    last = (tile + 1) * TILE_BATCHES
    staying = {row[0] for row in rows}.difference(batch for batch, _first, _end in empty)
    if connection.execute("SELECT 1 FROM batch WHERE id = ?", (last + 1,)).fetchone():
        staying.add(last + 1)
    for batch, first, end in empty:
        # The losses of a batch of the former chain are in its hash alone, which is verified with
        # the hash of the batch before it.
        if batch + 1 > chained or batch + 1 not in staying:
            found.batches.append(batch)
            found.events.append((first, end))
    return found


def _removed(connection: Connection, first: int, end: int) -> list[tuple[int, int]]:
    """Returns the removed events from `first` to before `end`, in runs (first, end)."""
    rows = connection.execute(
        "SELECT first, last + 1 FROM removed WHERE first < ? AND last >= ? AND first >= coalesce("
        "(SELECT max(first) FROM removed WHERE first <= ?), ?) ORDER BY first",
        (end, first, first, first),
    )
    return _joined(rows)


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins runs (first, end) that follow one another without a gap."""
    joined: list[tuple[int, int]] = []
    for first, end in runs:
        if joined and joined[-1][1] == first:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((first, end))
    return joined


def _write(store: Store, tiles: Sequence[_Tile], now_ns: int) -> None:
    """Collapses the batches of the given tiles in one transaction."""

    def work(connection: Connection, batch: Batch) -> None:
        tree = Tree(connection)
        # Nothing else in the trail shows what the nodes that replace batches were.
        size = tree.size()
        root = {"size": size, "root": tree.root_at(size).hex()}
        for tile in tiles:
            _replace_by_nodes(connection, tree, tile)
            for first, end in _joined(tile.events):
                _count_collapsed(connection, first, end)
        (number,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM collapse").fetchone()
        if type(number) is not int:
            raise ValueError("the number of the last collapse was changed")
        numbers = {
            "first": tiles[0].batches[0],
            "last": tiles[-1].batches[-1],
            "batches": sum(len(tile.batches) for tile in tiles),
            "events": sum(end - first for tile in tiles for first, end in tile.events),
        }
        connection.execute(
            "INSERT INTO collapse VALUES (?, ?, ?, ?, ?, ?)",
            (number, store.next_event, *numbers.values()),
        )
        # More removals cannot be said to be of schema 11 than the trail has recorded.
        (former,) = connection.execute(removal_log.COUNT_FORMER).fetchone()
        props = {"collapse": number, **numbers, **root, "former": former}
        store.append_internal_event(batch, BATCHES_COLLAPSED, props, now_ns)

    store.transact(work, now_ns, flush=False)


def _replace_by_nodes(connection: Connection, tree: Tree, tile: _Tile) -> None:
    """Deletes the batches' rows; the largest nodes over the tile's missing rows are kept."""
    first = tile.number * TILE_BATCHES
    end = first + TILE_BATCHES
    pieces = list(tree.pieces(first, end))
    connection.executemany("DELETE FROM batch WHERE id = ?", [(batch,) for batch in tile.batches])
    for level in range(TILE_LEVEL):
        connection.execute(
            "DELETE FROM node WHERE level = ? AND position >= ? AND position < ?",
            (level, first >> level, end >> level),
        )
    rows = connection.execute("SELECT id - 1 FROM batch WHERE id > ? AND id <= ?", (first, end))
    gone = sorted(set(range(first, end)).difference(leaf for (leaf,) in rows))
    if len(gone) == TILE_BATCHES:
        return  # the tile's own node is there already
    for run_first, run_last in removal_log.runs(gone):
        for level, position in merkle.blocks(run_first, run_last + 1):
            digest = _block(pieces, position << level, (position + 1) << level)
            connection.execute("INSERT INTO node VALUES (?, ?, ?)", (level, position, digest))


def _block(pieces: Sequence[Piece], first: int, end: int) -> bytes:
    """Returns the hash of the block of the leaves from `first` to before `end`."""
    block = merkle.Growing()
    for leaf, level, digest in pieces:
        if first <= leaf < end:
            block.append_block(level, digest)
    return block.root()


def _count_collapsed(connection: Connection, first: int, end: int) -> None:
    """Counts these events, whose batches are collapsed, in the rows of their removals.

    Records of redactions stay: without one of them the hash over the others could not be verified,
    and an event could be changed under the name of a redaction that was recorded.
    """
    events, former = Counter[int](), Counter[int]()
    for run_first, run_last, removal, is_former in connection.execute(
        "SELECT d.first, d.last, d.removal, coalesce(r.collapsed_events, 0) > 0"
        " FROM removed d LEFT JOIN removal r ON r.id = d.removal"
        " WHERE d.first < ? AND d.last >= ? AND d.first >="
        " (SELECT max(first) FROM removed WHERE first <= ?)",
        (end, first, first),
    ).fetchall():
        number = min(end, run_last + 1) - max(first, run_first)
        if not is_former:
            events[removal] += number
            continue
        # Schema 11 has deleted some of its runs, so that its hash cannot be computed any more.
        former[removal] += number
        connection.execute("DELETE FROM removed WHERE first = ?", (run_first,))
        for kept_first, kept_last in ((run_first, first - 1), (end, run_last)):
            if kept_first <= kept_last:
                connection.execute(
                    "INSERT INTO removed VALUES (?, ?, ?)", (kept_first, kept_last, removal)
                )
    for column, counted in (("waiting_events", events), ("collapsed_events", former)):
        connection.executemany(
            f"UPDATE removal SET {column} = {column} + ? WHERE id = ?",  # noqa: S608 - two names
            [(number, removal) for removal, number in counted.items()],
        )


def _delete_runs(store: Store, clock_ns: Callable[[], int]) -> Iterator[None]:
    """Deletes the runs of each removal whose batches are all collapsed; their number is kept."""
    connection = store.connection
    while complete := dict(
        connection.execute(
            "SELECT id, events FROM removal WHERE waiting_events > 0 AND waiting_events >= events"
            " ORDER BY id LIMIT ?",
            (REMOVALS_PER_PASS,),
        ).fetchall()
    ):
        runs: dict[int, list[int]] = {removal: [] for removal in complete}
        left = Counter(complete)
        after: int | None = -INT64_MAX
        while after is not None:
            rows = connection.execute(
                "SELECT first, last, removal FROM removed WHERE first > ? ORDER BY first LIMIT ?",
                (after, RUNS_PER_STEP),
            ).fetchall()
            for first, last, removal in rows:
                if removal in runs:
                    runs[removal].append(first)
                    left[removal] -= last - first + 1
                    if left[removal] < 0:
                        raise ValueError(f"removal {removal} has runs of more events than its own")
            after = rows[-1][0] if len(rows) == RUNS_PER_STEP else None
            yield
        if any(left.values()):
            raise ValueError("a removal has runs of fewer events than its own")
        for removal, firsts in runs.items():
            _keep_as_number(store, removal, firsts, clock_ns())
            yield


def _keep_as_number(store: Store, removal: int, runs: Sequence[int], now_ns: int) -> None:
    """Deletes all runs of a removal in one transaction: the hash over it needs all of them."""

    def work(connection: Connection, _batch: Batch) -> None:
        connection.executemany("DELETE FROM removed WHERE first = ?", [(run,) for run in runs])
        connection.execute(
            "UPDATE removal SET collapsed_events = events, waiting_events = 0 WHERE id = ?",
            (removal,),
        )

    store.transact(work, now_ns, flush=False)
