"""Erasure by sequence: events from before a forget go, later ones stay, whatever they claim."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.ingest.drain import Datagram
from logd.storage import erasure_list
from tests.logd.forgetting_check import check, check_nothing_is_kept
from tests.logd.forgetting_clients import UID
from tests.logd.forgetting_scene import FAR, Killed, Scene


def run(scene: Scene, actions: int) -> Counter[str]:
    """Runs random actions of clients, daemon and command; returns what the check has seen."""
    rng = scene.rng
    for _ in range(rng.randrange(1, 4)):
        scene.new_source(outbox=rng.random() < 0.8)
    forgets_max = rng.choice((1, 1, 2, 4))
    scene.start()
    for _ in range(actions):
        scene.moment += 1
        roll = rng.random()
        if roll < 0.4 and (alive := [source for source in scene.clients.sources if source.alive]):
            source = rng.choice(alive)
            for _ in range(rng.choice((1, 1, 5, 20))):
                scene.emit(source)
        elif roll < 0.45 and len(scene.clients.sources) < 12:
            scene.new_source(outbox=rng.random() < 0.8)
        elif roll < 0.49:
            rng.choice(scene.clients.sources).alive = False
        elif roll < 0.53 and len(scene.forgets) < forgets_max:
            scene.ask()
        elif roll < 0.56 and scene.store is not None:
            scene.end()
        elif scene.store is None and roll < 0.75:
            if scene.forgets and rng.random() < 0.6:
                scene.work_offline()
            else:
                scene.start()
        elif scene.delivery is not None:
            scene.step()
        elif scene.store is not None:
            scene.work_offline()
    scene.moment += 1
    scene.settle()
    seen = check(scene)
    check_nothing_is_kept(scene)
    return seen


@pytest.mark.parametrize(
    "first",
    [0, *(pytest.param(at, marks=pytest.mark.long(minutes=0.1)) for at in range(8, 400, 8))],
)
def test_any_order_of_events_forgets_and_kills_erases_what_was_made_before_and_nothing_else(
    scenes: list[Scene], first: int
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + 8):
        place = Path(tempfile.mkdtemp(prefix="logd-", dir="/dev/shm"))  # where a flush is quick
        scene = Scene(place, random.Random(seed))
        scenes.append(scene)
        try:
            seen += run(scene, 120)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            scene.close()
            scenes.clear()
    assert seen["before"] > 50
    assert seen["after"] > 50


# -- moments that a seed seldom finds


def offline(scene: Scene) -> None:
    while scene.forgets[-1].ended is None or scene.store is not None:
        scene.moment += 1
        scene.work_offline()


def test_killed_before_the_list_is_written_a_forget_resumes_with_the_same_boundary(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scene.new_source(outbox=True)
    scene.make(source)
    scene.start()
    scene.end()
    scene.ask()
    with monkeypatch.context() as dying:

        def die(*_: object) -> None:
            raise Killed

        dying.setattr(erasure_list, "merge_file", die)
        scene.moment += 1
        scene.work_offline()
    assert scene.store is None
    scene.forgets[-1].ended = scene.moment  # its transaction is committed
    scene.make(source, ts_ns=0)
    scene.moment += 1
    scene.settle()
    assert check(scene) == {"before": 1, "after": 1}
    assert erasure_list.read_file(scene.directory / "forgotten")


def test_another_directory_in_its_place_leaves_it_to_the_claimed_time(scene: Scene) -> None:
    scene.start()
    scene.end()
    scene.ask()
    offline(scene)
    moved = scene.new_source(outbox=True)
    scene.make(moved, ts_ns=0)
    scene.start()
    assert scene.store is not None
    scene.store.erasure_list.boundaries.outboxes = "this-boot another"
    scene.connection.execute("UPDATE forget SET outboxes = 'this-boot the-first'")
    scene.store.reload_erasure_list()
    scene.settle()
    assert scene.counters()["erased"] == 1


def test_after_a_forget_without_a_daemon_the_next_start_completes_it_for_producers_without_outbox(
    scene: Scene,
) -> None:
    source = scene.new_source(outbox=False)
    scene.make(source, user="bert")
    scene.start()
    scene.step_all()
    scene.end()
    scene.make(source, ts_ns=0)  # waits in a socket that is held elsewhere
    scene.ask()
    offline(scene)
    scene.settle()
    scene.make(source, ts_ns=0)  # made after, by a clock that was not set
    scene.settle()
    assert check(scene) == {"before": 1, "after": 1}


def test_events_already_queued_are_committed_before_a_later_flood_ends(
    scene: Scene,
) -> None:
    scene.start()
    assert scene.delivery is not None
    arrived = scene.delivery.mark_queue(30)
    flood: Datagram = (b"no datagram", UID, 1, False)
    taken = 0

    def endless() -> Iterator[Datagram]:
        nonlocal taken
        while True:
            taken += 1
            yield flood

    while not arrived():
        assert taken < 60
        scene.now_s += 1
        scene.delivery.step(endless(), set(), scene.now_s)
    assert taken >= 30
    assert not scene.delivery.mark_queue(30)()


def test_a_job_in_a_backup_that_its_list_knows_as_done_is_not_done_as_of_today(
    scene: Scene,
) -> None:
    source = scene.new_source(outbox=True)
    scene.start()
    scene.end()
    scene.ask()
    backup = scene.config.database.read_bytes()
    offline(scene)
    for suffix in ("-wal", "-shm"):
        scene.config.database.with_name(scene.config.database.name + suffix).unlink(missing_ok=True)
    scene.make(source, ts_ns=FAR)  # the person is back, by a clock that is right
    scene.config.database.write_bytes(backup)
    scene.settle()
    ((until_ns, number),) = scene.connection.execute("SELECT until_ns, forget FROM forgotten")
    assert (until_ns, number) == (scene.forgets[0].asked_ns, 0)
    assert scene.counters().get("erased", 0) == 0
