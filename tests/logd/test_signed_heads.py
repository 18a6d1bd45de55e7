"""Signed heads: the anchors that the daemon logs, and `logd checkpoint`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from logd.audit import checkpoint, signed_head, signed_note
from logd.audit.anchor_sources import from_lines
from logd.audit.anchors import Anchor, format_anchor, parse
from logd.audit.head_signer import HeadSigner, checkpoint_text
from logd.audit.signed_note import Note, Signature, Verified, Verifier
from logd.maintenance import new_instance
from logd.storage.tree import TILE_BATCHES
from logd.storage.tree_head import Head
from tests.logd.anchored import anchors_in, look_in_file, original, restore, trail_id
from tests.logd.stepped_daemon import SteppedDaemon
from tests.logd.trails import emit, noted
from tests.support.instance import ROOT, Instance, check_sums

__all__ = ["original"]  # a fixture

NOW_NS = 1_700_000_000 * 10**9
HEAD = Head(812, 20417, bytes(range(32)))
TRAIL = "9f1c00112233aabb"
SIGNER = HeadSigner(TRAIL, bytes(range(32)))


def vkey(instance: Instance) -> str:
    return instance.cli("checkpoint", "--public-key").strip()


def is_signed(anchor: Anchor, verifier: Verifier) -> bool:
    assert anchor.signature is not None and anchor.trail_id is not None
    signature = Signature(verifier.name, anchor.signature[:4], anchor.signature[4:])
    note = Note(checkpoint_text(anchor.trail_id, anchor.head), (signature,))
    return verifier.verify(note) == Verified(verifier.name, verifier.key_id)


def edit(instance: Instance, pattern: str, new: str, line: int = 1) -> None:
    """Changes that anchor in anchors.log."""
    log = instance.directory / "anchors.log"
    lines = anchors_in(log.read_text().splitlines())
    changed = re.sub(pattern, new, lines[line])
    assert changed != lines[line]
    lines[line] = changed
    log.write_text("\n".join(lines) + "\n")


# -- lines ---------------------------------------------------------------------------------------


def test_a_signed_line_is_read_back_and_one_without_is_as_before() -> None:
    signature = SIGNER.signature(HEAD)
    assert len(signature) == 68
    text = format_anchor(HEAD, TRAIL, signature)
    assert text.startswith(f"{format_anchor(HEAD, TRAIL)} signature=")
    assert parse(f"logd: {text}\n") == Anchor(HEAD, None, TRAIL, False, signature)
    longer = format_anchor(HEAD, TRAIL, bytes(2500))  # of a key of another kind
    assert parse(longer) == Anchor(HEAD, None, TRAIL, False, bytes(2500))


@pytest.mark.parametrize("end", ["-", " and more", "\n\nanchor", " signature=AAAAAAAA"])
def test_a_line_with_something_else_at_its_end_is_ignored(end: str) -> None:
    assert parse(format_anchor(HEAD, TRAIL, SIGNER.signature(HEAD)) + end) is None


def test_a_signature_that_is_none_is_as_if_it_were_not_there() -> None:
    plain = Anchor(HEAD, None, TRAIL)
    for signature in ("AAAA", "AAAAAAA", "AAAAAA=", "AAAAAAB="):
        assert parse(f"{format_anchor(HEAD, TRAIL)} signature={signature}") == plain


# -- the daemon ----------------------------------------------------------------------------------


def test_each_head_that_the_daemon_logs_is_signed_also_in_the_file(instance: Instance) -> None:
    instance.configure(anchor_file="anchors")
    daemon = instance.start()
    emit(instance, "a", 5)
    instance.stop()
    check_sums(instance.status(), attempted=5, accepted=5)
    logged = list(from_lines(daemon.lines, "logd.service"))
    verifier = Verifier.from_vkey(vkey(instance))
    assert verifier.name == f"logd/{trail_id(instance)}"
    assert len(logged) == 2 and all(is_signed(anchor, verifier) for anchor in logged)
    with (instance.directory / "anchors").open() as file:
        kept = list(from_lines(file, "logd.service"))
    assert [(a.head, a.signature) for a in kept] == [(a.head, a.signature) for a in logged]


def stored_batches(daemon: SteppedDaemon, count: int, *, flush: bool = True) -> None:
    for _ in range(count):
        daemon.store.transact(
            lambda _, batch: daemon.store.append_internal_event(batch, "trail_read", {}, NOW_NS),
            NOW_NS,
            flush=flush,
        )


def test_the_head_of_complete_tiles_is_logged_once_it_is_passed(
    instance: Instance, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "logd")

    def logged() -> list[int]:
        heads = [anchor.head for anchor in from_lines(caplog.messages, "logd.service")]
        assert all(roots.setdefault(head.batch, head) == head for head in heads)
        caplog.clear()
        return [head.batch for head in heads]

    roots: dict[int, Head] = {}
    daemon = SteppedDaemon(instance)
    stored_batches(daemon, TILE_BATCHES + 44)
    daemon.write_anchor(now=True)
    assert logged() == [256, 300]
    stored_batches(daemon, 212)
    daemon.write_anchor(now=True)
    assert logged() == [512], "the newest is one itself"
    stored_batches(daemon, 10)
    daemon.write_anchor(now=True)
    assert logged() == [522]
    # What is not flushed may be gone after a power cut.
    stored_batches(daemon, 256, flush=False)
    assert (daemon.store.head.batch, daemon.store.lasting_head) == (522, roots[512])
    daemon.write_anchor(now=True)
    assert logged() == []
    stored_batches(daemon, 1)
    assert daemon.store.lasting_head is not None
    daemon.write_anchor(now=True)
    assert logged() == [768, 779]
    daemon.close()
    reopened = SteppedDaemon(instance)
    assert reopened.store.lasting_head == roots[768]
    reopened.write_anchor(now=True)
    assert logged() == [768, 779], "a killed daemon may not have logged it"
    reopened.close()
    (instance.directory / "log").write_text(
        "".join(f"{format_anchor(head, trail_id(instance))}\n" for head in roots.values())
    )
    instance.cli("verify", "--anchors", str(instance.directory / "log"))


# -- comparing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        ("root=[0-9a-f]{4}", "root=abab"),
        ("batch=[0-9]+", "batch=99999"),
        ("batch=[0-9]+ (.*) signature=(.{10}).{5}", r"batch=2 \1 signature=\2AAAAA"),
    ],
)
def test_a_line_that_does_not_match_and_has_a_false_signature_is_left_out_and_noted(
    stored: Instance, pattern: str, new: str
) -> None:
    """Otherwise whoever can write a line into a log could raise an alarm."""
    edit(stored, pattern, new)
    said = look_in_file(stored, 0)
    assert "1 lines are left out" in said and "its daemon did not write them" in said
    assert "anchors: 5 compared" in said
    edit(stored, " signature=.*", "")
    assert "left out" not in look_in_file(stored, 1)


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        # By a key that is not the instance's, or under the name of another trail.
        ("root=[0-9a-f]{4}(.*) signature=....", r"root=abab\1 signature=AAAA"),
        ("trail=[0-9a-f]{4}", "trail=abab"),
    ],
)
def test_a_line_signed_by_another_key_is_compared_as_one_without_a_signature(
    stored: Instance, pattern: str, new: str
) -> None:
    edit(stored, pattern, new)
    assert "left out" not in look_in_file(stored, 1)


def test_a_changed_trail_is_found_although_its_anchors_are_signed(stored: Instance) -> None:
    """The signatures are of the heads as they were, and true."""
    shutil.copy(stored.directory / "day1.db", stored.config.database)
    for end in ("-wal", "-shm"):
        stored.config.database.with_name(f"activity.db{end}").unlink(missing_ok=True)
    said = look_in_file(stored, 1)
    assert "its end was cut off" in said and "left out" not in said


def test_anchors_of_before_a_new_signing_key_are_compared(stored: Instance) -> None:
    before = vkey(stored)
    stored.config.signing_key_file.unlink()
    stored.cli("genkey")
    assert vkey(stored) != before
    assert "anchors: 6 compared" in look_in_file(stored, 0)
    edit(stored, "root=[0-9a-f]{4}", "root=abab")
    look_in_file(stored, 1)


def test_without_a_key_that_can_be_read_signatures_are_not_checked(stored: Instance) -> None:
    stored.config.signing_key_file.chmod(0o640)
    assert "the signatures of anchors are not checked: " in look_in_file(stored, 0)
    stored.config.signing_key_file.unlink()
    assert "signatures" not in look_in_file(stored, 0)
    edit(stored, "root=[0-9a-f]{4}", "root=abab")
    look_in_file(stored, 1)


# -- the command ---------------------------------------------------------------------------------


def head_of(note: str, key: str) -> tuple[int, bytes]:
    """Checks a signed checkpoint."""
    parsed = signed_note.parse(note)
    assert signed_note.format(parsed) == note
    verified = Verifier.from_vkey(key).verify(parsed)
    read = checkpoint.parse(parsed.text)
    assert verified is not None and verified.name == read.origin
    return read.size, read.root


def test_the_newest_head_and_earlier_ones_are_printed_signed(stored: Instance) -> None:
    key, note = vkey(stored), stored.cli("checkpoint")
    size, root = head_of(note, key)
    assert size == 10 and note.count("\n") == 5
    assert root.hex() in stored.cli("verify")
    for anchor in map(parse, (stored.directory / "anchors.log").read_text().splitlines()):
        if anchor is not None:
            earlier = stored.cli("checkpoint", "--size", str(anchor.head.batch))
            assert head_of(earlier, key) == (anchor.head.batch, anchor.head.hash)
    refused = stored.cli("checkpoint", "--size", "11", code=2)
    assert "11: the trail has 10 batches" in refused
    assert "of any size" in stored.cli("checkpoint", "--size", "1", "--public-key", code=2)


def test_beside_the_daemon_a_head_is_on_disk_before_it_is_signed(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would take away the batches of a head that someone has already."""
    daemon = SteppedDaemon(instance)
    stored_batches(daemon, 3, flush=False)
    key = signed_head.public_key(instance.config)
    with noted(monkeypatch) as happened:
        note = signed_head.signed_head(instance.config)
    assert happened == ["flush activity.db-wal"]
    assert head_of(note, key)[0] == 3
    assert daemon.store.head.batch == 0
    stored_batches(daemon, 1)
    with instance.database(read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (4,)
    daemon.close()


def test_a_head_that_was_collapsed_is_refused_with_one_that_is_kept(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = instance.open_store()
    for n in range(TILE_BATCHES + 10):
        store.record("trail_read", {"n": n}, NOW_NS)
    root = store.lasting_head
    with instance.database() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DELETE FROM batch WHERE id BETWEEN 3 AND 8")
    store.close()
    assert root is not None
    refused = instance.cli("checkpoint", "--size", "5", code=2)
    assert "The head after 256 batches is kept, as after every 256th" in refused
    assert head_of(instance.cli("checkpoint", "--size", "256"), vkey(instance)) == (256, root.hash)
    assert head_of(instance.cli("checkpoint"), vkey(instance))[0] == TILE_BATCHES + 10


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_a_note_is_the_same_bytes_in_any_locale(stored: Instance, locale: str) -> None:
    command = [sys.executable, "-m", "logd", "checkpoint", "--config", str(stored.config.path)]
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if "ISO" in locale:
        environment |= {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT, check=True)
    assert done.stdout.decode() == stored.cli("checkpoint")
    assert head_of(done.stdout.decode(), vkey(stored))[0] == 10


def test_a_restored_trail_keeps_its_name_and_key_and_a_new_database_key_changes_neither(
    stored: Instance,
) -> None:
    before = vkey(stored)
    restore(stored)
    stored.cli("rekey")
    assert vkey(stored) == before
    daemon = stored.start()
    stored.stop()
    verifier = Verifier.from_vkey(before)
    logged = list(from_lines(daemon.lines, "logd.service"))
    assert logged and all(is_signed(anchor, verifier) for anchor in logged)


def test_a_backup_restored_on_another_machine_is_signed_by_that_machines_key(
    stored: Instance, tmp_path: Path
) -> None:
    """It has the same name, and another key: the former one's public key is still needed."""
    other = new_instance.init(tmp_path / "other")
    shutil.copy(stored.config.key_file, other.key_file)
    backup = str(stored.directory / "day1.db")
    arguments = ["restore", backup, "--yes", "--config", str(other.path)]
    stored.cli(*arguments, config=False)
    printed = signed_head.public_key(other)
    name, key_id, _ = vkey(stored).split("+", 2)
    assert printed.split("+", 2)[0] == name and printed.split("+", 2)[1] != key_id
    shutil.copy(stored.config.signing_key_file, other.signing_key_file)
    assert signed_head.public_key(other) == vkey(stored)
