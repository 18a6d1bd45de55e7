"""The delivery core and the client under every fault, from seeds. See tests/README.md.

A seed that fails is printed; `python -m tests.simulation PROFILE SEED` runs it again.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.bugs import BUGS, Bug
from tests.simulation.schedule import PROFILES, Broken, Run, run
from tests.simulation.table import CANNOT_OCCUR, CELLS
from tests.simulation.world import Cell
from tests.support.progress import Progress
from tests.support.tally import Tally

SEEDS_FIRST = 3  # of each profile
SEEDS = 8
SEEDS_MAX = 400  # for as long as a cell of the state table is not visited
# They have visited cells that few do, and are tried first. Another program may need others.
SEEDS_OF_RARE_CELLS = {"restores": (52, 150), "containers": (28,)}
SEEDS_LONG = 100_000  # of all profiles together
SEEDS_AT_ONCE = 50
SEEDS_FOR_BUGS = 200
SHOWN = ("seeds", "kills", "accepted", "stored", "lost")


def simulate(profile: str, seeds: Iterable[int]) -> list[Run]:
    """Runs the seeds; the sums hold in each of them."""
    runs = [run(profile, seed) for seed in seeds]
    for made in runs:
        sums = made.sums
        assert made.attempted == made.accepted + made.refused
        assert sums.accepted == sums.stored + sums.quarantined + sums.pending + sums.lost
        if profile == "crashes":
            # What a killed call had not moved from a retired outbox no caller was told of.
            assert sums.lost <= made.unmoved, f"crashes {made.seed}: {sums}"
            assert sums.pending == 0, f"crashes {made.seed}: {sums}"
    return runs


def count(tally: Tally, visits: Counter[Cell], lost: Counter[str], runs: Iterable[Run]) -> None:
    """Adds up what they show, and the cells of the state table that they visit."""
    for made in runs:
        visits.update(made.visits)
        sums = made.sums
        lost[made.profile] += sums.lost
        tally.add(
            seeds=1,
            kills=made.kills + made.power_cuts,
            attempted=made.attempted,
            accepted=made.accepted,
            refused=made.refused,
            stored=sums.stored,
            quarantined=sums.quarantined,
            pending=sums.pending,
            lost=sums.lost,
        )
        tally.counts["unheard"] += made.unheard


def say_lost(tally: Tally, lost: Counter[str]) -> None:
    """Whose loss it was: kills alone cost nothing."""
    by_kind = ", ".join(f"{profile} {lost[profile]:,}" for profile in PROFILES)
    tally.say(f"simulation: lost by kind of run: {by_kind}")


def missed(visits: Counter[Cell]) -> list[Cell]:
    """The cells of the state table that can occur and were not visited."""
    return [cell for cell in CELLS if cell not in CANNOT_OCCUR and not visits[cell]]


def check_table(tally: Tally, visits: Counter[Cell]) -> None:
    """Every cell that can occur was visited, and those that cannot were not."""
    assert not set(visits) & CANNOT_OCCUR
    none = missed(visits)
    assert not none, f"cells of the state table that no seed has visited: {none}"
    rarest, times = min(visits.items(), key=lambda item: item[1])
    tally.say(
        f"simulation: {len(visits)} of the state table's {len(CELLS)} cells visited, the rarest "
        f"({', '.join(rarest)}) {times:,} times; {len(CANNOT_OCCUR)} cannot occur"
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_the_first_seeds_of_each_kind_break_no_promise(profile: str) -> None:
    """A quick look, also for the mutation lane, which asks it of each mutant of the core."""
    simulate(profile, range(SEEDS_FIRST))


def test_no_seed_breaks_a_promise_and_every_cell_of_the_state_table_is_visited(
    tally: Tally,
) -> None:
    """Kills, power cuts, older databases, hostile users, and all of them together."""
    visits: Counter[Cell] = Counter()
    lost: Counter[str] = Counter()
    silent = 0
    for profile in PROFILES:
        runs = simulate(profile, (*range(SEEDS), *SEEDS_OF_RARE_CELLS.get(profile, ())))
        count(tally, visits, lost, runs)
        silent += sum(made.silent for made in runs)
    further = ((profile, seed) for seed in range(SEEDS, SEEDS_MAX) for profile in PROFILES)
    while missed(visits) and (one := next(further, None)):
        count(tally, visits, lost, simulate(one[0], one[1:]))
    check_table(tally, visits)
    say_lost(tally, lost)
    assert silent, "no producer was ever told that it need not wake the daemon"
    tally.say(f"simulation: {silent:,} events were read though their producers sent nothing")


@pytest.mark.long(minutes=45)
def test_no_seed_of_many_breaks_a_promise(tally: Tally, progress: Progress) -> None:
    """Seeds that the standard run does not try, on all processors."""
    visits: Counter[Cell] = Counter()
    lost: Counter[str] = Counter()
    firsts = range(SEEDS, SEEDS + SEEDS_LONG // len(PROFILES), SEEDS_AT_ONCE)
    profiles = [profile for profile in PROFILES for _ in firsts]
    parts = [range(first, first + SEEDS_AT_ONCE) for _ in PROFILES for first in firsts]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        made = pool.map(simulate, profiles, parts)
        for _ in progress(parts, f"simulation, parts of {SEEDS_AT_ONCE} seeds"):
            count(tally, visits, lost, next(made))
            progress.note = ", ".join(f"{tally.counts[n]:,} {n}" for n in SHOWN)
    check_table(tally, visits)
    say_lost(tally, lost)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "_"))
def test_a_planted_bug_is_found_and_its_seed_finds_it_again(tally: Tally, bug: Bug) -> None:
    """Without the bug the same seed breaks nothing, so it is the bug that is found."""
    for seed in (bug.seed, *range(SEEDS_FOR_BUGS)):
        try:
            run(bug.profile, seed, **bug.parts)
        except Broken as broken:
            found = broken
            break
    else:
        pytest.fail(f"{bug.name}: no seed of {SEEDS_FOR_BUGS} finds it")
    with pytest.raises(Broken) as again:
        run(bug.profile, seed, **bug.parts)
    assert str(again.value) == str(found), "the same interleaving, step by step"
    run(bug.profile, seed)
    tally.say(f"planted bug: {bug.name}: found by {bug.profile} {seed}: {found.why}")


def test_a_broken_promise_found_in_another_process_is_reported_with_its_seed() -> None:
    broken = Broken("crashes", 7, "1 is missing", (("web 1", "KILLED"),))
    there = pickle.loads(pickle.dumps(broken))
    assert str(there) == str(broken)
    assert "python -m tests.simulation crashes 7\nweb 1: KILLED" in str(there)
