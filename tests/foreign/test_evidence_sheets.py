"""Programs of others check the evidence sheet of the demo school's busiest student.

The sheet is what the site's page and download give, over a real daemon; what it must have is
computed here from `logd export`.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from logd.audit.signed_note import Signer, new_private_key
from logd_wire.schema import INTERNAL_TYPES
from tests.foreign import programs
from tests.foreign.programs import Program
from tests.support.instance import Instance, check_sums, short_directory
from tests.webapp.browser import Browser
from tests.webapp.conftest import CHEAP, database
from tests.webapp.flask_apps import Clients
from webapp import create_app
from webapp.classroom.model import evidence
from webapp.classroom.model.content import read_courses
from webapp.demo.school import DEMO_ACCOUNTS, STUDENTS
from webapp.demo.seed import add_demo_school

NS = 10**9
# A report has two seconds, which are few where many tests share a processor.
TRIES, TOO_SLOW = 10, "stopped after 2 s"
Files = dict[str, bytes]


@dataclass
class School:
    """The demo school with its log, an auditor's browser, and all that `logd export` wrote."""

    instance: Instance
    auditor: Browser
    vkey: str
    exported: list[dict[str, Any]]

    @property
    def busiest(self) -> str:
        students = {str(student.id) for student in STUDENTS}
        counts = Counter(row["user"] for row in self.exported if row["user"] in students)
        return str(counts.most_common(1)[0][0])

    def download(self, query: str) -> Files:
        for _ in range(TRIES):
            answer = self.auditor.get(f"/audit/evidence/download?{query}")
            if answer.status_code != 503 or TOO_SLOW not in answer.text:
                break
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.data)) as packed:
            return {name: packed.read(name) for name in packed.namelist()}


@pytest.fixture(scope="module")
def school() -> Iterator[School]:
    directory = short_directory()
    # The programs are tried here, and not the site's time limit beside other tests.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(evidence, "SHEET_S_MAX", 300.0)
    instance = Instance(directory / "i")
    instance.start(loads_reports=True)
    app = create_app(
        {
            "CLASSROOM_DIR": str(directory / "site"),
            "ACTIVITY_LOG_CLIENT": Clients(),
            "ACTIVITY_LOG_SOCKET": instance.socket,
            "ACTIVITY_QUERY_SOCKET": str(instance.directory / "query.sock"),
            "ACTIVITY_QUERY_TIMEOUT_S": 20.0,
            "PASSWORD_METHOD": CHEAP,
            "TESTING": True,
        }
    )
    with app.app_context():
        add_demo_school(database(app), read_courses())
    auditor = Browser(app)
    account = next(one for one in DEMO_ACCOUNTS if one.role == "auditor")
    auditor.log_in(account.username, account.password)
    instance.cli("verify")
    instance.cli("export", "-o", str(directory / "all"))
    rows = [json.loads(line) for line in (directory / "all").read_text().splitlines()]
    vkey = instance.cli("checkpoint", "--public-key").strip()
    yield School(instance, auditor, vkey, rows)
    status = instance.settle()
    sent = sum(row["type"] not in INTERNAL_TYPES for row in rows)
    check_sums(status, attempted=sent, accepted=sent)
    assert status["lost"] == status["quarantined"] == 0
    assert instance.stop() == 0
    instance.close()
    monkeypatch.undo()
    shutil.rmtree(directory)


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


def unpacked(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def checked(program: Program, folder: Path, sheets: list[Files], vkey: str) -> list[str]:
    folders = [unpacked(folder / str(at), files) for at, files in enumerate(sheets)]
    return program.check([(one,) for one in folders], vkey)


COLUMNS = ("id", "ts_ns", "stored_ns", "type", "user", "producer", "sequence", "props")


def columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COLUMNS} for row in rows]


def test_the_sheet_of_the_busiest_student_equals_an_independent_computation(
    school: School,
) -> None:
    user = school.busiest
    sheet = json.loads(school.download(f"user={user}")["sheet.json"])
    own = [row for row in school.exported if row["user"] == user]
    assert len(own) > 1500
    assert columns(sheet["events"]) == columns(sorted(own, key=lambda row: row["id"]))
    assert [json.loads(caveat)["kind"] for caveat in sheet["caveats"]] == ["begins"]
    assert sheet["completeness"][0] == "No number is missing in this range."
    assert sheet["trail"]["verified"] == "whole"


def times(since_ns: int, until_ns: int) -> str:
    """The query for a range in whole minutes."""
    return "&".join(
        f"{name}={datetime.fromtimestamp(ns // NS, UTC):%Y-%m-%dT%H:%M}"
        for name, ns in (("since", since_ns), ("until", until_ns))
    )


