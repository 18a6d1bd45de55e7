"""A configuration with a mistake is refused, with the file, the line and the remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.config import retention
from logd.config.file import FILE_BYTES_MAX
from logd.config.settings import Config, load, memory_parts, parse
from logd.config.table import template
from logd.errors import ConfigError
from tests.support.instance import ROOT, Instance

FILE = Path("/srv/logd/logd.toml")
PAGE = (ROOT / "logd/README.md").read_text()


@pytest.mark.parametrize("what", ["a FIFO", "a device", "too long", "not text", "a directory"])
def test_a_file_that_is_no_configuration_is_refused_with_bounded_work(
    tmp_path: Path, what: str
) -> None:
    file = tmp_path / "logd.toml"
    if what == "a FIFO":
        os.mkfifo(file)
    elif what == "a device":
        file.symlink_to("/dev/null")
    elif what == "a directory":
        file.mkdir()
    else:
        file.write_bytes(b"#" * (FILE_BYTES_MAX + 1) if what == "too long" else b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file)


def test_paths_are_relative_to_the_file() -> None:
    config = parse(template(), FILE)
    assert config.database == Path("/srv/logd/activity.db")
    assert config.socket == Path("/srv/logd/logd.sock")
    assert parse('database = "/var/lib/x.db"', FILE).database == Path("/var/lib/x.db")


def test_metrics_are_off_or_on_a_socket_or_on_this_machine_only() -> None:
    assert parse(template(), FILE).metrics is None
    assert parse('metrics = "metrics.sock"', FILE).metrics == Path("/srv/logd/metrics.sock")
    assert parse('metrics = "127.0.0.1:9464"', FILE).metrics == ("127.0.0.1", 9464)
    assert parse('metrics = "[::1]:1"', FILE).metrics == ("::1", 1)


def test_every_setting_of_the_template_is_known_also_those_commented_out() -> None:
    lines = [line.removeprefix("# ") for line in template().splitlines()]
    settings = [line for line in lines if " = " in line and line[0].islower()]
    assert {re.split(" = |\\.", line)[0] for line in settings} == {
        field.name for field in fields(Config)
    } - {"path"}
    parse("\n".join(settings), FILE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('database = "a.db"\nsokket = "x"', "line 2: unknown name 'sokket'; did you mean 'socket'"),
        ("\n\nwhatever = 1", "line 3: unknown name 'whatever'; known are "),
        ("[daemon]\nx = 1", "line 1: unknown name 'daemon'"),
        ("batch_events_max = 0", "line 1: batch_events_max = 0: expected a whole number from 1"),
        ('batch_events_max = "1"', "expected a whole number"),
        ("batch_events_max = true", "expected a whole number"),
        ('socket_mode = "rw"', "expected permissions as octal digits"),
        ("many_users = 1", "expected true or false"),
        ("query_uids = [1, -2]", "expected a list of user ids"),
        ("query_group = 33", "expected the name of a group in quotes"),
        ("database = 5", "expected a path in quotes"),
        ("database =", "not valid TOML: Invalid value (at"),
        ('metrics = "0.0.0.0:9464"', 'such as "127.0.0.1:9464" or'),
        ('metrics = "127.0.0.1:99999"', 'such as "127.0.0.1:9464" or'),
        (f'metrics = "{"x" * 200}"', "line 1: the socket path"),
        (f'socket = "{"x" * 200}"', "line 1: the socket path"),
        ("retention = 5", "line 1: retention = 5: expected a period for each type"),
        ('[retention]\n\nlogin = "9q"', "line 3: retention of 'login' = '9q': unknown unit 'q'"),
        ('many_users = true\n[ retention ]\n"login" = 90', "line 3: retention of 'login' = 90"),
        (
            'retention.login = "90"',
            "line 1: retention of 'login' = '90': expected a whole number and",
        ),
        ('\nretention = { login = "0d" }', "line 2: retention of 'login' = '0d'"),
        ('retention.login = "999y"', "expected at most 200 years"),
        ('retention.Login = "9d"', "lower-case letters"),
        (
            '[retention]\norder.paid = "9d"',
            "line 2: retention of 'order' = {'paid': '9d'}: expected a duration in quotes, "
            'such as "90d"; write a type with dots in quotes: "order.paid" = "90d"',
        ),
        ('retention.person_erased = "9d"', "is kept for ever"),
        ("[retention]\nmany_users = true", "settings of logd must stand above [retention]"),
        ("apps = 5", "line 1: apps = 5: expected a user id for each application"),
        ('[apps]\nshop = "me"', "line 2: apps: 'shop' = 'me': expected a list of user ids"),
        ("apps.shop = []", "line 1: apps: 'shop' = []: expected at least one user id"),
        ('apps."33" = 33', "line 1: apps: '33' = 33: expected a name"),
        ("[apps]\noutboxes_max = 9", "is the name of a setting; settings of logd must stand above"),
        ('person_keys = "user"', "expected a list of names of properties"),
        ('person_keys = ["a b"]', "expected a list of names of properties"),
        *(
            (f'person_keys = ["{name}"]', f"expected names of persons; '{name}' names")
            for name in ("Task", "quiz", "_QUIZ", "sco-re", "attempt")
        ),
        ('person_keys = ["7a"]', "expected a list of names of properties"),
        ('person_keys = ["score"]', "expected names of persons; 'score' names"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert message in str(caught.value)
    assert "/srv/logd/logd.toml" in str(caught.value)


def test_applications_have_one_uid_or_several_and_keys_name_persons() -> None:
    config = parse('person_keys = ["kid"]\n[apps]\nshop = 33\nschool = [34, 35]\n', FILE)
    assert config.apps == {"shop": (33,), "school": (34, 35)}
    assert config.person_keys == ("kid",)
    assert parse("", FILE).apps == {}
    assert parse('person_keys = ["schu\u0308ler", "_by"]', FILE).person_keys == (
        "sch\xfcler",
        "_by",
    )
    assert "student" in parse("", FILE).person_keys


def test_a_retention_is_a_period_for_each_type() -> None:
    day_ns = 86_400 * 10**9
    for text in ('[retention]\nlogin = "36h"\npage_view = "2w"', 'retention.login = "36h"\n'):
        assert parse(text, FILE).retention["login"] == 1.5 * day_ns
    assert parse('retention = { page_view = "1y" }', FILE).retention == {"page_view": 365 * day_ns}
    assert parse("", FILE).retention == {}


def test_other_requests_are_kept_as_long_as_page_views_unless_named() -> None:
    """Earlier clients stored them as page views: no upgrade keeps them for ever in silence."""
    day_ns = 86_400 * 10**9
    now_ns = 1000 * day_ns
    text = 'retention = { page_view = "90d", request_refused = "1y", login = "2d" }'
    assert retention.before(parse(text, FILE).retention, now_ns) == {
        "page_view": 910 * day_ns,
        "request_answered": 910 * day_ns,
        "request_redirected": 910 * day_ns,
        "request_failed": 910 * day_ns,
        "request_refused": 635 * day_ns,
        "login": 998 * day_ns,
    }
    alone = parse('retention.request_refused = "1y"', FILE).retention
    assert retention.before(alone, now_ns) == {"request_refused": 635 * day_ns}


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_a_config_or_a_config_error(text: str) -> None:
    try:
        parse(text, FILE)
    except ConfigError as error:
        message = str(error)
    else:
        message = str(FILE)
    assert str(FILE) in message


def test_the_daemon_refuses_a_mistake_with_exit_code_78(instance: Instance) -> None:
    file = instance.config.path
    file.write_text(file.read_text() + "\ncommit_every = 5\n")
    done = subprocess.run(
        [sys.executable, "-m", "logd", "run", "--config", str(file)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 78
    assert f"{file}, line" in done.stderr and "commit_every" in done.stderr
    assert "Traceback" not in done.stderr
    file.write_text(template())


def test_an_instance_is_made_once_and_never_over_another(instance: Instance) -> None:
    key = instance.config.key_file.read_text()
    said = instance.cli("init", str(instance.directory), config=False, code=73)
    assert "exists already" in said
    assert instance.config.key_file.read_text() == key


def test_a_directory_too_long_for_a_socket_is_refused_before_anything_is_made(
    directory: Path, instance: Instance
) -> None:
    long = directory / ("d" * 100)
    said = instance.cli("init", str(long), config=False, code=78)
    assert "at most 107" in said
    assert not long.exists()


def test_the_defaults_that_the_readme_names_are_the_ones_there_are() -> None:
    config = parse(template(), FILE)
    unit = {"": 1, "MiB": 2**20, "GiB": 2**30}
    rows = re.findall(r"^\| `(\w+_max)` \| ([\d,]+) ?(\w*) \|", PAGE, re.MULTILINE)
    assert len(rows) >= 7
    for name, number, size in rows:
        assert getattr(config, name) == int(number.replace(",", "")) * unit[size], name


def test_the_bound_of_memory_may_be_used_to_the_last_byte_and_not_past_it() -> None:
    needed = sum(memory_parts(parse(template(), FILE)).values())
    assert parse(f"memory_bytes_max = {needed}", FILE).memory_bytes_max == needed
    with pytest.raises(ConfigError, match=f"up to {needed} bytes may be needed"):
        parse(f"memory_bytes_max = {needed - 1}", FILE)
