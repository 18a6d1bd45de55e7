"""`logd conformance` passes the Python client and finds planted faults."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logd.cli import main
from logd.conformance import driver_protocol as protocol
from logd.conformance import runner, verdicts
from logd.conformance.cases import CASES
from logd.conformance.scene import missing_and_twice
from logd.conformance.verdicts import FAILED, NOT_TRIED, PASSED, Failed
from logd.errors import EXIT_NOT_WHOLE, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE
from tests.logd.conformance_faults import FAULTS
from tests.support.instance import ROOT

PYTHON_DRIVER = (sys.executable, "-m", "logd_client.conformance_driver")
PAGE = (ROOT / "shared/PROTOCOL.md").read_text(encoding="utf-8")
# These start daemons or wait out an interval of the client's.
SLOW = {"kills", "kills-without-outbox", "outbox-later"}
NAMES = [case.name for case in CASES]
# Each starts the driver, which takes a quarter of a second: the others are for `make test-long`.
SHORT = [
    "full",
    "watching",
    "outbox-retries",
    "no-outbox",
    "durable-unknown",
    "ending",
    "forks",
    "lock-lost",
    "removed-unread",
    "retired",
    "given-up",
]


def results(command: Sequence[str], *names: str, rounds: int = 1) -> dict[str, verdicts.Result]:
    return {result.case: result for result in runner.run(command, names, rounds, lambda _: None)}


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["conformance", *arguments])


def driver(tmp_path: Path, body: str) -> tuple[str, str]:
    """Makes a driver that answers each command with `answer(words)` of `body`."""
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys\n"
        + body
        + "\nfor line in sys.stdin:\n    print(answer(line.split()), flush=True)\n"
    )
    return sys.executable, str(script)


# -- clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHORT)
def test_the_python_client_conforms(name: str) -> None:
    found = results(PYTHON_DRIVER, name)[name]
    assert found.verdict == PASSED, found


@pytest.mark.long(minutes=1)
def test_the_python_client_conforms_in_every_other_case() -> None:
    others = [name for name in NAMES if name not in SLOW | set(SHORT)]
    for name, found in results(PYTHON_DRIVER, *others).items():
        assert found.verdict == PASSED, (name, found)


@pytest.mark.long(minutes=6)
def test_the_python_client_conforms_through_many_kills() -> None:
    for name, found in results(PYTHON_DRIVER, *SLOW, rounds=40).items():
        assert found.verdict == PASSED, (name, found)


def expect_found(fault: str, case: str, page: str) -> None:
    faulty = (sys.executable, str(ROOT / "tests/logd/conformance_faults.py"), fault)
    found = results(faulty, case)[case]
    assert (found.verdict, found.page) == (FAILED, page), (fault, found)


PLANTED = [(patch.__name__, case, page) for patch, case, page in FAULTS]


@pytest.mark.parametrize(("fault", "case", "page"), PLANTED[::4])
def test_a_planted_fault_is_found_and_the_page_named(fault: str, case: str, page: str) -> None:
    expect_found(fault, case, page)


@pytest.mark.long(minutes=1)
def test_every_planted_fault_is_found_and_the_page_named() -> None:
    for fault, case, page in PLANTED:
        expect_found(fault, case, page)


def test_a_client_without_outboxes_passes_what_it_has_and_the_rest_is_not_tried(
    tmp_path: Path,
) -> None:
    """Its driver supports three commands."""
    small = driver(
        tmp_path,
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from logd_client.conformance_driver import ConformanceDriver\n"
        "from logd_client.producer import Producer\n"
        "import logd_client.outbox_file\n"
        "from logd_wire.rendezvous import NoOutbox\n"
        "def none(*_):\n"
        "    raise NoOutbox('none in this language')\n"
        "logd_client.outbox_file.open_directory = none\n"
        "known = ConformanceDriver()\n"
        "def answer(words):\n"
        "    if words[0] not in ('open', 'emit', 'close'):\n"
        "        return 'unsupported'\n"
        "    return getattr(known, 'do_' + words[0])(*words[1:])\n",
    )
    found = results(small, "record-vectors", "refusals", "full", "no-outbox", "forks")
    passed = {name for name, result in found.items() if result.verdict == PASSED}
    assert passed == {"no-outbox"}
    assert {result.verdict for result in found.values()} == {PASSED, NOT_TRIED}
    assert found["forks"].message == "a client without an outbox"


# -- drivers that misbehave ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def answer(words):\n    return 'perhaps'", "the driver answered `perhaps` to `open "),
        ("def answer(words):\n    return 'error no socket'", "answered `error no socket` to `open"),
        ("def answer(words):\n    sys.exit('no such client')", "exit code 1 at `open "),
        ("def answer(words):\n    return ''", "the driver answered `` to `open "),
    ],
)
def test_a_driver_that_misbehaves_is_named(tmp_path: Path, body: str, message: str) -> None:
    found = results(driver(tmp_path, body), "no-outbox")["no-outbox"]
    assert (found.verdict, found.page) == (FAILED, "Conformance")
    assert message in found.message
    if "sys.exit" in body:
        assert "no such client" in found.message


# -- the command ---------------------------------------------------------------------------------


def test_the_command_ends_with_0_where_all_passes_and_1_where_something_fails() -> None:
    passed = cli("--only", "record-vectors", *PYTHON_DRIVER)
    assert passed.exit_code == EXIT_OK, passed.output
    assert re.search(r"^ok +record-vectors +\d+\.\d\d s$", passed.output, re.MULTILINE)
    assert re.search(r"1 cases in .* 1 passed, 0 failed, 0 not tried$", passed.output.rstrip())
    faulty = str(ROOT / "tests/logd/conformance_faults.py")
    failed = cli("--json", "--only", "creating", sys.executable, faulty, "mode_by_umask")
    assert failed.exit_code == EXIT_NOT_WHOLE
    report = json.loads(failed.output)
    assert (report["conforms"], report["failed"], report["passed"]) == (False, 1, 0)
    assert report["cases"][0]["page"] == "Creating"


def test_nothing_tried_is_no_success(tmp_path: Path) -> None:
    silent = driver(tmp_path, "def answer(words):\n    return 'unsupported'")
    found = cli("--only", "record-vectors", *silent)
    assert found.exit_code == EXIT_NOT_WHOLE
    assert "not tried: the driver does not support `record`" in found.output


def test_a_driver_that_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    found = cli(str(tmp_path / "nothing"))
    assert found.exit_code == EXIT_UNAVAILABLE
    assert "the driver cannot be started: No such file or directory" in found.stderr


def test_an_unknown_case_or_no_driver_is_bad_usage() -> None:
    assert cli("--only", "everything", "x").exit_code == EXIT_USAGE
    assert cli().exit_code == EXIT_USAGE


def test_every_case_is_listed_with_what_it_tries() -> None:
    listed = cli("--list").output.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert all(line.rstrip().endswith(".") for line in listed)


# -- pure parts ----------------------------------------------------------------------------------


# Which argument of a call is the part of the page.
PAGE_ARGUMENT = {
    "Case": 1,
    "Failed": 1,
    "expect": 2,
    "expect_exactly_once": 2,
    "until": 2,
}


def pages_named() -> dict[str, str]:
    """Every part of the page that a case or one of its expectations names, and where."""
    named: dict[str, str] = {}
    for module in sorted((ROOT / "logd/conformance").glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            position = PAGE_ARGUMENT.get(name, len(node.args))
            for part in ast.walk(ast.Tuple(node.args[position : position + 1])):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    named[part.value] = f"{module.name}:{node.lineno}"
    return named | dict.fromkeys((verdicts.FORKS, verdicts.FOLLOWING), "verdicts.py")


def test_every_part_of_the_page_that_is_named_is_a_heading_of_it() -> None:
    headings = set(re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE))
    named = pages_named()
    assert len(named) > 15
    assert {name: where for name, where in named.items() if name not in headings} == {}
    assert {case.page for case in CASES} | {protocol.PAGE} <= headings


def test_every_link_within_the_page_leads_to_a_heading() -> None:
    headings = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors


def test_a_message_of_several_cases_is_one_line_at_the_end() -> None:
    def failed(case: str, message: str) -> verdicts.Result:
        return verdicts.Result(case, FAILED, "Outbox", 0, message)

    found = [
        failed("sizes", "the daemon refuses the outbox 0-55568e5299c075f5.outbox: sparse file"),
        failed("wrap", "the daemon refuses the outbox 0-d35a52acc3ad81cd.outbox: sparse file"),
        failed("full", "a full ring took one more event"),
        verdicts.Result("text", NOT_TRIED, "Payload", 0, "a full ring took one more event"),
    ]
    assert verdicts.repeated(found) == [
        "2 cases failed alike (sizes, wrap): "
        "the daemon refuses the outbox 0-55568e5299c075f5.outbox: sparse file"
    ]


def test_every_command_is_in_the_page_and_in_the_help() -> None:
    table = PAGE.split("## Conformance")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)[ `]", table, re.MULTILINE)
    assert sorted(documented) == sorted(protocol.ANSWERS)
    command = main.load_command("conformance")
    assert command.help is not None
    for usage in re.findall(r"^\| `(\w[^`]*)` \|", table, re.MULTILINE):
        assert re.search(rf"^ *{re.escape(usage)}  +\w", command.help, re.MULTILINE), usage


@pytest.mark.parametrize(
    ("command", "line", "answer"),
    [
        ("emit a 7 1 0", "accepted\n", "accepted"),
        ("stats", "3 2 1\n", "3 2 1"),
        ("record 0 1 .", "00ff\r\n", "00ff"),
        ("payload a - 0 80", "refused\n", "refused"),
        ("payload a - 0 80", ".\n", "."),
        ("fork 0", "unsupported\n", "unsupported"),
    ],
)
def test_answers_are_read(command: str, line: str, answer: str) -> None:
    assert protocol.parse(command, line) == answer


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("emit a 7 1 0", "ok"),
        ("emit a 7 1 0", "accepted 5"),
        ("stats", "3 2"),
        ("stats", "3 2 -1"),
        ("stats", "3 2 \u0661"),
        ("record 0 1 .", "0"),
        ("record 0 1 .", "refused"),
        ("record 0 1 .", "00 ff"),
        ("open /x 65536", "error no such directory"),
    ],
)
def test_answers_that_a_command_does_not_have_fail_by_the_drivers_protocol(
    command: str, line: str
) -> None:
    with pytest.raises(Failed) as failure:
        protocol.parse(command, line)
    assert failure.value.page == "Conformance"


def test_bytes_are_written_as_they_are_read() -> None:
    assert (protocol.hexadecimal(None), protocol.hexadecimal(b"")) == ("-", ".")
    assert protocol.parse_hex(protocol.hexadecimal(b"\0\xff")) == b"\0\xff"
    assert protocol.parse_hex(".") == b""
    assert protocol.parse_hex("") is None


def test_what_is_missing_twice_or_more_is_counted() -> None:
    assert missing_and_twice([1, 2, 3], [1, 2, 3]) == ""
    assert missing_and_twice([1, 2, 3], [1, 3]) == (
        "1 accepted events are missing (the first is 2)"
    )
    assert missing_and_twice([1, 2], [1, 2, 2]) == "1 events are there twice"
    assert missing_and_twice([1], [1, 9]) == "1 events are there that were not accepted"


def test_a_verdict_is_a_line_and_what_failed_stands_below() -> None:
    failed = verdicts.Result("full", FAILED, "Writing an event", 0.5, "a full ring took one more")
    assert verdicts.lines(failed, 8) == [
        "FAIL  full       0.50 s",
        "      a full ring took one more",
        '      PROTOCOL.md, "Writing an event"',
    ]
    untried = verdicts.Result(
        "forks", NOT_TRIED, verdicts.FORKS, 0, "the driver does not support `fork`"
    )
    assert verdicts.lines(untried, 5) == [
        "-     forks   0.00 s  not tried: the driver does not support `fork`"
    ]
    passed = verdicts.Result("wrap", PASSED, "The ring", 1, notes=["a word"])
    assert verdicts.lines(passed, 4) == ["ok    wrap   1.00 s", "      note: a word"]
    assert verdicts.summary_line([failed, untried, passed]) == (
        "3 cases in 1.5 s: 1 passed, 1 failed, 1 not tried"
    )
    assert verdicts.conforms([passed, untried])
    assert not verdicts.conforms([passed, failed])
    assert not verdicts.conforms([untried])
    assert verdicts.as_json(["x"], [passed])["conforms"] is True
