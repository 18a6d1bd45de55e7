"""Exports: another program reads back what is stored, and the trail records the export."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import pytest
from click.testing import CliRunner

from logd.cli import main
from logd.reports.export import FORMS, Export
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.parquet import ROWS_PER_STEP
from logd.reports.selection import Selection
from logd.storage import opening
from tests.logd.exports import (
    HOSTILE,
    PROPS,
    READERS,
    USERS,
    copies,
    export,
    fill,
    read_back,
    run_export,
    stored_events,
    the_notes,
)
from tests.support.instance import Instance

EXACT = list(READERS)
TO_STANDARD_OUTPUT = ((), ("--output", "-"), ("-o", "-", "--force"))
REPEATS = 2 * ROWS_PER_STEP // 12  # three row groups of two steps, the last not full


@pytest.mark.parametrize("form", EXACT)
def test_another_program_reads_back_what_is_stored_hostile_text_and_all(
    instance: Instance, form: str
) -> None:
    fill(instance)
    output, said = export(instance, form)
    rows = read_back(form, output)
    assert rows == stored_events(instance)
    assert [row["user"] for row in rows] == [user for user in USERS for _ in PROPS]
    assert rows[2]["props"] == PROPS[2]
    assert rows[3]["props"] == {"nan": "nan", "inf": ["inf", {"deep": "-inf"}], "n": 0.0}
    assert rows[4]["props"] == {"bytes": "AP8b", "deep": [{"b": ""}]}
    assert rows[0]["stored_ns"] == 2**62
    assert "exported 36 events" in said
    assert output.stat().st_mode & 0o777 == 0o600
    assert not output.with_name(output.name + ".partial").exists()


def unrecorded() -> None:
    """Records nothing: for tests of what is written alone."""


class _Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["jsonl", "csv", "spreadsheet"])
def test_what_is_exported_to_a_terminal_commands_it_nothing(instance: Instance, form: str) -> None:
    fill(instance)
    connection = opening.open_for_events(instance.config)
    terminal = _Terminal()
    Export(connection, Selection()).write(form, terminal, unrecorded)
    connection.close()
    lines = terminal.getvalue().decode().split("\n")
    assert len(lines) > 36
    assert all(char.isprintable() for line in lines for char in line)
    assert "\\u202e" in terminal.getvalue().decode()


def test_all_forms_hold_the_same_rows_over_many_pages_and_row_groups(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small row groups: there are several, and the last one is not full."""
    monkeypatch.setattr("logd.reports.parquet.GROUP_ROWS_MAX", 2 * ROWS_PER_STEP)
    monkeypatch.setattr("logd.reports.parquet.GROUP_BYTES_MAX", 2**20)
    fill(instance, repeats=REPEATS)
    connection = opening.open_for_events(instance.config)
    found = {}
    for form in EXACT:
        path = instance.directory / form
        with path.open("wb") as file:
            work = Export(connection, Selection())
            work.write(form, file, unrecorded)
        found[form] = read_back(form, path)
        assert work.events == len(found[form]) == 36 * (REPEATS)
    connection.close()
    assert found["csv"] == found["jsonl"] == found["parquet"]
    assert [row["id"] for row in found["csv"]] == list(range(1, work.events + 1))


def test_parquet_columns_are_of_the_types_that_are_promised(instance: Instance) -> None:
    from pyarrow import parquet

    fill(instance)
    output, _said = export(instance, "parquet")
    schema = parquet.read_schema(output)
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "id": "int64", "ts_ns": "int64", "stored_ns": "int64", "sequence": "int64",
        "type": "string", "user": "string", "producer": "string", "props": "string",
    }  # fmt: skip


@pytest.mark.parametrize("form", EXACT)
def test_an_export_of_nothing_is_a_file_of_no_rows(instance: Instance, form: str) -> None:
    fill(instance)
    output, said = export(instance, form, "--type", "nonsense")
    assert read_back(form, output) == []
    assert "exported 0 events" in said


@pytest.mark.parametrize(
    ("form", "ways"),
    [
        ("jsonl", TO_STANDARD_OUTPUT),
        *((form, TO_STANDARD_OUTPUT[:1]) for form in FORMS if form != "jsonl"),
        *(
            pytest.param(form, TO_STANDARD_OUTPUT[1:], marks=pytest.mark.long(minutes=0.1))
            for form in FORMS
            if form != "jsonl"
        ),
    ],
)
def test_standard_output_gets_the_same_bytes(
    instance: Instance, form: str, ways: tuple[tuple[str, ...], ...]
) -> None:
    fill(instance)
    chosen = ("--type", "page_view")  # without the events of the exports themselves
    output, _said = export(instance, form, *chosen)
    for options in ways:
        done = run_export(instance, form, *chosen, *options, text=False, check=True)
        assert done.stdout == output.read_bytes()
        assert b"exported 36 events to standard output" in done.stderr
    assert not (instance.directory / "-").exists()


