"""Checks proofs of logd with aics-tlog (PyPI), and with nothing of logd.

check_proofs.py VKEY [WITNESS-VKEY ...]
    for each line "FILE" or "FILE OLD-HEAD-FILE" of standard input: prints "ok" or "no: why"
"""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import aics_tlog


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


def event(text: str, keys: list[str]) -> None:
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
        texts = [Path(file).read_bytes().decode() for file in files]
        event(texts[0], keys) if len(texts) == 1 else growth(texts[0], texts[1], keys)
    except (ValueError, TypeError, IndexError) as error:
        return f"no: {error}"
    return "ok"


if __name__ == "__main__":
    for line in sys.stdin:
        print(check(line.split(), sys.argv[1:]), flush=True)
