"""Fixtures for tests under faults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import HeldInstance, MakeScene, Scene
from tests.faults.site import Serving
from tests.faults.stepped import Start, stepped_daemons
from tests.faults.web_scene import WebScene
from tests.support.instance import Instance


@pytest.fixture
def held(directory: Path) -> Iterator[HeldInstance]:
    """An instance whose socket stays open without its daemon."""
    made = HeldInstance(directory / "held")
    yield made
    made.close()


@pytest.fixture
def start(instance: Instance) -> Iterator[Start]:
    """Makes a daemon, with settings, that only steps when told to."""
    with stepped_daemons(instance) as starting:
        yield starting


@pytest.fixture
def make_scene(directory: Path) -> Iterator[MakeScene]:
    """Makes scenes, each with an instance of its own, and a site if it is told how to serve one;
    all gone at the end.
    """
    with contextlib.ExitStack() as stack:

        def make(
            seed: int,
            kinds: tuple[str, ...],
            *,
            held: bool = False,
            env: dict[str, str] | None = None,
            serving: Serving | None = None,
        ) -> Scene:
            place = directory / f"i{seed}"
            instance = HeldInstance(place) if held else Instance(place)
            stack.callback(instance.close)
            if serving is None:
                scene = Scene(instance, seed, kinds, env)
            else:
                scene = WebScene(instance, seed, kinds, env, serving=serving)
            stack.callback(scene.close)
            return scene

        yield make
