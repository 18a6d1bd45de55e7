"""Checks the trail of a `Scene`: what was made after the forgets, nothing from before."""

from __future__ import annotations

from collections import Counter

from logd.audit.verify import verify
from logd.storage.boundaries import still_to_come
from logd.storage.database import Connection
from logd.storage.mentions import ERASED
from logd_wire.wire import unpack_props
from tests.logd.forgetting_clients import ANNA, Made
from tests.logd.forgetting_scene import Forgotten, Scene

BEFORE, AFTER = "before", "after"


def expected(made: Made, forgets: list[Forgotten]) -> set[str]:
    """The side of the forgets that an event is on; both if it was made while one was under way."""
    if any(made.moment < forget.began for forget in forgets):
        return {BEFORE}
    if all(forget.ended is not None and made.moment > forget.ended for forget in forgets):
        return {AFTER}
    return {BEFORE, AFTER}


def stored_events(connection: Connection) -> dict[tuple[str, int], tuple[str, dict[str, object]]]:
    """User and properties by producer and sequence."""
    rows = connection.execute(
        "SELECT p.key, e.sequence, e.user, e.props FROM event e"
        " JOIN producer p ON p.id = e.producer"
    )
    return {(key, sequence): (user, unpack_props(props)) for key, sequence, user, props in rows}


def lost_events(connection: Connection) -> set[tuple[str, int]]:
    rows = connection.execute(
        "SELECT p.key, l.first, l.last FROM loss l JOIN producer p ON p.id = l.producer"
    )
    return {(key, n) for key, first, last in rows for n in range(first, last + 1)}


def check(scene: Scene) -> Counter[str]:
    """Checks the trail; returns how many events of a forgotten person were on which side."""
    connection = scene.connection
    assert verify(connection).findings == []
    stored, lost = stored_events(connection), lost_events(connection)
    watermarks = dict(connection.execute("SELECT key, watermark FROM producer").fetchall())
    # Without an outbox, what is on its way to no daemon cannot be known.
    online = not any(forget.offline for forget in scene.forgets)
    seen: Counter[str] = Counter()
    erased = accepted = 0
    for source in scene.clients.sources:
        key = f"{source.id:016x}"
        reached = watermarks.get(key, 0)
        assert reached == len(source.made) or not source.has_outbox
        accepted += reached
        for sequence, made in enumerate(source.made[:reached], start=1):
            if (key, sequence) in lost:  # a killed daemon had it, and no outbox
                assert not source.has_outbox
                continue
            found = stored.get((key, sequence))
            if made.user == ANNA:
                gone = found is None
                erased += gone
            else:
                assert found is not None, (source, sequence)
                if not made.mention:
                    continue
                gone = found[1]["user"] == ERASED
            side = BEFORE if gone else AFTER
            allowed = expected(made, scene.forgets)
            seen["either" if len(allowed) == 2 else side] += 1
            if source.has_outbox or (online and allowed == {BEFORE}):
                assert side in allowed, (side, allowed, source.id, sequence, made, scene.forgets)
    counters = scene.counters()
    assert counters.get("stored", 0) - counters.get("own", 0) + len(lost) == accepted
    assert (counters.get("erased", 0), counters.get("lost", 0)) == (erased, len(lost))
    assert not counters.get("quarantined")
    assert still_to_come(connection) == {"events": 0, "producers": 0, "unreadable": 0}
    return seen


def check_nothing_is_kept(scene: Scene) -> None:
    """Checks that no boundary is kept once every producer has ended."""
    for source in scene.clients.sources:
        source.alive = False
    scene.settle()
    assert scene.store is not None
    rows = scene.connection.execute("SELECT * FROM forget_boundary").fetchall()
    assert rows == [] == list(scene.store.erasure_list.boundaries.rows)