def test_a_sheet_of_a_time_and_an_item_equals_an_independent_computation(school: School) -> None:
    user = school.busiest
    own = [row for row in school.exported if row["user"] == user]
    since, until = (own[len(own) * part // 3]["ts_ns"] // (60 * NS) * 60 * NS for part in (1, 2))
    within = [row for row in own if since <= row["ts_ns"] < until]
    sheet = json.loads(school.download(f"user={user}&{times(since, until)}")["sheet.json"])
    assert columns(sheet["events"]) == columns(within) and within

    def about(kind: str, name: str) -> list[dict[str, Any]]:
        """The events with that item in their properties or in their address."""
        found = []
        for row in own:
            args = row["props"].get("view_args", {})
            by_address = args.get(f"{kind}_id") == name
            if kind == "lesson":
                by_address = f"{args.get('slug')}/{args.get('lesson_slug')}" == name
            if row["props"].get(kind) == name or by_address:
                found.append(row)
        return found

    handed_in = Counter(r["props"]["quiz"] for r in own if r["type"] == "quiz_submitted")
    quiz = handed_in.most_common(1)[0][0]
    done = next(r["props"]["task"] for r in own if r["type"] == "task_completed")
    read = next(
        r["props"]["view_args"] for r in own if "lesson_slug" in r["props"].get("view_args", {})
    )
    lesson = f"{read['slug']}/{read['lesson_slug']}"
    for kind, name in (("quiz", quiz), ("task", done), ("lesson", lesson)):
        sheet = json.loads(school.download(f"user={user}&item={kind}:{name}")["sheet.json"])
        assert columns(sheet["events"]) == columns(about(kind, name))
        assert len(sheet["events"]) > 1 or kind == "lesson"
        assert 0 < len(sheet["events"]) < len(own) / 4


def test_another_program_accepts_the_whole_sheet(
    school: School, program: Program, tmp_path: Path
) -> None:
    files = school.download(f"user={school.busiest}")
    assert checked(program, tmp_path, [files], school.vkey) == ["ok"]


def test_each_proof_is_one_that_logd_prove_checks(school: School, tmp_path: Path) -> None:
    files = school.download(f"user={school.busiest}&item=course:python")
    folder = unpacked(tmp_path, files)
    for number in sorted(one["id"] for one in json.loads(files["sheet.json"])["events"])[::40]:
        proof = str(folder / f"proofs/{number}.proof")
        told = school.instance.cli(
            "prove", "--check", proof, "--public-key", school.vkey, config=False
        )
        assert f"proven: event {number} is in the trail" in told


# -- changed sheets --------------------------------------------------------------------------------

Sheet = dict[str, Any]


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


def test_other_programs_refuse_each_changed_sheet(
    school: School, program: Program, tmp_path: Path
) -> None:
    user = school.busiest
    own = [row["ts_ns"] for row in school.exported if row["user"] == user]
    files = school.download(f"user={user}&{times(own[100], own[130])}")
    assert len(json.loads(files["sheet.json"])["events"]) > 20
    stranger = next(str(one.id) for one in STUDENTS if str(one.id) != user)
    other = school.download(f"user={stranger}&{times(own[100], own[160])}")
    assert checked(program, tmp_path / "good", [files, other], school.vkey) == ["ok", "ok"]
    made = list(changes(files, other, school.vkey))
    assert len(made) > 90
    answers = checked(program, tmp_path / "changed", [files for _, files in made], school.vkey)
    accepted = [what for (what, _), told in zip(made, answers, strict=True) if told == "ok"]
    assert accepted == []
    assert all(told.startswith("no: ") for told in answers)


def test_an_event_stored_since_is_on_no_page_of_a_sheet_and_shows_in_no_count(
    school: School,
) -> None:
    user = school.busiest
    page = school.auditor.get(f"/audit/evidence?user={user}").text
    up_to = int(page.partition("of the log up to event ")[2].partition("<")[0].replace(",", ""))
    before = json.loads(school.download(f"user={user}&up_to={up_to}")["sheet.json"])
    # Each of these questions is itself an event that the log stores.
    assert school.instance.status()["stored"] > up_to
    again = json.loads(school.download(f"user={user}&up_to={up_to}")["sheet.json"])
    assert [one["id"] for one in before["events"]] == [one["id"] for one in again["events"]]


def test_each_page_and_download_is_recorded_with_the_person(school: School) -> None:
    user = school.busiest
    before = {row["id"] for row in school.instance.events("--type", "report_read")}
    school.download(f"user={user}&item=course:python")
    school.auditor.get(f"/audit/evidence?user={user}")
    read = [
        row["props"]
        for row in school.instance.events("--type", "report_read")
        if row["id"] not in before
    ]
    assert {one["report"] for one in read} == {"evidence", "evidence_events"}
    assert all(one["params"]["user"] == user for one in read)
    assert {one["params"].get("size") is not None for one in read} == {True, False}
