"""Programs of others check the evidence sheet of the demo school's busiest student.

The sheet is what the site's page and download give, over a real daemon; what it must have is
computed here from `logd export`.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from logd_wire.schema import INTERNAL_TYPES
from tests.foreign import programs
from tests.foreign.changed_sheets import NS, Files, changes
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

# A report has two seconds, which are few where many tests share a processor.
TRIES, TOO_SLOW = 10, "stopped after 2 s"


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
