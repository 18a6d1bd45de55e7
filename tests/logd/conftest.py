"""Fixtures of tests of the daemon."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.clock import readings
from logd.ingest.open_outbox import OpenOutbox
from logd.maintenance import outbox_survey, stored_times
from tests.logd.forgetting_scene import Scene
from tests.logd.made_up_trail import Trail
from tests.logd.stepped_daemon import SteppedDaemon, Written
from tests.support.instance import Instance


@pytest.fixture
def clocks_from_1970(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets made-up times of days after 1970 count as times that a clock may show."""
    for module in (readings, stored_times):
        monkeypatch.setattr(module, "EARLIEST_NS", 0)


@pytest.fixture
def trail(directory: Path, request: pytest.FixtureRequest) -> Iterator[Trail]:
    """A trail with nothing stored yet, made up from a seed: the parameter, or 1."""
    made = Trail(directory, random.Random(getattr(request, "param", 1)))
    yield made
    made.store.close()


@pytest.fixture
def daemon(instance: Instance) -> Iterator[SteppedDaemon]:
    made = SteppedDaemon(instance)
    yield made
    made.close()


@pytest.fixture
def outbox(instance: Instance) -> Written:
    return Written(instance.config.outbox_directory)


@pytest.fixture
def stored(original: Path, instance: Instance) -> Instance:
    """A copy of the instance whose files a module's `original` has made."""
    shutil.copytree(original, instance.directory, dirs_exist_ok=True)
    return instance


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """A directory for scenes, in which a producer lives as long as the scene decides."""
    made: list[Scene] = []
    monkeypatch.setattr(
        OpenOutbox, "alive", lambda outbox: any(scene.clients.lives(outbox.name) for scene in made)
    )
    monkeypatch.setattr(outbox_survey, "PAGE_FILES", 2)
    return made


@pytest.fixture
def scene(directory: Path, scenes: list[Scene]) -> Iterator[Scene]:
    (directory / "s").mkdir()
    made = Scene(directory / "s", random.Random(1), kill=0)
    scenes.append(made)
    yield made
    made.close()
