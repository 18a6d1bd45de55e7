"""gunicorn's workers and masters come, go and are killed: what an answer said is stored."""

from __future__ import annotations

import pytest

from tests.faults.scene import MakeScene
from tests.faults.site import SERVINGS
from tests.faults.web_scene import WebScene
from tests.support.instance import until
from tests.support.tally import Tally


@pytest.mark.parametrize("name", ["sync", "gthread, preload"])
def test_what_an_answer_reported_as_accepted_is_stored_whoever_is_killed(
    make_scene: MakeScene, tally: Tally, name: str
) -> None:
    """Workers also end by themselves after some requests, by the dozen."""
    scene = make_scene(20 + list(SERVINGS).index(name), (), serving=SERVINGS[name])
    assert isinstance(scene, WebScene)
    while scene.kills.total() < 3:
        scene.fault()
    until(lambda: scene.site.recycled >= 3, "workers have ended by themselves")
    scene.finish(tally)
    tally.say(
        f"gunicorn, {name}: {len(scene.load.answered):,} answers, "
        f"{len(scene.load.unanswered)} never answered, {scene.site.recycled} workers recycled"
    )
