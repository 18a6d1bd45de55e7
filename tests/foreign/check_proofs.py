"""Checks proofs of logd with aics-tlog (PyPI), and with nothing of logd.

check_proofs.py VKEY [WITNESS-VKEY ...]
    for each line "FILE", "FILE OLD-HEAD-FILE" or "DIRECTORY" (of an evidence sheet) of standard
    input: prints "ok" or "no: why"
"""

from __future__ import annotations

import json
import math
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import aics_tlog
import msgpack


def must(good: bool, why: str) -> None:
    if not good:
        raise ValueError(why)


def number(line: str, name: str = "") -> int:
    value = int(line.removeprefix(name))
    must(line == f"{name}{value}" and value >= 0, f"not a number after {name!r}")
    return value


def data(text: str) -> bytes:
    raw = b64decode(text, validate=True)
    must(b64encode(raw).decode() == text, "another form of base64")
    return raw


def head(text: str, vkey: str, witnesses: list[str]) -> tuple[int, bytes]:
    """Opens a checkpoint that the trail and all of these witnesses have signed."""
    key, seen = aics_tlog.parse_vkey(vkey), list(map(aics_tlog.parse_vkey, witnesses))
    note = aics_tlog.parse_note(text)
    must(note.serialise() == text, "another form of a note")
    done = aics_tlog.verify_checkpoint(note, key, seen, len(seen), expected_origin=key.name)
    must(done.ok, done.error or "not signed")
    must(note.text == f"{done.origin}\n{done.size}\n{b64encode(done.root).decode()}\n", "more text")
    return done.size, done.root


def event(text: str, keys: list[str]) -> tuple[bytes, str]:
    """Checks the proof of an event; returns the event's data, and the head."""
    first, entry, batch, note = text.split("\n\n", 3)
    title, content, place, *hashes = first.split("\n")
    batch_title, index, *batch_hashes = batch.split("\n")
    must((title, batch_title) == ("logd/event-proof@v1", "c2sp.org/tlog-proof@v1"), "not a proof")
    must(content.startswith("event "), "not an event")
    leaf, siblings = data(content.removeprefix("event ")), list(map(data, hashes))
    kind, numbers, root, _ = entry.split("\n")
    events = number(numbers.split(" ")[3])
    at = number(place, "index ")
    if kind == "logd/chained-batch@v1":
        must(at < events == len(siblings), "not in its batch")
        must(siblings[at] == sha256(leaf).digest(), "not in its batch")
        must(sha256(b"".join(siblings)).digest() == data(root), "not in its batch")
    else:
        included = aics_tlog.verify_leaf_inclusion(leaf, at, events, siblings, data(root))
        must(included, "not in its batch")
    size, trail = head(note, keys[0], keys[1:])
    included = aics_tlog.verify_leaf_inclusion(
        f"{entry}\n".encode(), number(index, "index "), size, list(map(data, batch_hashes)), trail
    )
    must(included, "not in the trail")
    return leaf, note


def statement(text: str, vkey: str) -> dict[str, str]:
    """Opens the statement of a sheet: its lines, by name."""
    key, note = aics_tlog.parse_vkey(vkey), aics_tlog.parse_note(text)
    must(note.serialise() == text, "another form of a note")
    must(aics_tlog.verify_note(note, [key]), "not signed")
    title, *lines, end = note.text.split("\n")
    must(title == "logd/evidence@v1" and end == "" and len(lines) == 10, "not a statement")
    said = dict(line.split(" ", 1) for line in lines)
    must(said["trail"] == key.name, "of another trail")
    return said


def tree(leaves: list[bytes]) -> bytes:
    """Returns the root over the hashes of leaves, as RFC 9162 defines it (2.1.1)."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1" + tree(leaves[:half]) + tree(leaves[half:])).digest()


def counted(leaves: list[bytes]) -> str:
    return f"{len(leaves)} {b64encode(tree(leaves)).decode()}"


def as_json(value: Any) -> Any:
    """Returns the value as JSON has it, with true apart from 1 and a float from a whole number."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str) else (type(value).__name__, value)


def sheet(folder: Path, keys: list[str]) -> None:
    """Checks an evidence sheet, an unpacked download, as its README says."""
    note = (folder / "head.txt").read_bytes().decode()
    size, trail = head(note, keys[0], [])
    said = statement((folder / "statement.txt").read_bytes().decode(), keys[0])
    must(said["head"] == f"{size} {b64encode(trail).decode()}", "of another head")
    found = json.loads((folder / "sheet.json").read_bytes())
    since = 0 if said["since"] == "-" else number(said["since"])
    until = 2**63 if said["until"] == "-" else number(said["until"])
    leaves, proofs, last = [], set(), 0
    for one in found["events"]:
        if one["proof"] is None:
            content = data(one["data"])
        else:
            must(one["proof"] == f"proofs/{one['id']}.proof", "another proof")
            proofs.add(one["proof"].removeprefix("proofs/"))
            content, by = event((folder / one["proof"]).read_bytes().decode(), [keys[0]])
            must(by == note, "by another head")
        leaves.append(sha256(b"\0" + content).digest())
        must(leaves[-1] == data(one["leaf"]), "another leaf")
        *fields, packed = msgpack.unpackb(content[16:])
        names = ("id", "producer", "sequence", "ts_ns", "type", "user")
        must(as_json([one[name] for name in names]) == as_json(fields), "another event")
        must(as_json(one["props"]) == as_json(msgpack.unpackb(packed)), "other properties")
        must(last < one["id"] <= number(said["up_to"]), "out of order")
        must(one["user"] == json.loads(said["user"]), "of another person")
        must(since <= one["ts_ns"] < until, "of another time")
        last = one["id"]
    must(said["events"] == counted(leaves), "not all of the events")
    caveats = [sha256(b"\0" + caveat.encode()).digest() for caveat in found["caveats"]]
    must(said["caveats"] == counted(caveats), "not all of the caveats")
    there = folder / "proofs"
    must({file.name for file in there.glob("*")} == proofs, "proofs of other events")


def growth(text: str, old: str, keys: list[str]) -> None:
    first, note = text.split("\n\n", 1)
    size_line, *hashes = first.split("\n")
    old_size, old_root = head(old, keys[0], [])
    size, root = head(note, keys[0], keys[1:])
    must(number(size_line, "old ") == old_size, "from another head")
    proof = list(map(data, hashes))
    must(aics_tlog.verify_consistency(old_size, size, old_root, root, proof), "not grown")


def check(files: list[str], keys: list[str]) -> str:
    try:
        if Path(files[0]).is_dir():
            sheet(Path(files[0]), keys)
            return "ok"
        texts = [Path(file).read_bytes().decode() for file in files]
        event(texts[0], keys) if len(texts) == 1 else growth(texts[0], texts[1], keys)
    except (ValueError, TypeError, LookupError, OSError) as error:
        return f"no: {error}"
    return "ok"


if __name__ == "__main__":
    for line in sys.stdin:
        print(check(line.split(), sys.argv[1:]), flush=True)
