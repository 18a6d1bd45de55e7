"""Real processes killed at random points: nothing accepted is lost, twice, or out of order."""

from __future__ import annotations

import pytest

from tests.faults.scene import MakeScene
from tests.tally import Tally


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_killed_wherever_all_that_was_accepted_is_stored_once_in_order(
    make_scene: MakeScene, tally: Tally, seed: int
) -> None:
    scene = make_scene(seed, ("outbox",) * 3)
    while scene.kills.total() < 6:
        scene.fault()
    scene.finish(tally)


@pytest.mark.parametrize("seed", [3])
def test_handlers_that_emit_raise_or_fork_in_an_emit_change_nothing_of_it(
    make_scene: MakeScene, tally: Tally, seed: int
) -> None:
    """Signal handlers that come in the middle of an emit, again and again, under the same kills."""
    scene = make_scene(seed, ("handler_emits", "handler_raises", "forks"))
    while scene.kills.total() < 5:
        scene.fault()
    scene.finish(tally)
    of_kind = {kind: [e for e in scene.crowd.everybody if e.kind == kind] for kind in scene.kinds}
    assert any(e.refused_in_handlers for e in of_kind["handler_emits"]), "none came in an emit"
    assert any(e.cut_short for e in of_kind["handler_raises"]), "none was cut short"
    assert any(e.children for e in of_kind["forks"]), "none has forked"
