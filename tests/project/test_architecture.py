"""Rules for the whole tree: documents, pure modules, the lock. `make lint` checks the layers."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.test_trust_page import all_test_names
from tests.support.instance import ROOT

PACKAGES = ("shared/logd_wire", "shared/logd_client", "shared/flask_logd", "logd", "webapp")
STDLIB_AND_MSGPACK = {*sys.stdlib_module_names, "msgpack"}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package}/ has no modules: the checks below would check nothing"
    return found


def imports(path: Path) -> set[str]:
    """Returns the full names of all imports of a module, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", ["logd_wire", "logd_client"])
def test_formats_and_client_need_the_standard_library_and_msgpack_only(package: str) -> None:
    for path in modules(f"shared/{package}"):
        found = {name.split(".")[0] for name in imports(path)}
        assert found - STDLIB_AND_MSGPACK - {"logd_wire", "logd_client"} == set(), path


def dotted(path: Path) -> str:
    at = ROOT / "shared" if path.is_relative_to(ROOT / "shared") else ROOT
    parts = path.relative_to(at).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PURE = {
    "logd.serve.access_events",
    "logd.serve.admission",
    "logd.batch",
    "logd.clock.readings",
    "logd.ingest.delivery",
    "logd.ingest.ended_producers",
    "logd.ingest.open_outboxes",
    "logd.ingest.outbox_finder",
    "logd.ingest.outbox_lifecycle",
    "logd.ingest.outbox_opener",
    "logd.ingest.outbox_poller",
    "logd.ingest.place_searches",
    "logd.ingest.queue_marks",
    "logd.ingest.refused_files",
    "logd.ingest.step_state",
    "logd.ingest.user_tasks",
    "logd.clock.durations",
    "logd.clock.event_age",
    "logd.ingest.scheduling",
    "logd.runtime_stats",
    "logd.ingest.ordering",
    "logd.storage.mentions",
    "logd.render",
    "logd.ingest.outbox_reader",
    "logd.config.retention",
    "logd.ingest.salvage",
    "logd.status.text",
    "logd.clock.times",
    "logd.serve.usage",
    "logd_wire.outbox.layout",
    "logd_wire.schema",
    "logd_wire.wire",
}
IMPURE = {"socket", "time", "sqlcipher3", "mmap", "select", "selectors", "subprocess", "threading"}


def test_the_codec_ordering_and_batching_touch_no_socket_clock_or_database() -> None:
    there = {dotted(path): path for package in PACKAGES for path in modules(package)}
    assert PURE - there.keys() == set(), "modules that are elsewhere by now"
    for name in PURE:
        assert {name.split(".")[0] for name in imports(there[name])} & IMPURE == set(), name


def test_every_test_that_the_page_of_guarantees_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "tests/README.md").read_text()))
    assert len(named) > 200
    assert named - all_test_names() == set()


def test_every_guarantee_names_a_test() -> None:
    page = (ROOT / "tests/README.md").read_text()
    section = page.split("\n## Guarantees\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| what happens |")]
    assert len(rows) > 45
    untested = [row for row in rows if "`test_" not in row.rsplit(" | ", 1)[1]]
    assert [row.rsplit(" | ", 1)[1] for row in untested] == ["none: it leaves no trace |"]


PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "shared/GUIDE.md",
    "shared/README.md",
    "shared/PROTOCOL.md",
    "logd/README.md",
    "systemd/README.md",
    "tests/README.md",
    "benchmarks/README.md",
)


def test_every_file_that_the_page_of_the_daemon_names_exists() -> None:
    """By its path from the root, from `logd/`, or in one of its rooms."""
    named = set(
        re.findall(r"`([\w./]+\.(?:py|toml)|[\w/]+/)`", (ROOT / "logd/README.md").read_text())
    )
    assert len(named) > 30
    for name in named - {"logd.toml", "pyproject.toml"}:
        places = (ROOT / name, ROOT / "logd" / name, *(ROOT / "logd").glob(f"*/{name}"))
        assert any(place.exists() for place in places), name


def headings(page: Path) -> set[str]:
    """Returns the anchors that Markdown renderers make of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in found}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target), link


def test_every_test_under_faults_has_its_row_in_the_table() -> None:
    table = (ROOT / "tests/README.md").read_text()
    for path in sorted((ROOT / "tests/faults").glob("test_*.py")):
        if path.name not in table:  # fuzzing has one row for the whole file
            names = set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
            assert {name for name in names if f"`{name}`" not in table} == set(), path


def test_every_dependency_is_named_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = page.split("## Dependencies")[1].split("\n## ")[0]
    for dependency in project["dependencies"]:
        name = re.split(r"[<>=]", dependency)[0]
        assert re.search(rf"^\| .*{re.escape(name)}.* \| .+ \|$", section, re.MULTILINE), name


def test_the_lock_is_hashed_and_names_no_host() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    requirements = re.findall(r"^[a-z0-9-]+==.*?(?=^[a-z]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 20
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def test_shared_words_are_never_written_with_pack_into() -> None:
    """Rule 1: struct.pack_into writes zeros first, which a reader could see."""
    for path in (ROOT / "shared").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert "pack_into" not in {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


def files_of_the_tree() -> Iterator[Path]:
    """The files in git; in a source archive, all files but generated ones."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
        yield from (ROOT / name for name in names.stdout.decode().split("\n") if name)
        return
    made = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    for directory, folders, files in os.walk(ROOT):
        at = Path(directory).relative_to(ROOT)
        folders[:] = [name for name in folders if not _is_made(at / name, made)]
        yield from (ROOT / at / name for name in files if not _is_made(at / name, made))


def _is_made(path: Path, made: list[str]) -> bool:
    return any(path.match(pattern) for pattern in made)


def test_no_path_of_a_machine_is_in_the_tree() -> None:
    homes = re.compile(r"/(?:home|Users|root)/\w+")
    seen = 0
    for path in files_of_the_tree():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".html", ".css", ""} and path.is_file():
            assert not homes.search(path.read_text(errors="replace")), path
            seen += 1
    assert seen > 300


def test_the_files_of_a_source_archive_are_those_that_git_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = set(files_of_the_tree())
    monkeypatch.setenv("PATH", "")  # as on a machine without git
    found = set(files_of_the_tree())
    assert known <= found
    assert not [path for path in found if {".venv", "__pycache__"} & set(path.parts)]
