"""Programs of others check proofs of logd: Go's checksum database, and aics-tlog of PyPI."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pytest

from logd.audit import proof, signed_note
from logd.audit.proof import NotAProof, Refuted
from logd.audit.signed_note import Signer, Verifier
from logd.clock import readings
from logd.maintenance import stored_times
from tests.foreign import programs
from tests.foreign.programs import FOLDER, Program
from tests.logd import proven_trail
from tests.logd.mutations import mutations
from tests.logd.proven_trail import Scene
from tests.logd.witness import Witness
from tests.support.instance import short_directory
from tests.support.progress import Progress


def made(batches: int, schema: int, seed: int) -> Iterator[Scene]:
    directory = short_directory()
    with pytest.MonkeyPatch.context() as patch:
        for module in (readings, stored_times):
            patch.setattr(module, "EARLIEST_NS", 0)
        scene = proven_trail.make(directory, batches, schema, random.Random(seed))
    yield scene
    scene.trail.store.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    yield from made(420, 3, 2)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return programs.in_go(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def python() -> Program:
    return programs.in_python()


@pytest.fixture(params=["go", "python"])
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.getfixturevalue(request.param)
    return found


def written(folder: Path, texts: Sequence[str]) -> list[tuple[Path, ...]]:
    """The files with these texts."""
    files = [folder / f"{number}.proof" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text.encode())
    return [(file,) for file in files]


def check_events(scene: Scene, program: Program, folder: Path, count: int, step: int) -> None:
    """Has it check that many events, and changed proofs of two."""
    texts = list(scene.proofs.values())
    assert len(texts) >= count
    chosen = [*random.Random(1).sample(texts, count - 2), *scene.two_proofs]
    assert {"chained" in text for text in chosen} == {True, False}
    vkey = scene.signer.vkey
    assert set(program.check(written(folder, chosen), vkey)) == {"ok"}
    other = Signer(scene.checkpoint(0).origin, bytes(32)).vkey
    assert "ok" not in program.check(written(folder, chosen[:5]), other)
    for text in scene.two_proofs:
        changed = list(mutations(text, step))
        answers = program.check(written(folder, changed), vkey)
        assert [one for one, told in zip(changed, answers, strict=True) if told == "ok"] == []
        assert all(told.startswith("no: ") for told in answers)


def check_growth(scene: Scene, program: Program, folder: Path, sizes: list[int], step: int) -> None:
    """Has it check that the trail grew between any two of these heads, and changed proofs."""
    old_files = {size: folder / f"{size}.head" for size in sizes}
    for size, file in old_files.items():
        file.write_bytes(signed_note.format(scene.head(size)).encode())
    pairs = list(combinations(sizes, 2))
    files = written(folder, [scene.growth(*pair) for pair in pairs])
    asked = [(file, old_files[old]) for (file,), (old, _) in zip(files, pairs, strict=True)]
    vkey = scene.signer.vkey
    assert set(program.check(asked, vkey)) == {"ok"}
    others = [(file, old_files[sizes[0]]) for (file,), (old, _) in zip(files, pairs, strict=True)
              if old != sizes[0]]  # fmt: skip
    assert "ok" not in program.check(others, vkey)
    old, new = pairs[len(pairs) // 2]
    changed = list(mutations(scene.growth(old, new), step))
    asked = [(file, old_files[old]) for (file,) in written(folder, changed)]
    assert "ok" not in program.check(asked, vkey)
    changed = list(mutations(old_files[old].read_text(), step))
    (folder / "good").write_bytes(scene.growth(old, new).encode())
    asked = [(folder / "good", file) for (file,) in written(folder, changed)]
    assert "ok" not in program.check(asked, vkey)


def test_another_program_checks_100_events_and_refuses_each_change(
    scene: Scene, program: Program, tmp_path: Path
) -> None:
    check_events(scene, program, tmp_path, 100, 11)


def test_another_program_checks_that_a_trail_grew(
    scene: Scene, program: Program, tmp_path: Path
) -> None:
    check_growth(scene, program, tmp_path, scene.kept_sizes[::4], 11)


@pytest.mark.long(minutes=6)
def test_other_programs_check_1000_events_and_50_heads_of_each_older_schema(
    go: Program, python: Program, tmp_path: Path, progress: Progress
) -> None:
    for schema in progress((3, 5, 8, 10), "schemas"):
        for scene in made(1200, schema, schema):
            assert len(scene.proofs) > 1000
            for program in (go, python):
                check_events(scene, program, tmp_path, 1000, 1)
                check_growth(scene, program, tmp_path, scene.kept_sizes, 1)


def test_another_program_checks_what_a_witness_has_cosigned(
    scene: Scene, python: Program, tmp_path: Path
) -> None:
    """Go's package has no cosignatures, and leaves them out."""
    witness = Witness("witness.example/w1")
    cosigned = witness.cosign(scene.head(), 1_700_000_000)
    event_id = max(scene.proofs)
    text = proof.format_event(scene.prover().prove_event(event_id, scene.size, cosigned))
    keys = proof.Keys(scene.keys.trail, (Verifier.from_vkey(witness.vkey),))
    assert proof.check_event(text, keys).head.witnesses[0].time_s == 1_700_000_000
    files = written(tmp_path, [text, scene.proofs[event_id]])
    asked = scene.signer.vkey, witness.vkey
    assert [told[:2] for told in python.check(files, *asked)] == ["ok", "no"]
    lines = sorted(text.splitlines())
    # The order of signatures says nothing: they sign the text, each for itself.
    changed = [one for one in mutations(text, 7) if sorted(one.splitlines()) != lines]
    assert "ok" not in python.check(written(tmp_path, changed), *asked)
    for one in changed:
        with pytest.raises((NotAProof, Refuted)):
            proof.check_event(one, keys)


def test_the_checkers_use_nothing_of_logd() -> None:
    for file in ("check_proofs.go", "check_proofs.py"):
        text = (FOLDER / file).read_text()
        names = re.findall(r'^(?:import|from) (\S+)|^\t"([^"]+)"$', text, re.MULTILINE)
        assert names and not any("logd" in name for found in names for name in found)
