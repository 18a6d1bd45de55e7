"""The reference client in C: it compiles without a warning, and conforms."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from logd.conformance import runner
from logd.conformance.cases import CASES
from logd.conformance.verdicts import PASSED
from tests.support.instance import ROOT

FOLDER = ROOT / "shared/c"
STRICT = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
# These start daemons or wait out an interval of the client's.
SLOW = {"kills", "kills-without-outbox", "outbox-later"}
LINES_MAX = 150


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The driver of the client, compiled as strictly as the compiler can."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (on Debian and Ubuntu: apt-get install gcc)")
    made = str(tmp_path_factory.mktemp("c") / "driver")
    command = [compiler, *STRICT, "-o", made, str(FOLDER / "driver.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return made


def test_the_client_in_c_conforms(driver: str) -> None:
    names = [case.name for case in CASES if case.name not in SLOW]
    found = list(runner.run([driver], names, 1, lambda _: None))
    assert [result.case for result in found] == names
    assert [result for result in found if result.verdict != PASSED] == []


@pytest.mark.long(minutes=6)
def test_the_client_in_c_conforms_through_many_kills(driver: str) -> None:
    found = list(runner.run([driver], sorted(SLOW), 40, lambda _: None))
    assert [result for result in found if result.verdict != PASSED] == []


def code_lines(path: Path) -> int:
    """Lines that are neither empty nor comments."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    return sum(bool(line.strip()) for line in text.splitlines())


def test_the_client_stays_short_enough_to_be_read_beside_the_page() -> None:
    assert 60 <= code_lines(FOLDER / "logd_client.h") <= LINES_MAX
    for path in FOLDER.iterdir():
        assert all(len(line) <= 100 for line in path.read_text().splitlines()), path.name


def test_every_word_of_a_header_has_its_static_assertion() -> None:
    text = (FOLDER / "logd_outbox.h").read_text()
    assert text.count("_Static_assert") >= 9
    for word in (8, 16, 19, 24):
        assert f'"word {word}")' in text
