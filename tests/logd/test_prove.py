"""`logd prove`: proofs of one event and of growth, made by one command and checked by another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from logd.audit import signed_note
from logd.audit.head_signer import HeadSigner
from logd.errors import StorageFailed
from logd.storage import wal
from logd.storage.database import Connection
from logd_client import Client
from tests.logd.anchored import change, original, restore, run_for_a_day, trail_id
from tests.logd.witness import Witness
from tests.support.instance import ROOT, Instance

__all__ = ["original"]  # a fixture


def vkey(instance: Instance) -> str:
    return instance.cli("checkpoint", "--public-key").strip()


def proof(instance: Instance, *arguments: str, name: str = "proof") -> Path:
    """A proof in a file."""
    file = instance.directory.parent / name
    instance.cli("prove", *arguments, "-o", str(file), "--force")
    return file


def check(instance: Instance, file: Path, *arguments: str, code: int = 0, key: str = "") -> str:
    """Checks a proof; the instance only has the key."""
    return instance.cli(
        *("prove", "--check", str(file), "--public-key", key or vkey(instance)),
        *arguments,
        config=False,
        code=code,
    )


def test_a_proof_says_the_event_to_whoever_has_the_public_key(stored: Instance) -> None:
    event = stored.events("--user", "a2")[0]
    file = proof(stored, str(event["id"]))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == stored.cli("prove", str(event["id"]))
    said = check(stored, file)
    origin = f"logd/{trail_id(stored)}"
    for text in (
        f"proven: event {event['id']} is in the trail {origin}\n",
        "  type       page_view\n",
        "  user       a2\n",
        '  properties {"n":0}\n',
        f"  producer   {event['producer']}, sequence {event['sequence']}\n",
        "  signed     by the trail's key, a head of",
    ):
        assert text in said
    assert event["time"][:19].replace("T", " ") in said


def test_a_proof_is_checked_without_an_instance(stored: Instance, tmp_path: Path) -> None:
    """No configuration, no database, another directory, a locale without the dash of a note."""
    file, key = proof(stored, "1"), vkey(stored)
    command = [sys.executable, "-m", "logd", "prove", "--check", str(file), "--public-key", key]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOGD")}
    env |= {"LC_ALL": "C", "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "HOME": "/nowhere"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"proven: event 1 ")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_event_is_refused_and_what_was_removed_is_named(stored: Instance) -> None:
    assert "there is no event 999" in stored.cli("prove", "999", code=2)
    stored.cli("prove", "0", code=2)
    stored.cli("prove", "one", code=2)
    event = stored.events("--user", "b1")[0]["id"]
    file = proof(stored, str(event))
    stored.cli("forget", "b1", "--yes")
    said = stored.cli("prove", str(event), code=69)
    assert f"event {event} was erased, as event " in said and "It is not there any more" in said
    assert "user       b1" in check(stored, file), "a forget does not reach copies"


def test_a_redacted_event_cannot_be_proven(stored: Instance) -> None:
    daemon = stored.start()
    with Client(stored.socket) as client:
        assert client.emit("page_view", user="teacher", props={"user": "pupil"}, durable=True)
    assert daemon.popen.poll() is None
    stored.stop()
    event = stored.events("--user", "teacher")[0]["id"]
    before = proof(stored, str(event))
    stored.cli("forget", "pupil", "--yes")
    said = stored.cli("prove", str(event), code=69)
    assert f"event {event} was redacted, as event " in said and "another than it was stored" in said
    check(stored, before)
    beside = proof(stored, str(event - 1))
    assert f"proven: event {event - 1} " in check(stored, beside)


def test_a_check_fails_with_1_and_what_is_no_proof_is_65(stored: Instance) -> None:
    file, key = proof(stored, "5"), vkey(stored)
    thief = HeadSigner(trail_id(stored), bytes(range(32))).vkey
    text = file.read_text()
    assert "not proven: the head has no signature" in check(stored, file, key=thief, code=1)
    for changed, code in (
        (text.replace("index 4\n", "index 3\n"), 1),
        (text.replace("\nevent ", "\nevent AAAA"), 1),
        (text + "\n", 65),
        (text.replace("event-proof@v1", "event-proof@v2"), 65),
        ("", 65),
        ("old 1\n\n" + text.split("\n\n", 3)[3], 65),
        (stored.cli("checkpoint"), 65),
    ):
        file.write_text(changed)
        check(stored, file, key=key, code=code)
    check(stored, stored.directory.parent / "missing", key=key, code=65)
    check(stored, stored.config.database, key=key, code=65)
    check(stored, file, key="logd/00+00000000+AAAA", code=65)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("1", "--growth", "1"),
        ("--check", "x"),
        ("--check", "x", "--public-key", "y", "1"),
        ("--check", "x", "--public-key", "y", "-o", "z"),
        ("--check", "x", "--public-key", "y", "--checkpoint", "z"),
    ],
)
def test_what_is_asked_for_must_be_one_thing(
    instance: Instance, arguments: tuple[str, ...]
) -> None:
    instance.cli("prove", *arguments, code=2)


def test_a_changed_trail_proves_nothing(stored: Instance) -> None:
    change(stored, lambda c: c.execute("UPDATE event SET user = 'z' WHERE id = 9"))
    assert "the trail was changed: the event is not in that batch" in stored.cli(
        "prove", "9", code=1
    )
    change(stored, lambda c: c.execute("DELETE FROM event WHERE id = 10"))
    assert "no removal of it is recorded" in stored.cli("prove", "10", code=1)
    change(stored, lambda c: c.execute("UPDATE event SET salt = x'00' WHERE id = 11"))
    stored.cli("prove", "11", code=1)


@pytest.mark.parametrize(
    "change_",
    [
        "UPDATE event SET salt = 'text' WHERE id = 9",
        "UPDATE event SET ts_ns = 'text' WHERE id = 10",
        "UPDATE event SET props = 7 WHERE id = 9",
        "UPDATE event SET sequence = 'text' WHERE id = 9",
        "UPDATE batch SET events = 1e300 WHERE first_event <= 9",
        "UPDATE batch SET stored_ns = x'00' WHERE first_event <= 9",
        "UPDATE batch SET leaves_hash = 'text' WHERE first_event <= 9",
        "UPDATE batch SET hash = 7",
        "INSERT INTO leaf VALUES (10, 'text', 0)",
        "INSERT INTO loss VALUES (9999, 1, 1, 'a', NULL, 'c', 1)",
    ],
)
def test_rows_of_any_kind_are_1_and_no_internal_error(stored: Instance, change_: str) -> None:
    def alter(connection: Connection) -> None:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(change_)

    change(stored, alter)
    assert "Run `logd verify`" in stored.cli("prove", "9", code=1)


def test_an_event_is_proven_by_a_head_that_witnesses_have_seen(stored: Instance) -> None:
    witness, other = Witness("witness.example/w1"), Witness("witness.example/w2")
    head = stored.directory.parent / "head"
    cosigned = witness.cosign(signed_note.parse(stored.cli("checkpoint")), 1_790_000_000)
    head.write_text(signed_note.format(cosigned))
    key = vkey(stored)
    run_for_a_day(stored, "later")
    asked = ("--checkpoint", str(head), "--witness", witness.vkey)
    file = proof(stored, "20", *asked)
    said = check(stored, file, "--witness", witness.vkey)
    assert "seen       2026-09-21 14:13:20.000Z, by witness.example/w1\n" in said
    assert "unchecked  a signature by witness.example/w1\n" in check(stored, file)
    check(stored, file, "--witness", other.vkey, code=1)
    check(stored, proof(stored, "20", name="now"), "--witness", witness.vkey, code=1)
    newest = stored.events("--user", "later")[0]["id"]
    assert "prove it by a later one" in stored.cli("prove", str(newest), *asked, code=2)
    # Whoever cannot read the signing key, but has the public one.
    stored.config.signing_key_file.unlink()
    assert "`logd genkey`" in stored.cli("prove", "20", code=77)
    stored.cli("prove", "20", *asked, code=77)
    assert file.read_text() == stored.cli("prove", "20", *asked, "--public-key", key)
    stored.cli("prove", "20", *asked, "--witness", other.vkey, "--public-key", key, code=65)


def test_a_head_of_another_trail_proves_nothing(stored: Instance) -> None:
    head = stored.directory.parent / "head"
    head.write_text(stored.cli("checkpoint"))
    restore(stored)
    run_for_a_day(stored, "after")
    said = stored.cli("prove", "1", "--checkpoint", str(head), code=69)
    assert "which took it away" in said, "the trail declares it: that is no tampering"
    change(stored, lambda c: c.execute("UPDATE trail SET name = '0000000000000000'"))
    assert "is of the trail logd/" in stored.cli("prove", "1", "--checkpoint", str(head), code=65)


def test_growth_is_proven_from_a_file_or_a_number_to_a_file_or_now(stored: Instance) -> None:
    old, middle = (stored.directory.parent / name for name in ("old", "middle"))
    old.write_text(stored.cli("checkpoint", "--size", "2"))
    middle.write_text(stored.cli("checkpoint"))
    run_for_a_day(stored, "later")
    from_file = proof(stored, "--growth", str(old), "--to", str(middle), name="a")
    from_number = proof(stored, "--growth", "2", "--to", str(middle), name="b")
    assert from_file.read_text() == from_number.read_text()
    assert from_file.read_text().startswith("old 2\n")
    assert from_file.read_text().endswith(f"\n\n{middle.read_text()}"), "as a witness takes it"
    assert "only grew from 2 to" in check(stored, from_file, "--growth", str(old))
    now = proof(stored, "--growth", str(middle), name="c")
    assert "only grew from" in check(stored, now, "--growth", str(middle))
    nothing = proof(stored, "--growth", "0", name="d")
    assert nothing.read_text().startswith("old 0\n\nlogd/")
    old.write_text(stored.cli("checkpoint", "--size", "0"))
    assert "only grew from 0 to" in check(stored, nothing, "--growth", str(old))
    proof(stored, "--growth", str(old), name="d")
    old.write_text(stored.cli("checkpoint", "--size", "2"))
    check(stored, now, "--growth", str(old), code=1)
    check(stored, now, code=65)
    check(stored, proof(stored, "1", name="e"), "--growth", str(old), code=65)
    stored.cli("prove", "--growth", "99999", code=2)
    stored.cli("prove", "--growth", "9" * 30, code=65)
    stored.cli("prove", "--growth", str(now), code=65)
    change(stored, lambda c: c.execute("UPDATE batch SET hash = zeroblob(32) WHERE id = 1"))
    assert "has another root" in stored.cli("prove", "--growth", str(old), code=1)


def test_no_head_is_signed_that_a_power_cut_could_take_back(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of maintenance are committed without a flush."""

    def fail(path: Path) -> None:
        raise StorageFailed(f"{path}: cannot be flushed")

    monkeypatch.setattr(wal, "flush_wal", fail)
    for arguments in (("1",), ("--growth", "1")):
        assert "cannot be flushed" in stored.cli("prove", *arguments, code=74)