def test_what_is_stored_while_an_export_runs_is_not_in_it(instance: Instance) -> None:
    """So an export ends, however much arrives; and no transaction is open between two pages."""
    fill(instance, repeats=2 * PAGE_ROWS_MAX // 36 + 1)
    connection = opening.open_for_events(instance.config)
    work = Export(connection, Selection())
    before = work.top
    with (instance.directory / "out").open("wb") as file:
        more = iter([True])

        def arrives(_ids: int) -> None:
            assert not connection.in_transaction
            if next(more, False):
                fill(instance)

        work.write("jsonl", file, unrecorded, arrives)
    connection.close()
    assert (work.events, len(instance.events())) == (before, before + 36)


def test_filters_choose_what_is_exported(instance: Instance) -> None:
    fill(instance)
    output, _said = export(instance, "jsonl", "--user", "7", "--user", HOSTILE.replace("\0", ""))
    assert [row["user"] for row in read_back("jsonl", output)] == ["7"] * len(PROPS)
    output, _said = export(instance, "jsonl", "--force", "--where", "f=0.1", "--user", "-")
    (row,) = read_back("jsonl", output)
    assert row["props"] == PROPS[2]


# -- the file --------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_replaced_only_by_force(instance: Instance) -> None:
    fill(instance)
    output, _said = export(instance, "jsonl")
    output.chmod(0o644)
    before = output.read_bytes()
    _, said = export(instance, "jsonl", "--type", "nonsense", code=73)
    assert "--force" in said
    assert output.read_bytes() == before
    export(instance, "jsonl", "--type", "nonsense", "--force")
    assert output.read_bytes() == b""
    assert output.stat().st_mode & 0o777 == 0o600


def test_what_another_export_is_writing_is_left_alone(instance: Instance) -> None:
    fill(instance)
    partial = instance.directory / "out.jsonl.partial"
    partial.write_text("another's")
    _, said = export(instance, "jsonl", code=73)
    assert "out.jsonl.partial" in said and "--force" in said
    assert partial.read_text() == "another's"
    output, _said = export(instance, "jsonl", "--force")
    assert len(read_back("jsonl", output)) == 36
    assert not partial.exists()


def test_a_device_or_a_link_is_not_replaced_even_by_force(instance: Instance) -> None:
    fill(instance)
    output = instance.directory / "out.jsonl"
    output.symlink_to("/dev/null")
    _, said = export(instance, "jsonl", "--force", code=73)
    assert "not a regular file" in said
    assert output.is_symlink()


@pytest.mark.parametrize("form", list(FORMS))
def test_a_full_disk_is_reported_and_nothing_is_left_behind(instance: Instance, form: str) -> None:
    fill(instance, repeats=3)
    instance.start()
    output = instance.directory / "out"
    # Only the export's own file is too large, not what is written to record it.
    code = (
        "import resource, signal, sys\nfrom logd.cli import main\n"
        "from logd.maintenance.export_record import ExportRecord\n"
        "begin, end = ExportRecord.begin, ExportRecord.end\n"
        "def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))\n"
        "ExportRecord.begin = lambda self: (begin(self), limit(500))\n"
        "ExportRecord.end = lambda self, **how: (limit(-1), end(self, **how))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "main(sys.argv[1:], prog_name='logd')\n"
    )
    done = run_export(instance, form, "-o", str(output), program=("-c", code))
    assert done.returncode == 75, done.stderr
    assert f"logd: {output}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in instance.directory.iterdir() if path.name.startswith("out")] == []
    _, ended = the_notes(instance)
    assert (ended["props"]["complete"], ended["props"]["kept"]) == (False, False)
    assert copies(instance) == []


def test_ctrl_c_leaves_nothing_behind_and_what_was_there_as_it_was(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(instance)
    output, _said = export(instance, "csv")
    before = output.read_bytes()

    def interrupted(_rows: object, out: BinaryIO) -> None:
        out.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(FORMS, "csv", interrupted)
    options = ["export", "--format", "csv", "-o", str(output), "--force"]
    done = CliRunner().invoke(main, [*options, "--config", str(instance.config.path)])
    assert (done.exit_code, done.stderr) == (130, "logd: interrupted\n")
    assert output.read_bytes() == before
    assert not output.with_name(output.name + ".partial").exists()


@pytest.mark.parametrize("form", list(FORMS))
def test_a_full_standard_output_is_reported(instance: Instance, form: str) -> None:
    fill(instance)
    # Unbuffered, nothing would be left to be written at the end.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = run_export(instance, form, stdout=full, env=env)
    assert done.returncode == 75, done.stderr
    assert "\nlogd: standard output: No space left on device" in f"\n{done.stderr}"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_without_pyarrow_it_says_what_to_install(instance: Instance) -> None:
    fill(instance)
    code = "import sys\nsys.modules['pyarrow'] = None\nfrom logd.cli import main\nmain()"
    output = instance.directory / "out"
    done = run_export(instance, "parquet", "-o", str(output), program=("-c", code))
    assert done.returncode == 69
    assert "logd[parquet]" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not output.with_name("out.partial").exists()
