"""The key that signs heads: apart from the database's, made once, and never a reason to stop."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from logd.audit.anchors import parse as parse_anchor
from logd.config.settings import parse
from logd.errors import ConfigError, KeyFileError
from logd.storage import keyfile
from tests.logd.trails import emit
from tests.support.instance import Instance, Process, check_sums


def anchors_of(daemon: Process) -> list[bytes | None]:
    """The signatures of the anchors that it logged."""
    return [a.signature for a in map(parse_anchor, daemon.lines) if a is not None]


def test_init_makes_two_keys_that_differ(instance: Instance) -> None:
    config = instance.config
    paths = (config.key_file, config.signing_key_file)
    assert [path.name for path in paths] == ["logd.key", "logd-signing.key"]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert keyfile.read(paths[0]) != keyfile.read_signing_key(paths[1])


@pytest.mark.parametrize(
    ("there", "made", "code"),
    [
        ({"logd.key", "activity.db"}, {"logd-signing.key"}, 0),
        ({"logd.key"}, {"logd-signing.key"}, 0),
        (set(), {"logd.key", "logd-signing.key"}, 0),
        ({"logd-signing.key"}, {"logd.key"}, 0),
        # Another key would not open the database that is there.
        ({"activity.db"}, {"logd-signing.key"}, 0),
        ({"activity.db", "logd-signing.key"}, set(), 73),
        # As systemd-creds has encrypted them.
        ({"logd.key.cred"}, {"logd-signing.key"}, 0),
        ({"logd.key.cred", "logd-signing.key.cred"}, set(), 73),
        ({"logd.key", "logd-signing.key.cred"}, set(), 73),
        ({"logd.key", "logd-signing.key"}, set(), 73),
    ],
)
def test_genkey_makes_what_is_missing_says_so_and_replaces_nothing(
    instance: Instance, there: set[str], made: set[str], code: int
) -> None:
    folder = instance.directory
    for name in ("logd.key", "logd-signing.key"):
        (folder / name).unlink()
    for name in there:
        (folder / name).write_text(f"{name} of before")
    said = instance.cli("genkey", code=code)
    for name in there:
        assert (folder / name).read_text() == f"{name} of before"
    keys = {path.name for path in folder.glob("*.key")}
    assert keys - there == made
    for name in made:
        assert f"created {folder / name}" in said
        assert (folder / name).stat().st_mode & 0o777 == 0o600
        assert len(keyfile.read_file(folder / name)) == 32
    assert said.count("created") == len(made) + code // 73
    if code and "logd.key" not in there and "logd.key.cred" not in there:
        assert "restore your copy" in said


def test_its_default_place_is_beside_the_databases_key() -> None:
    file = Path("/etc/l/logd.toml")
    assert parse("", file).signing_key_file == Path("/etc/l/logd-signing.key")
    moved = parse('key_file = "/secret/a.key"', file)
    assert moved.signing_key_file == Path("/secret/logd-signing.key")
    named = parse('signing_key_file = "keys/sign"', file)
    assert named.signing_key_file == Path("/etc/l/keys/sign")
    for taken in ("logd.key", "./x/../logd.key", "activity.db", "activity.db-wal", "logd.toml"):
        with pytest.raises(
            ConfigError, match=r"line 1: signing_key_file = .* this file has another use"
        ):
            parse(f'signing_key_file = "{taken}"', file)
    with pytest.raises(ConfigError, match=r"line 1: anchor_file = .* this file has another use"):
        parse('anchor_file = "logd-signing.key"', file)


def test_a_credential_is_read_in_its_place_and_none_stands_for_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    passed, path = credentials / "logd-signing.key", tmp_path / "logd-signing.key"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert keyfile.read_signing_key(path) is None
    keyfile.create(path)
    assert keyfile.read_signing_key(path) == bytes.fromhex(path.read_text())
    passed.write_text("ab" * 32)
    passed.chmod(0o440)  # as systemd makes it
    assert keyfile.read_signing_key(path) == b"\xab" * 32
    passed.write_text("none\n")
    assert keyfile.read_signing_key(path) is None
    passed.unlink()
    path.write_text("none")
    with pytest.raises(KeyFileError, match="expected 64 hexadecimal digits"):
        keyfile.read_signing_key(path)


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def too_long(path: Path) -> None:
    with path.with_name("logd.toml").open("a") as file:
        file.write('signing_key_file = "' + "x" * 300 + '"\n')


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "`logd genkey` makes a key for that"),
    "open to others": (lambda path: path.chmod(0o644), "chmod 600"),
    "malformed": (lambda path: path.write_text("5ec2e7" * 12), "expected 64 hexadecimal digits"),
    "the database's": (
        lambda path: path.write_text(path.with_name("logd.key").read_text()),
        "is the database's key, and must be another",
    ),
    "in no place that can be read": (too_long, "File name too long"),
    "a directory": (unreadable, "is not a regular file"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_without_a_key_that_can_be_used_events_are_stored_and_heads_are_not_signed(
    instance: Instance, kind: str
) -> None:
    spoil, why = UNUSABLE[kind]
    spoil(instance.config.signing_key_file)
    daemon = instance.start()
    emit(instance, "a", 5)
    check_sums(instance.settle(), attempted=5, accepted=5)
    assert not instance.status()["figures"]["heads_signed"]
    checked = instance.cli("check", code=0 if kind == "missing" else 1)
    instance.stop()
    (said,) = [line for line in daemon.lines if "heads of the trail are not signed" in line]
    assert why in said
    assert anchors_of(daemon) == [None, None]
    assert "signing key" in checked and "signing key  the heads" not in checked
    refused = instance.cli("checkpoint", code=77)
    assert "genkey" in refused if kind == "missing" else why in refused
    output = "\n".join([*daemon.lines, checked, refused])
    assert "5ec2e7" not in output and keyfile.read(instance.config.key_file).hex() not in output


def test_the_key_is_in_no_output_of_daemon_and_commands(instance: Instance) -> None:
    private = keyfile.read_signing_key(instance.config.signing_key_file)
    assert private is not None
    instance.configure(anchor_file="anchors", metrics="metrics.sock")
    daemon = instance.start({"LOGD_TRACEBACK": "1"})
    emit(instance, "a", 5)
    check_sums(instance.settle(), attempted=5, accepted=5)
    assert instance.status()["figures"]["heads_signed"]
    printed = [
        instance.cli(*command)
        for command in (
            *(("check",), ("check", "--json"), ("status",), ("status", "--json"), ("metrics",)),
            *(("checkpoint",), ("checkpoint", "--public-key"), ("backup",)),
        )
    ]
    assert "logd_heads_signed 1.0" in printed[4]
    printed.append(instance.cli("genkey", code=73))
    instance.stop()
    printed.append(instance.cli("verify", "--anchors", str(instance.directory / "anchors")))
    assert None not in anchors_of(daemon)
    database = instance.config.database
    files = [instance.directory / "anchors", database, database.with_name("activity.db.lock")]
    files += [*instance.config.backup_directory.glob("*.db")]
    assert len(files) == 4
    raw = "\n".join([*daemon.lines, *printed]).encode() + b"".join(f.read_bytes() for f in files)
    for secret in (private, private.hex().encode(), base64.b64encode(private).rstrip(b"=")):
        assert secret not in raw
    assert repr(private).encode() not in raw
