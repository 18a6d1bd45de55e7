"""Removes the rows of batches whose events are all removed; nodes of the Merkle tree replace them.

Without a collapse every pruned batch would keep its row for ever, and so would every removed run of
events. The tree's hashes stay the same. The records of the removals of such batches are kept as
numbers. An internal event records how many batches and events each step collapsed. A batch with a
row in the loss ledger stays.
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

TILES_PER_STEP = 4


@dataclass
class _Tile:
    """A tile's batches whose rows can be removed: their numbers, their events as (first, end)."""

    number: int
    batches: list[int] = field(default_factory=list)
    events: list[tuple[int, int]] = field(default_factory=list)


def collapse(store: Store, clock_ns: Callable[[], int]) -> Iterator[None]:
    """Collapses all batches that can be, in bounded steps, one transaction at each `next`.

    Only complete tiles are collapsed, so that the newest batches stay. Raises as `Store.commit`.
    """
    connection, after, done = store.connection, 0, -1
    end = store.head.batch >> TILE_LEVEL  # the tile that still grows is left out
    waiting: list[_Tile] = []
    # A record that was changed may name an event of a tile that is done: the work still ends.
    while (tile := _next_tile(connection, after)) is not None and done < tile < end:
        done = tile
        found, after = _find(connection, tile)
        if found.batches:
            waiting.append(found)
        if len(waiting) == TILES_PER_STEP:
            _write(store, waiting, clock_ns())
            waiting = []
        yield
    if waiting:
        _write(store, waiting, clock_ns())
        yield


def _next_tile(connection: Connection, after: int) -> int | None:
    """Returns the tile of the first removed event from `after` on; None if no event is removed."""
    row = connection.execute(
        "SELECT max(first, ?1) FROM removed WHERE last >= ?1 ORDER BY first LIMIT 1", (after,)
    ).fetchone()
    if row is None:
        return None
    (batch,) = connection.execute(
        "SELECT id FROM batch WHERE first_event <= ? ORDER BY first_event DESC, id DESC LIMIT 1",
        row,
    ).fetchone()
    return int(batch - 1) >> TILE_LEVEL


def _find(connection: Connection, tile: int) -> tuple[_Tile, int]:
    """Returns which of a tile's 256 batches can lose their rows, and the first event after them."""
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
    return found, rows[-1][2]


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
                _keep_as_numbers(connection, first, end)
        (number,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM collapse").fetchone()
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
        props = {"collapse": number, **numbers, **root}
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


def _keep_as_numbers(connection: Connection, first: int, end: int) -> None:
    """Deletes the records of these events' removal, and adds their number to the removal's row.

    Records of redactions stay: without one of them the hash over the others could not be verified,
    and an event could be changed under the name of a redaction that was recorded.
    """
    events = Counter[int]()
    for run_first, run_last, removal in connection.execute(
        "SELECT first, last, removal FROM removed WHERE first < ? AND last >= ? AND first >="
        " (SELECT max(first) FROM removed WHERE first <= ?)",
        (end, first, first),
    ).fetchall():
        connection.execute("DELETE FROM removed WHERE first = ?", (run_first,))
        for kept_first, kept_last in ((run_first, first - 1), (end, run_last)):
            if kept_first <= kept_last:
                connection.execute(
                    "INSERT INTO removed VALUES (?, ?, ?)", (kept_first, kept_last, removal)
                )
        events[removal] += min(end, run_last + 1) - max(first, run_first)
    connection.executemany(
        "UPDATE removal SET collapsed_events = collapsed_events + ? WHERE id = ?",
        [(number, removal) for removal, number in events.items()],
    )
