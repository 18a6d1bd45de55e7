"""Real processes killed at random points: nothing accepted is lost, twice, or out of order."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.harness import slow_flush
from tests.faults.scene import MakeScene, Scene
from tests.faults.site import SERVINGS
from tests.support.progress import Progress
from tests.support.tally import Tally

CROWDS = (
    ("outbox",) * 5,
    ("outbox", "outbox", "outbox", "bare", "bare"),
    ("outbox", "outbox", "handler_emits", "handler_raises"),
    ("outbox", "outbox", "forks", "forks"),
)


@pytest.mark.parametrize("seed", [1])
def test_whatever_is_killed_wherever_all_that_was_accepted_is_stored_once_in_order(
    make_scene: MakeScene, tally: Tally, seed: int
) -> None:
    scene = make_scene(seed, ("outbox",) * 3)
    while scene.kills.total() < 8:
        scene.fault()
    scene.finish(tally)


@pytest.mark.parametrize("seed", [3])
def test_handlers_that_emit_raise_or_fork_in_an_emit_change_nothing_of_it(
    make_scene: MakeScene, tally: Tally, seed: int
) -> None:
    """Signal handlers that come in the middle of an emit, again and again, under the same kills."""
    scene = make_scene(seed, ("handler_emits", "handler_raises", "forks"))
    while scene.kills.total() < 4:
        scene.fault()
    scene.finish(tally)
    of_kind = {kind: [e for e in scene.crowd.everybody if e.kind == kind] for kind in scene.kinds}
    assert any(e.refused_in_handlers for e in of_kind["handler_emits"]), "none came in an emit"
    assert any(e.cut_short for e in of_kind["handler_raises"]), "none was cut short"
    assert any(e.children for e in of_kind["forks"]), "none has forked"


SEGMENT_KILLS = 50
LONG_KILLS = 1000


@pytest.mark.long(minutes=21)
def test_1000_kills_lose_nothing_store_nothing_twice_and_keep_every_order(
    make_scene: MakeScene, directory: Path, tally: Tally, progress: Progress
) -> None:
    """In scenes of 50 kills, each with another crowd, disk, or site; checked to the last event at
    the end of each. Only a client without an outbox loses anything, and the ledger has all of it.
    """
    try:
        disks = [slow_flush.environment(directory, flush_ms) for flush_ms in (0, 0, 20, 80)]
    except slow_flush.NoCompiler as reason:
        disks = [{}]
        tally.say(f"1,000 kills without a slow disk: {reason}")
    kills: Counter[str] = Counter()
    stored = together = 0
    scene: Scene | None = None
    for number in progress(range(LONG_KILLS), "kills"):
        if scene is None:
            scene = make_long_scene(1000 + number, make_scene, disks)
        while kills.total() + scene.kills.total() <= number:
            scene.fault()
        if scene.kills.total() >= SEGMENT_KILLS or number == LONG_KILLS - 1:
            scene.finish(tally)
            scene.close()
            kills += scene.kills
            together += scene.together
            stored += scene.instance.status()["stored"]
            shutil.rmtree(scene.instance.directory)
            scene = None
        progress.note = f"{stored:,} events stored and checked"
    tally.say(
        "killed: "
        + ", ".join(f"{count} times a {who}" for who, count in kills.most_common())
        + f"; {together} times a daemon in the same instant as others"
    )
    assert kills.total() >= LONG_KILLS


def make_long_scene(seed: int, make_scene: MakeScene, disks: list[dict[str, str]]) -> Scene:
    """One of many kinds of scene, by the seed."""
    rng = random.Random(seed)
    env, held = rng.choice(disks), rng.random() < 0.5
    if rng.random() < 0.5:
        serving = rng.choice(list(SERVINGS.values()))
        return make_scene(seed, ("outbox",), held=held, env=env, serving=serving)
    return make_scene(seed, rng.choice(CROWDS), held=held, env=env)
