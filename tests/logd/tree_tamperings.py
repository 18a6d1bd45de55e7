"""Changes of the rows of the Merkle tree, each with a part of what `verify` must report."""

from __future__ import annotations

CHAINED = 21  # batches of two events each
LARGE = 64  # the batch with that many events
BATCHES = 170
LEVELS = (2, 4, 6)
GONE, PARTLY = 30, 63  # all events of that batch, and some of it, are removed
HASH = "zeroblob(32)"
LEAF = f"(SELECT first_event FROM main.batch WHERE id = {LARGE})"
NOT_FROM_THEM, NOT_ALL = (
    "does not follow from them",
    "nodes of level {level}, {end} should be there",
)


# At each level; `{at}` is WHERE level = ... AND position.
NODES = [
    ("UPDATE node SET hash = zeroblob(32) {at} = 0", "over batches 1 to"),
    (
        "UPDATE node SET hash = CAST(x'00' || substr(hash, 2) AS BLOB) {at} = {end} - 1",
        NOT_FROM_THEM,
    ),
    ("UPDATE node SET hash = CAST(substr(hash, 2) || x'00' AS BLOB) {at} >= 0", NOT_FROM_THEM),
    ("UPDATE node SET hash = 'text' {at} >= 0", NOT_FROM_THEM),
    ("UPDATE node SET hash = x'00' {at} = 1", NOT_FROM_THEM),
    ("UPDATE node SET hash = 5 {at} = 0", NOT_FROM_THEM),
    ("UPDATE node SET hash = (SELECT hash FROM node {at} = 1) {at} = 0", NOT_FROM_THEM),
    ("DELETE FROM node {at} = 0", NOT_ALL + ": not so from batch 1 on"),
    ("DELETE FROM node {at} = {end} - 1", NOT_ALL),
    ("DELETE FROM node {at} >= 0", NOT_ALL),
    ("INSERT INTO node VALUES ({level}, {end}, zeroblob(32))", NOT_ALL),
    ("INSERT INTO node VALUES ({level}, -1, zeroblob(32))", NOT_ALL),
    ("INSERT INTO node VALUES ({level}, 'x', zeroblob(32))", NOT_ALL),
    ("UPDATE node SET position = 9000 {at} = 1", NOT_ALL),
    ("UPDATE node SET position = 0.5 {at} = 1", "nodes do not belong to the tree"),
    ("UPDATE node SET level = level + 1 {at} = 1", NOT_ALL),
    ("INSERT INTO node SELECT level - 1, 2 * position, hash FROM node {at} = 1", " the tree"),
    ("INSERT INTO node SELECT level - 3, 2 * position, hash FROM node {at} = 1", " the tree"),
]


STRAY = [
    *((0, 168), (0, 169), (0, 170), (0, 10**9), (0, "'x'"), (0, 1.5), (1, -1), (1, 84), (1, 2**62)),
    *(
        (-2, 0),
        (-1, 5),
        (2.5, 0),
        (3, 0),
        (3, 2**60),
        (5, 2),
        (64, 0),
        (65, 0),
        (66, 0),
        (2**40, 0),
    ),
    *(("'x'", 0), ("x'02'", 0)),
]


