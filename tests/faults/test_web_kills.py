"""gunicorn's workers and masters come, go and are killed: what an answer said is stored."""

from __future__ import annotations

import pytest

from tests.faults.site import SERVINGS
from tests.faults.web_scene import MakeWebScene
from tests.support import until
from tests.tally import Tally


@pytest.mark.parametrize("name", ["sync", "gthread, preload"])
def test_what_an_answer_said_is_accepted_is_stored_whoever_is_killed(
    make_web_scene: MakeWebScene, tally: Tally, name: str
) -> None:
    """Workers also end by themselves after some requests, by the dozen."""
    scene = make_web_scene(20 + list(SERVINGS).index(name), (), SERVINGS[name])
    while scene.kills.total() < 3:
        scene.fault()
    until(lambda: scene.site.recycled >= 3, "workers have ended by themselves")
    scene.finish(tally)
    tally.say(
        f"gunicorn, {name}: {len(scene.load.answered):,} answers, "
        f"{len(scene.load.unanswered)} never answered, {scene.site.recycled} workers recycled"
    )
