"""`logd verify --checkpoint`: heads that were kept anywhere prove the trail up to their batch."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from logd.audit import answer, signed_note
from logd.audit.head_signer import HeadSigner
from logd.audit.kept_heads import KeptHead, compare_heads, read_head, read_keys
from logd.audit.proof import check_head
from logd.storage.database import connect
from logd.storage.tree_head import Head
from tests.logd import proven_trail
from tests.logd.anchored import (
    batch_id,
    begin_new_trail,
    change,
    first_of_day_3,
    logged_anchors,
    original,
    restore,
    run_for_a_day,
    trail_id,
)
from tests.logd.chained_trail import TREE
from tests.logd.older import older
from tests.logd.rebuilding import cut_and_rebuild, rebuild
from tests.logd.witness import Witness
from tests.support.instance import Instance

__all__ = ["original"]  # a fixture


def keep(instance: Instance, size: int | None = None, name: str = "head") -> Path:
    """Keeps the present head, or that after `size` batches, in a file."""
    file = instance.directory.parent / name
    file.write_text(instance.cli("checkpoint", *(() if size is None else ("--size", str(size)))))
    return file


def verify(instance: Instance, *files: Path, code: int, more: tuple[str, ...] = ()) -> str:
    heads = [argument for file in files for argument in ("--checkpoint", str(file))]
    return instance.cli("verify", *heads, *more, code=code)


def public_key(instance: Instance) -> str:
    return instance.cli("checkpoint", "--public-key").strip()


def test_a_kept_head_shows_that_the_trail_only_grew(stored: Instance) -> None:
    sizes = [anchor.head.batch for anchor in logged_anchors(stored)]
    files = [keep(stored, size, f"{size}.head") for size in {1, *sizes[1:], batch_id(stored)}]
    said = verify(stored, *files, code=0)
    assert said.count("the trail has only grown since") == len(files)
    run_for_a_day(stored, "later")
    for more in ((), ("--incremental",)):
        assert "batches are newer" in verify(stored, files[-1], code=0, more=more)
    assert '"answer": "whole"' in (stored.directory / "activity.db.verified").read_text()


def test_a_head_of_an_empty_trail_proves_nothing(stored: Instance) -> None:
    file = keep(stored, 0)
    said = verify(stored, file, code=75)
    assert "not proven: no kept head is of a batch" in said
    verify(stored, file, keep(stored, name="newest"), code=0)


def test_a_trail_whose_end_was_cut_off_is_not_whole(stored: Instance) -> None:
    end, day_2 = keep(stored), keep(stored, first_of_day_3(stored) - 1, "day2")
    change(stored, lambda connection: cut_and_rebuild(connection, first_of_day_3(stored)))
    said = verify(stored, end, code=1)
    assert "its end was cut off" in said and "does not match the kept heads" in said
    assert "its end was cut off" in verify(stored, day_2, end, code=1)
    verify(stored, day_2, code=0)


def test_a_trail_that_was_rebuilt_is_not_whole(stored: Instance) -> None:
    end, first = keep(stored), keep(stored, 1, "first")
    change(
        stored, lambda connection: connection.execute("UPDATE event SET user = 'x' WHERE id = 70")
    )
    change(stored, rebuild)
    assert "whole: " in stored.cli("verify")
    assert "has another root there" in verify(stored, end, code=1)
    verify(stored, first, code=0)


def test_an_older_copy_in_its_place_is_not_whole(stored: Instance) -> None:
    end = keep(stored)
    for path in stored.directory.glob("activity.db-*"):
        path.unlink()
    shutil.copy(stored.directory / "day1.db", stored.config.database)
    assert "an older copy" in verify(stored, end, code=1)


def test_a_restore_accounts_for_a_head_and_does_not_prove(stored: Instance) -> None:
    end = keep(stored)
    restore(stored)
    run_for_a_day(stored, "after")
    said = verify(stored, end, code=75)
    assert "which took it away" in said and "not proven" in said
    verify(stored, end, keep(stored, name="newest"), code=0)


def test_a_head_of_a_former_trail_is_known_as_one(stored: Instance) -> None:
    end = keep(stored)
    former = begin_new_trail(stored)
    said = verify(stored, end, code=1)
    assert "is of another trail" in said and "former_trails" in said
    stored.configure(former_trails=[former])
    assert "begun knowingly" in verify(stored, end, code=75)
    verify(stored, end, keep(stored, name="newest"), code=0)


def forgeries(instance: Instance, good: str) -> dict[str, str]:
    """Notes that the key of the instance has not signed, also one that a thief signed."""
    text, signature = good.split("\n\n")
    origin, size, root = text.split("\n")
    thief = HeadSigner(trail_id(instance), bytes(range(32)))
    return {
        "unsigned": f"{text}\n",
        "without a signature": f"{text}\n\n",
        "another size": good.replace(f"\n{size}\n", f"\n{int(size) + 1}\n"),
        "another root": good.replace(root, "A" * 43 + "="),
        "another origin": good.replace(origin, "logd/0000000000000000"),
        "another key": thief.note(Head(int(size), 0, bytes(32))),
        "more text": good.replace("\n\n", "\nmore\n\n"),
        "a changed signature": good.replace(signature[-9:-5], "AAAA"),
        "an anchor": f"anchor batch={size} events=1 root={'0' * 64}\n",
        "empty": "",
        "garbage": "\0\1\2\n\n\n",
        "long": "x" * 300_000,
    }


def test_what_the_key_has_not_signed_is_refused_and_says_nothing_of_the_trail(
    stored: Instance,
) -> None:
    good = keep(stored)
    before = (stored.directory / "activity.db.verified").exists()
    for name, text in forgeries(stored, good.read_text()).items():
        file = stored.directory.parent / "forged"
        file.write_text(text)
        assert "forged: " in verify(stored, good, file, code=65), name
    verify(stored, stored.directory.parent / "missing", code=65)
    verify(stored, stored.directory.parent, code=65)
    os.mkfifo(stored.directory.parent / "fifo")
    verify(stored, stored.directory.parent / "fifo", code=65)
    (stored.directory.parent / "latin-1").write_bytes(b"caf\xe9\n")
    verify(stored, stored.directory.parent / "latin-1", code=65)
    assert (stored.directory / "activity.db.verified").exists() is before


def test_the_signing_key_may_have_been_replaced(stored: Instance) -> None:
    file, vkey = keep(stored), public_key(stored)
    stored.config.signing_key_file.unlink()
    assert "there is no key that signs heads" in verify(stored, file, code=77)
    verify(stored, file, code=0, more=("--public-key", vkey))
    stored.cli("genkey")
    assert "no signature by" in verify(stored, file, code=65)
    verify(stored, file, code=0, more=("--public-key", vkey))
    verify(stored, file, code=65, more=("--public-key", vkey[:-1] + "A"))
    verify(stored, file, code=65, more=("--public-key", public_key(stored)))


def test_a_witness_must_have_cosigned_it(stored: Instance) -> None:
    witness, other = Witness("witness.example/w1"), Witness("witness.example/w2")
    file = keep(stored)
    asked = ("--witness", witness.vkey)
    assert "no signature by witness.example/w1" in verify(stored, file, code=65, more=asked)
    cosigned = witness.cosign(signed_note.parse(file.read_text()), 1_790_000_000)
    file.write_text(signed_note.format(cosigned))
    said = verify(stored, file, code=0, more=asked)
    assert "seen 2026-09-21 14:13:20.000Z by witness.example/w1" in said
    verify(stored, file, code=65, more=(*asked, "--witness", other.vkey))
    changed = witness.cosign(signed_note.parse(file.read_text().replace("\n\n", "x\n\n", 1)), 1)
    file.write_text(signed_note.format(cosigned).split("— witness")[0] + "".join(
        line for line in signed_note.format(changed).splitlines(keepends=True) if "w1" in line
    ))  # fmt: skip
    verify(stored, file, code=65, more=asked)


def test_options_for_heads_need_one(stored: Instance) -> None:
    file = keep(stored)
    stored.cli("verify", "--witness", Witness("w").vkey, code=2)
    stored.cli("verify", "--public-key", public_key(stored), code=2)
    backup = str(stored.directory / "day1.db")
    verify(stored, file, code=2, more=(backup,))


@pytest.mark.usefixtures("clocks_from_1970")
def test_a_head_inside_of_a_collapsed_run_proves_nothing(directory: Path) -> None:
    """And a later one, besides, does not prove it."""
    scene = proven_trail.make(directory, 700, 4, random.Random(4))
    assert len(scene.kept_sizes) == 50

    def kept(size: int) -> KeptHead:
        note = scene.head(size)
        return KeptHead(f"{size}.head", note, check_head(note, scene.keys))

    connection = scene.trail.store.connection
    for sizes in ([100], [100, 256], [256, 100, scene.size]):
        found = compare_heads(connection, [kept(size) for size in sizes], ())
        assert found.mismatches == []
        assert "100.head (100 batches) cannot be compared any more" in str(found.not_proven)
    found = compare_heads(connection, [kept(256), kept(512), kept(scene.size)], ())
    assert (found.mismatches, found.not_proven, len(found.notes)) == ([], None, 3)
    connection.execute("UPDATE node SET hash = zeroblob(32) WHERE level = 8 AND position = 1")
    within = next(size for size in scene.kept_sizes if 256 < size < 512)
    assert "has another root there" in compare_heads(connection, [kept(512)], ()).mismatches[0]
    # Computed from the batches it is the same still, and the present head does not follow from it.
    found = compare_heads(connection, [kept(within)], ())
    assert "does not continue it" in found.mismatches[0]
    scene.trail.store.close()


@pytest.mark.parametrize(
    "change_",
    [
        "UPDATE batch SET hash = 7 WHERE id = 2",
        "UPDATE batch SET hash = 'text' WHERE id = 2",
        "INSERT INTO node VALUES (0, 0, 'text')",
    ],
)
def test_rows_of_any_kind_are_a_finding(stored: Instance, change_: str) -> None:
    head = read_head(keep(stored), read_keys(stored.config, None, ()))
    change(stored, lambda connection: connection.execute(change_))
    with stored.database(read_only=True) as connection:
        found = answer.compare_heads(connection, stored.config, [head])
    assert found.mismatches or found.not_proven
    stored.cli("verify", code=1)


def test_an_unmigrated_trail_proves_nothing_yet(directory: Path) -> None:
    older(directory / "a.db", bytes(32), TREE, [])
    connection = connect(directory / "a.db", bytes(32), read_only=True)
    assert "waits for its migration" in str(compare_heads(connection, [], ()).not_proven)
    connection.close()