TAMPERINGS = [
    # -- nodes ---------------------------------------------------------------------------------
    *(
        tuple(
            text.format(level=level, end=BATCHES >> level, at=f"WHERE level = {level} AND position")
            for text in pair
        )
        for level in LEVELS
        for pair in NODES
    ),
    *(
        (f"INSERT INTO node VALUES ({level}, {position}, {HASH})", "1 nodes do not belong to")
        for level, position in STRAY
    ),
    *(
        (f"INSERT INTO node VALUES ({level}, 0, {HASH})", f"1 nodes of level {level}, 0 should be")
        for level in (8, 10, 62)
    ),
    *(
        (
            f"INSERT INTO node VALUES ({level}, {position}, {HASH})",
            f"batch {(position << level) + 1}: a node of the tree stands for it",
        )
        for level, position in [(0, 0), (0, 3), (1, 0), (1, 1), (0, 50), (1, 83)]
    ),
    # -- batches -------------------------------------------------------------------------------
    *(
        (f"DELETE FROM batch WHERE id = {number}", f"batch {number} to {number}: removed")
        for number in (1, 4, 5, CHAINED, CHAINED + 1, 64, 65, 128, 169)
    ),
    ("DELETE FROM batch WHERE id = 170", "170"),
    ("DELETE FROM batch WHERE id > 8 AND id <= 16", "batch 9 to 16 is recorded nowhere"),
    ("DELETE FROM batch WHERE id > 166", "counter commits"),
    *(
        (f"DELETE FROM batch WHERE id > {first} AND id <= {end}", "batches with")
        for first, end in [(3, 8), (28, 48), (0, 64), (64, 168)]
    ),
    *(
        (
            f"INSERT OR REPLACE INTO batch SELECT {new}, stored_ns, first_event, events,"
            f" leaves_hash, hash FROM batch WHERE id = {old}",
            f"batch {new} ",
        )
        for new, old in [(40, 41), (41, 40), (5, 6), (CHAINED, CHAINED + 1), (CHAINED + 1, CHAINED)]
    ),
    ("UPDATE batch SET hash = zeroblob(32) WHERE id = 40", "batch 40 "),
    ("UPDATE batch SET hash = 'text' WHERE id = 40", "batch 40 was changed: hash is text"),
    (
        "UPDATE batch SET leaves_hash = 'text' WHERE id = 5",
        "batch 5 was changed: leaves_hash is text",
    ),
    ("UPDATE batch SET hash = 'text' WHERE id = 5", "batch 5 was changed: hash is text"),
    ("UPDATE batch SET hash = 'text' WHERE id = 170", "batch 170 was changed: hash is text"),
    ("UPDATE batch SET leaves_hash = 7 WHERE id = 170", "batch 170 was changed: leaves_hash is"),
    ("UPDATE batch SET stored_ns = 'text' WHERE id = 5", "batch 5 was changed: stored_ns is text"),
    ("UPDATE batch SET hash = zeroblob(32) WHERE id = 5", "batch 5 "),
    ("UPDATE batch SET leaves_hash = zeroblob(32) WHERE id = 5", "batch 5 "),
    ("UPDATE batch SET leaves_hash = zeroblob(32) WHERE id = 40", "batch 40 "),
    (f"UPDATE batch SET leaves_hash = zeroblob(32) WHERE id = {GONE}", f"batch {GONE} "),
    ("UPDATE batch SET stored_ns = 8 WHERE id = 170", "batch 170 "),
    *(
        (
            f"INSERT INTO batch SELECT {far}, stored_ns, first_event, events, leaves_hash, hash"
            " FROM batch WHERE id = 170",
            "batch 171 to",
        )
        for far in (172, 500, 10**12, 2**63 - 1)
    ),
    *(
        (sql, "batch 56 ")
        for sql in (
            "UPDATE loss SET last = last + 1 WHERE batch = 56 AND cause = 'claimed'",
            "UPDATE loss SET cause = 'restored' WHERE batch = 56 AND cause = 'not received'",
            "UPDATE loss SET id = id + 1000 WHERE batch = 56 AND cause = 'not received'",
            "DELETE FROM loss WHERE batch = 56 AND cause = 'claimed'",
            "DELETE FROM loss WHERE batch = 56",
        )
    ),
    # -- chained -------------------------------------------------------------------------------
    *(
        (f"UPDATE chained SET {change}", expected)
        for change, expected in [
            ("batches = batches - 1", f"batch {CHAINED} "),
            ("batches = batches + 1", f"batch {CHAINED + 1} "),
            ("batches = 0", "batch 1 "),
            ("batches = 10000", f"batch {CHAINED + 1} "),
            ("events = events + 1", "chain"),
            ("events = events - 1", "chain"),
            ("events = 0", "chain"),
            ("events = 10000", "chain"),
            ("batches = -1, events = -1", "chain"),
            ("batches = 'x'", "chain"),
            ("events = 'x'", "chain"),
            ("batches = 20.5", "chain"),
            ("batches = 0, events = 0", "batch 1 "),
        ]
    ),
    ("DELETE FROM chained", "chain"),
    # -- leaves of removed events --------------------------------------------------------------
    *(
        (sql, f"batch {LARGE} ")
        for sql in (
            f"UPDATE leaf SET hash = {HASH} WHERE level = 3",
            f"UPDATE leaf SET hash = {HASH} WHERE event = {LEAF} + 3",
            "UPDATE leaf SET level = 2 WHERE level = 3",
            "UPDATE leaf SET level = level + 1 WHERE level > 1",
            "UPDATE leaf SET level = 0 WHERE level > 0",
            "UPDATE leaf SET event = event + 1 WHERE level = 3",
            "UPDATE leaf SET event = event - 1 WHERE level = 3",
            "DELETE FROM leaf WHERE level = 3",
            f"DELETE FROM leaf WHERE event = {LEAF} + 3",
            f"DELETE FROM leaf WHERE event = {LEAF} + 44",
            f"INSERT INTO leaf SELECT event + 1, hash, level FROM leaf WHERE event = {LEAF} + 44",
            "INSERT INTO leaf SELECT event + 1, hash, level - 1 FROM leaf WHERE level = 3",
            "INSERT INTO leaf SELECT event + 1, hash, 0 FROM leaf WHERE level = 3",
            f"INSERT INTO leaf VALUES ({LEAF}, {HASH}, 0)",
            f"INSERT INTO leaf VALUES ({LEAF} + 63, {HASH}, 0)",
            f"UPDATE leaf SET event = event + 5 WHERE event = {LEAF} + 50",
        )
    ),
    ("UPDATE leaf SET level = 25 WHERE level = 3", "level is 25, expected 0 to 24"),
    ("UPDATE leaf SET level = -1 WHERE level = 3", "level is -1, expected"),
    ("UPDATE leaf SET level = 'x' WHERE level = 3", "level is text"),
    ("UPDATE leaf SET hash = 'x' WHERE level = 3", "hash is text"),
    ("UPDATE leaf SET level = 1 WHERE event = 2", "batch 1 "),
    (f"UPDATE leaf SET hash = {HASH} WHERE event = 2", "batch 1 "),
    ("DELETE FROM leaf WHERE event = 2", "batch 1 "),
    (f"INSERT INTO leaf VALUES (3, {HASH}, 0)", "batch 2 "),
    (
        f"INSERT INTO leaf SELECT first_event, {HASH}, 0 FROM batch WHERE id = {GONE}",
        f"batch {GONE} ",
    ),
    (f"INSERT INTO leaf VALUES (100000, {HASH}, 0)", "leaf of event 100000"),
    (f"INSERT INTO leaf VALUES (0, {HASH}, 0)", "leaf of event 0"),
    # -- what is known by numbers --------------------------------------------------------------
    *(
        (
            f"UPDATE removal SET {change} WHERE id = {removal}",
            f"removal {removal}: what it took out",
        )
        for removal in (1, 3)
        for change in (
            "collapsed_events = 1",
            "collapsed_events = 1, events = events - 1",
            "events = events + 1",
        )
    ),
    ("UPDATE removal SET collapsed_events = -1 WHERE id = 2", "removal 2 was changed"),
    ("UPDATE removal SET collapsed_events = 'x' WHERE id = 2", "removal 2 was changed"),
    ("UPDATE removal SET collapsed_events = 0.5 WHERE id = 1", "removal 1 was changed"),
    ("UPDATE removal SET waiting_events = -1 WHERE id = 2", "removal 2 was changed"),
    ("UPDATE removal SET waiting_events = 'x' WHERE id = 2", "removal 2 was changed"),
    ("UPDATE removal SET waiting_events = 1 WHERE id = 1", "removals record that of 1"),
    ("UPDATE removal SET waiting_events = events + 1 WHERE id = 1", "removal 1: what it took out"),
    (
        "UPDATE removal SET collapsed_events = events - 3, hash = zeroblob(32) WHERE id = 1",
        "removal 1: what it took out was changed",
    ),
    ("INSERT INTO collapse VALUES (1, 1, 1, 1, 1, 2)", "collapse 1: event 1 does not record it"),
    ("INSERT INTO collapse VALUES (1, 1, 1, 1, 0, 0)", "collapse 1 was changed: batches is 0"),
    ("INSERT INTO collapse VALUES (1, 'x', 1, 1, 1, 1)", "collapse 1 was changed: event is text"),
]
