"""Changes of an evidence sheet, each of which a checker has to refuse."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from typing import Any

from logd.audit.signed_note import Signer, new_private_key

Files = dict[str, bytes]
Sheet = dict[str, Any]
NS = 10**9


def edited(files: Files, change: Callable[[Sheet], object], **others: bytes | None) -> Files:
    """The files with a changed sheet, and other files in place of some."""
    sheet = json.loads(files["sheet.json"])
    change(sheet)
    made = {**files, "sheet.json": json.dumps(sheet).encode()}
    for name, data in others.items():
        key = name.replace("__", "/").replace("_dot_", ".")
        if data is None:
            del made[key]
        else:
            made[key] = data
    return made


def pop_event(at: int, sheet: Sheet) -> None:
    sheet["events"].pop(at)


def change_first(name: str, value: Any, sheet: Sheet) -> None:
    sheet["events"][0][name] = value


def tree(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1" + tree(leaves[:half]) + tree(leaves[half:])).digest()


def with_statement(files: Files, line: str, value: str) -> Files:
    """The files with another line in the statement."""
    text = files["statement.txt"].decode()
    before = next(one for one in text.splitlines() if one.startswith(f"{line} "))
    return {**files, "statement.txt": text.replace(before, f"{line} {value}").encode()}


def without_event(files: Files, at: int) -> Files:
    number = json.loads(files["sheet.json"])["events"][at]["id"]
    return edited(
        files, lambda sheet: sheet["events"].pop(at), **{f"proofs__{number}_dot_proof": None}
    )


def forged(files: Files, origin: str) -> Files:
    """A sheet with an event less, whose statement and head another key has signed."""
    fewer = without_event(files, 3)
    events = json.loads(fewer["sheet.json"])["events"]
    count = f"{len(events)} {b64encode(tree([b64decode(e['leaf']) for e in events])).decode()}"
    fewer = with_statement(fewer, "events", count)
    signer = Signer(origin, new_private_key())

    def sign(note: bytes) -> bytes:
        text = note.decode().rpartition("\n\n")[0] + "\n"
        signed = signer.sign(text)
        line = b64encode(signed.key_id + signed.signature).decode()
        return f"{text}\n— {origin} {line}\n".encode()

    head = sign(fewer["head.txt"])
    old = fewer["head.txt"]
    made = {name: data.replace(old, head) for name, data in fewer.items()}
    return {**made, "head.txt": head, "statement.txt": sign(fewer["statement.txt"])}


def changes(files: Files, other: Files, vkey: str) -> Iterator[tuple[str, Files]]:
    """Sheets that are not what the log made, with what was done to each."""
    sheet = json.loads(files["sheet.json"])
    first, second = sheet["events"][:2]
    for at in (0, 5, len(sheet["events"]) - 1):
        yield f"event {at} is left out", without_event(files, at)
        yield (
            f"event {at} is left out, its proof is not",
            edited(files, partial(pop_event, at)),
        )
    yield "the events are cut off", edited(files, lambda s: s["events"].clear())
    yield "an event comes twice", edited(files, lambda s: s["events"].insert(1, first))
    yield (
        "two events are swapped",
        edited(files, lambda s: s["events"].insert(0, s["events"].pop(1))),
    )
    yield (
        "the numbers of two are swapped",
        edited(
            files,
            lambda s: (
                s["events"][0].update(id=second["id"]),
                s["events"][1].update(id=first["id"]),
            ),
        ),
    )
    values: dict[str, list[Any]] = {
        "id": [first["id"] + 1, 0],
        "ts_ns": [first["ts_ns"] + 1, first["ts_ns"] - 3600 * NS],
        "type": ["logout", "login "],
        "user": ["21", "", None],
        "producer": [first["producer"][:-1] + "x"],
        "sequence": [first["sequence"] + 1, str(first["sequence"])],
        "props": [{}, {**first["props"], "more": 1}, {**first["props"], "request_id": 7}],
        "leaf": [second["leaf"], ""],
        "proof": [None, second["proof"], "proofs/../head.txt"],
    }
    for name, others in values.items():
        for value in others:
            yield f"{name} is {value!r}", edited(files, partial(change_first, name, value))
    yield (
        "an unproven event is invented",
        edited(
            files,
            lambda s: s["events"][0].update(
                proof=None, data=b64encode(bytes(40)).decode(), unproven="x"
            ),
            **{f"proofs__{first['id']}_dot_proof": None},
        ),
    )
    proof = f"proofs/{first['id']}.proof"
    for at in range(3, len(files[proof]), 97):
        data = bytearray(files[proof])
        data[at] ^= 1
        yield f"byte {at} of a proof", {**files, proof: bytes(data)}
    yield "another event's proof", {**files, proof: files[f"proofs/{second['id']}.proof"]}
    yield "a proof is missing", {name: data for name, data in files.items() if name != proof}
    stranger = json.loads(other["sheet.json"])["events"][-1]
    yield (
        "another person's event, with its proof",
        {
            **edited(files, lambda s: s["events"].append(stranger)),
            stranger["proof"]: other[stranger["proof"]],
        },
    )
    yield "a proof of no event", {**files, "proofs/1.proof": files[proof]}
    for name in ("statement.txt", "head.txt"):
        yield f"another sheet's {name}", {**files, name: other[name]}
        yield f"no {name}", {key: data for key, data in files.items() if key != name}
        yield (
            f"{name} without its signature",
            {**files, name: files[name].rpartition(b"\n\n")[0] + b"\n"},
        )
        for at in range(1, len(files[name]), 23):
            data = bytearray(files[name])
            data[at] ^= 1
            yield f"byte {at} of {name}", {**files, name: bytes(data)}
    for line, value in (
        ("user", '"21"'), ("items", '["a=b"]'), ("since", "5"), ("until", "5"), ("up_to", "9" * 9),
        ("made", "5"), ("events", f"{len(sheet['events']) - 1} {first['leaf']}"),
        ("caveats", "0 x"),
    ):  # fmt: skip
        yield f"the statement says {line} {value}", with_statement(files, line, value)
    yield "a caveat is left out", edited(files, lambda s: s["caveats"].pop())
    yield (
        "a caveat is changed",
        edited(files, lambda s: s["caveats"].append(s["caveats"].pop().replace("1", "2"))),
    )
    yield "a caveat is added", edited(files, lambda s: s["caveats"].append('{"kind":"loss"}'))
    yield "another key has signed a shorter one", forged(files, vkey.partition("+")[0])
