"""Each mutant of the pure modules is killed by a fast test, or is listed with a reason."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation import lane
from tests.mutation.survivors import KILLED, REFUSED, Mutant, function_of, mutant_of, problems, read
from tests.support.instance import ROOT
from tests.support.progress import Progress
from tests.support.tally import Tally

KILLED_MIN = 0.90
LISTED = Path(__file__).with_name("survivors.txt")
DIFF = """# logd.batch.xǁBatchǁadd_loss__mutmut_23: survived
--- logd/batch.py
+++ logd/batch.py
@@ -12,3 +12,3 @@
     self.producers[producer] = None
-    self.bytes += 64
+    self.bytes += 65
"""
LOSE = Mutant("logd.batch Batch.add_loss", "self.bytes += 64 => self.bytes += 65")


@pytest.mark.long(minutes=8)
def test_nine_of_ten_mutants_are_killed_and_each_other_has_its_reason(
    tmp_path: Path, progress: Progress, tally: Tally
) -> None:
    tree = lane.copy_tree(tmp_path)
    lane.run(tree, progress)
    found = lane.results(tree)
    tested = {key: status for key, status in found.items() if status != REFUSED}
    survived = [key for key, status in tested.items() if status not in KILLED]
    killed = len(tested) - len(survived)
    by_status = ", ".join(f"{count:,} {name}" for name, count in Counter(tested.values()).items())
    tally.say(
        f"mutation: {len(found):,} mutants, {len(found) - len(tested):,} refused by mypy; "
        f"of the other {len(tested):,}, {killed / len(tested):.1%} killed by tests ({by_status})"
    )
    listed = read(LISTED.read_text())
    wrong = problems(lane.mutants(tree, survived), listed, map(function_of, found))
    assert not wrong, "\n".join(wrong)
    assert killed >= KILLED_MIN * len(tested)


def test_a_survivor_without_a_reason_and_a_reason_without_a_survivor_are_problems() -> None:
    listed = read(f"# Only the sum of many counts.\n{LOSE}\n")
    assert listed == {LOSE: "Only the sum of many counts."}
    other = Mutant("logd.batch Batch.add", "x = 1 => x = 2")
    mutated = ["logd.batch Batch.add_loss", "logd.batch Batch.add"]
    assert problems([LOSE], listed, mutated) == []
    assert problems([LOSE, other], listed, mutated) == [f"survived, and has no reason: {other}"]
    assert problems([], listed, mutated) == [f"listed, and killed or gone: {LOSE}"]
    assert problems([], listed, ["logd.ingest.drain drain"]) == []  # not mutated in this run


@pytest.mark.parametrize(
    "text", [f"{LOSE}\n", f"# a reason\n\n{LOSE}\n", "# a reason\nlogd.batch\n"]
)
def test_a_listed_mutant_needs_a_reason_right_above_it(text: str) -> None:
    with pytest.raises(ValueError, match="a mutant without a reason"):
        read(text)


def test_a_mutant_is_named_by_its_function_and_its_changed_line() -> None:
    assert mutant_of("logd.batch.xǁBatchǁadd_loss__mutmut_23", DIFF) == LOSE
    assert (
        function_of("logd.ingest.scheduling.x__ordered__mutmut_6")
        == "logd.ingest.scheduling _ordered"
    )
    assert function_of("logd.batch.xǁCapacityǁ__bool____mutmut_4") == "logd.batch Capacity.__bool__"
    with pytest.raises(ValueError, match="not a name of a mutant"):
        function_of("logd.batch.Batch.add_loss")


def test_every_listed_mutant_has_a_reason_and_is_of_a_module_that_is_mutated() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    modules = {name.removesuffix(".py").replace("/", ".") for name in settings["only_mutate"]}
    for mutant in read(LISTED.read_text()):
        assert mutant.function.partition(" ")[0] in modules, mutant
    for name in settings["only_mutate"]:
        assert (ROOT / name).is_file(), name
