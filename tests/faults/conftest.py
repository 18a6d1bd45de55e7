"""Fixtures for tests under faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import HeldInstance, MakeScene, Scene
from tests.faults.site import Serving
from tests.faults.web_scene import MakeWebScene, WebScene
from tests.support import Instance


@pytest.fixture
def held(directory: Path) -> Iterator[HeldInstance]:
    """An instance whose socket outlives its daemon."""
    made = HeldInstance(directory / "held")
    yield made
    made.close()


def instance_at(place: Path, held: bool) -> Instance:
    """One whose socket the test holds, or the daemon alone."""
    return HeldInstance(place) if held else Instance(place)


@pytest.fixture
def make_scene(directory: Path) -> Iterator[MakeScene]:
    """Makes scenes, each with an instance of its own; all gone at the end."""
    made: list[Scene] = []

    def make(
        seed: int,
        kinds: tuple[str, ...],
        *,
        held: bool = False,
        env: dict[str, str] | None = None,
    ) -> Scene:
        made.append(Scene(instance_at(directory / f"i{len(made)}", held), seed, kinds, env))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def make_web_scene(directory: Path) -> Iterator[MakeWebScene]:
    """Makes scenes with a site; all gone at the end."""
    made: list[WebScene] = []

    def make(
        seed: int,
        kinds: tuple[str, ...],
        serving: Serving,
        *,
        held: bool = False,
        env: dict[str, str] | None = None,
    ) -> WebScene:
        instance = instance_at(directory / f"w{len(made)}", held)
        made.append(WebScene(instance, seed, kinds, env, serving=serving))
        return made[-1]

    yield make
    for scene in made:
        scene.close()
