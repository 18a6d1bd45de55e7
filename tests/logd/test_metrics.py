"""Metrics: what Prometheus reads, and where; alerts and dashboard ask for what is there."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from logd import instance_lock
from logd.runtime_stats import COMMIT_BOUNDS_S, RuntimeStats
from logd.serve.metrics_server import HEAD_BYTES_MAX, SEATS_MAX, MetricsService
from logd.serve.request_server import Credentials
from logd.status.metrics import LogdCollector, MetricsSnapshot
from logd_wire.query import QueryClient
from tests.logd.test_hostile import datagram, sender
from tests.logd.test_status import EMPTY, NS
from tests.support.instance import ROOT, Instance, check_sums, emitters, until

RULES = ROOT / "systemd" / "prometheus" / "logd.rules.yml"
DASHBOARD = ROOT / "systemd" / "grafana" / "logd.json"

FULL: dict[str, Any] = EMPTY | {
    "stored": 100, "room_s": 7200.0, "last_stored_ns": NS,
    "disk": EMPTY["disk"] | {"free_bytes": 10**9, "days_left": 30.0},
    "integrity": {"at_ns": NS, "whole": True},
    "runtime_files": [
        {"name": "token", "problem": "not there", "restored": 0},
        {"name": "socket", "problem": None, "restored": 3},
    ],
}  # fmt: skip
FIGURES = RuntimeStats(
    at_ns=3 * NS, started_ns=2 * NS, commits=6, commit_s=0.5, commit_counts=(1, 2, *[0] * 11, 3),
    queue_datagrams=513,
)  # fmt: skip


def samples(text: str) -> dict[tuple[str, str], float]:
    """Each sample by its name and its label's value; fails for what is no such text."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            found[sample.name, "".join(sample.labels.values())] = sample.value
    return found


def of(snapshot: MetricsSnapshot) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(LogdCollector(lambda: snapshot))
    return samples(generate_latest(registry).decode())


EVERYTHING = of(MetricsSnapshot(True, False, FIGURES, FULL))


def test_metrics_say_how_it_stands() -> None:
    assert EVERYTHING["logd_up", ""] == 1
    assert EVERYTHING["logd_events_stored_total", ""] == 100
    assert EVERYTHING["logd_outbox_room_seconds", ""] == 7200
    assert EVERYTHING["logd_disk_room_seconds", ""] == 30 * 86_400
    assert EVERYTHING["logd_last_turn_timestamp_seconds", ""] == 3
    assert EVERYTHING["logd_file_missing", "token"] == 1
    assert EVERYTHING["logd_file_missing", "socket"] == 0
    assert EVERYTHING["logd_files_restored_total", "socket"] == 3
    assert EVERYTHING["logd_lost_events_total", "tail unknown"] == 0
    assert EVERYTHING["logd_events_lost_claimed_total", ""] == 0
    assert ("logd_lost_events_total", "claimed") not in EVERYTHING


def test_commits_are_a_histogram_whose_buckets_hold_all_below_them() -> None:
    bucket = "logd_commit_duration_seconds_bucket"
    assert [EVERYTHING[bucket, str(bound)] for bound in COMMIT_BOUNDS_S[:3]] == [1, 3, 3]
    assert EVERYTHING[bucket, "10.0"] == 3
    assert EVERYTHING[bucket, "+Inf"] == 6 == EVERYTHING["logd_commit_duration_seconds_count", ""]
    assert EVERYTHING["logd_commit_duration_seconds_sum", ""] == 0.5


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    assert of(MetricsSnapshot(False, False, None, None)) == {
        ("logd_up", ""): 0, ("logd_stalled", ""): 0, ("logd_trail_readable", ""): 0,
    }  # fmt: skip
    names = {name for name, _ in of(MetricsSnapshot(True, True, None, EMPTY))}
    assert {
        "logd_trail_whole",
        "logd_outbox_room_seconds",
        "logd_disk_room_seconds",
    } & names == set()


def test_names_are_by_prometheus_conventions_and_labels_name_causes_only(
    instance: Instance,
) -> None:
    instance.start()
    text = instance.cli("metrics")
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"logd_[a-z_]+", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        for sample in family.samples:
            assert set(sample.labels) <= {"cause", "file", "le"}, sample
    assert not re.search(r"_(ms|ns|minutes|days)\b", text)


# -- served --------------------------------------------------------------------------------------


def accepts(path: Path) -> bool:
    """Whether it can be connected to: it has its name a moment before it listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


class _OnSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def ask(connection: http.client.HTTPConnection, path: str = "/metrics") -> tuple[int, str]:
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_they_are_off_until_they_are_asked_for(instance: Instance) -> None:
    instance.start()
    assert QueryClient(str(instance.config.query_socket), timeout_s=20).ask("summary").rows
    assert not (instance.directory / "metrics.sock").exists()
    pid = instance.daemon.popen.pid if instance.daemon else 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert "prometheus" not in Path(f"/proc/{children[0]}/maps").read_text()


def test_a_socket_gives_them_to_whom_its_mode_lets_in(instance: Instance) -> None:
    instance.configure(metrics="metrics.sock", metrics_socket_mode="0660")
    daemon = instance.start()
    path = instance.directory / "metrics.sock"
    until(lambda: accepts(path), "the socket is there")
    assert path.stat().st_mode & 0o777 == 0o660
    with emitters(instance, count=1, events=50) as (emitter,):
        emitter.finish()
    check_sums(instance.settle(), attempted=50, accepted=50)
    status, text = ask(_OnSocket(path))
    assert status == 200
    found = samples(text)
    assert (found["logd_up", ""], found["logd_events_stored_total", ""]) == (1, 50)
    assert ask(_OnSocket(path), "/other")[0] == 404
    # Who says nothing, or half a request, holds up nobody.
    silent = [_OnSocket(path) for _ in range(5)]
    for one in silent:
        one.connect()
        one.sock.send(b"GET /met")
    assert ask(_OnSocket(path))[0] == 200
    for one in silent:
        one.close()
    path.unlink()  # a cleaner does
    until(path.exists, "it is made again")
    until(lambda: daemon.says("was removed or replaced: created again"), "the log says so")
    assert ask(_OnSocket(path))[0] == 200
    assert not any("Traceback" in line for line in daemon.lines)
    instance.stop()
    assert not path.exists()


def service() -> MetricsService:
    return MetricsService(CollectorRegistry())


ANYBODY = Credentials(0, -1, frozenset())


def test_a_request_is_whole_with_its_head_at_its_end_or_past_its_bound() -> None:
    head = bytearray(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r")
    assert service().take_request(head, ended=False) is None
    head += b"\nmore"
    assert service().take_request(head, ended=False) is not None
    assert head == b""
    assert service().take_request(head, ended=True) is None
    assert service().take_request(bytearray(b"GET /met"), ended=True) == b"GET /met"
    endless = bytearray(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * HEAD_BYTES_MAX)
    assert service().take_request(endless, ended=False) is not None


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", 200),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 501),
        (b"GET /metrics HTTP/9.9\r\n\r\n", 505),
        (b"nonsense without an end\r\n\r\n", 400),
        (b"GET /" + b"x" * HEAD_BYTES_MAX, 404),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: cut", 200),
    ],
)
def test_whatever_is_asked_one_response_ends_the_connection(
    request_head: bytes, status: int
) -> None:
    response, stays = service().answer(request_head, ANYBODY)
    assert not stays
    if response.startswith(b"<"):  # to what names no version of HTTP there is no head
        assert f"Error code: {status}<".encode() in response
    else:
        assert f" {status} ".encode() in response.splitlines()[0]


def test_who_is_too_slow_or_one_too_many_hears_so_in_http() -> None:
    for code, status in (("busy", b"503 Service Unavailable"), ("bad_request", b"408 Request Tim")):
        response = service().error(code, "why")
        assert response.startswith(b"HTTP/1.0 " + status)
        assert response.endswith(b"\r\n\r\nwhy\n")


def test_slow_scrapers_keep_no_other_from_the_metrics(instance: Instance) -> None:
    """More than there are seats; the second that each has is for all of its request."""
    instance.configure(metrics="metrics.sock")
    instance.start()
    path = instance.directory / "metrics.sock"
    until(lambda: accepts(path), "the socket is there")
    slow = [_OnSocket(path) for _ in range(2 * SEATS_MAX)]
    for one in slow:
        one.connect()
        one.sock.send(b"GET /metrics HTTP/1.1\r\nX: ")
    assert ask(_OnSocket(path))[0] == 200
    over = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):  # let go
            while not over.is_set():
                slow[-1].sock.send(b"y")
                over.wait(0.05)

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        assert b" 408 " in slow[-1].sock.recv(4096), "though it never stops sending"
    finally:
        over.set()
        trickling.join()
        for one in slow:
            one.close()


def test_an_address_of_this_machine_gives_them_too(instance: Instance) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    instance.configure(metrics=f"127.0.0.1:{port}")
    instance.start()

    def asked() -> bool:
        try:
            return ask(http.client.HTTPConnection("127.0.0.1", port, timeout=20))[0] == 200
        except ConnectionError:
            return False

    until(asked, "they are served")


def test_an_address_that_is_taken_costs_the_metrics_and_no_report(instance: Instance) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        instance.configure(metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        daemon = instance.start()
        until(lambda: daemon.says("no metrics at"), "it says so")
        assert QueryClient(str(instance.config.query_socket), timeout_s=20).ask("summary").rows


def test_looking_does_not_end_the_report_process_as_a_producer(instance: Instance) -> None:
    """It has an outbox: to open that and close it again would let go of its own lock."""
    instance.configure(metrics="metrics.sock", look_interval_ms=20)
    instance.start()
    client = QueryClient(str(instance.config.query_socket), timeout_s=20)
    client.ask("timeline", user="7")  # an event of the report process
    until(lambda: instance.status()["stored"] == 1, "stored")
    for _ in range(3):
        assert ask(_OnSocket(instance.directory / "metrics.sock"))[0] == 200
    asked_ns = time.time_ns()

    def looked() -> bool:
        figures = instance_lock.read_runtime_stats(instance.config.lock_file)
        return figures is not None and figures.at_ns > asked_ns + NS

    until(looked, "the daemon has looked who lives, many times")
    client.ask("timeline", user="7")
    until(lambda: instance.status()["stored"] == 2, "stored")
    status = instance.status()
    assert (status["producers"], status["outboxes"], status["lost"]) == (1, 1, 0)


# -- printed -------------------------------------------------------------------------------------


def test_they_can_be_printed_with_the_daemon_up_stalled_and_down(instance: Instance) -> None:
    assert samples(instance.cli("metrics"))["logd_up", ""] == 0
    instance.start()
    with sender(instance) as sock:
        sock.send(b"garbage")
        for sequence in (1, 3):
            sock.send(datagram(sequence))
        until(lambda: instance.status()["stored"] == 2, "stored")
        found = samples(instance.cli("metrics"))
        assert found["logd_lost_events_total", "not received"] == 1
        assert found["logd_quarantined_total", ""] == 1
        with instance.database() as connection:
            connection.execute("BEGIN IMMEDIATE")
            sock.send(datagram(4))
            until(lambda: instance.status()["trouble"], "it has trouble")
            assert samples(instance.cli("metrics"))["logd_stalled", ""] == 1
    until(lambda: instance.status()["stored"] == 3, "stored")
    check_sums(instance.status(), attempted=4, accepted=4)
    instance.stop()
    found = samples(instance.cli("metrics"))
    assert (found["logd_up", ""], found["logd_stalled", ""]) == (0, 0)
    instance.config.key_file.write_text("f" * 64)
    assert samples(instance.cli("metrics"))["logd_trail_readable", ""] == 0


# -- alerts and dashboard ------------------------------------------------------------------------


def rules() -> list[dict[str, str]]:
    """The rules, by the few forms of YAML that the file keeps to; fails on any other."""
    found: list[dict[str, str]] = []
    lines = [
        line for line in RULES.read_text().splitlines() if line.strip() and line.lstrip()[0] != "#"
    ]
    assert [line.strip() for line in lines[:3]] == ["groups:", "- name: logd", "rules:"]
    folded = None
    for line in lines[3:]:
        assert "\t" not in line
        if folded is not None and line.startswith(" " * 10):
            found[-1][folded] += " " + line.strip()
            continue
        folded = None
        start = re.fullmatch(r"      - alert: (\w+)", line)
        if start:
            found.append({"alert": start[1]})
            continue
        field = re.fullmatch(r" {8}(?: {2})?(\w+):(?: (.+))?", line)
        assert field, line
        name, value = field[1], field[2] or ""
        assert name in {"expr", "for", "labels", "severity", "annotations", "summary", "runbook"}
        if value == ">-":
            folded, value = name, ""
        elif name in ("summary", "runbook"):
            assert re.fullmatch(r'"[^"\\]+"', value), line
        else:
            assert ": " not in value and " #" not in value and value[:1] not in ('"', "'", "[", "{")
        found[-1][name] = value.strip('"')
    return found


def asked_for(expr: str) -> set[str]:
    assert expr.count("(") == expr.count(")") and expr.count("[") == expr.count("]"), expr
    return set(re.findall(r"\blogd_\w+", expr))


THERE = {name for name, _ in EVERYTHING}


def test_each_alert_asks_for_metrics_that_are_there_and_says_what_to_do() -> None:
    alerts = rules()
    assert len({alert["alert"] for alert in alerts}) == len(alerts) >= 12
    for alert in alerts:
        names = asked_for(alert["expr"])
        assert names and names <= THERE, alert
        assert alert["severity"] in ("critical", "warning")
        assert alert["summary"].endswith(".") and alert["runbook"].endswith("."), alert
        assert re.fullmatch(r"\d+[smh]", alert.get("for", "0s"))


def test_each_alert_has_its_place_on_the_page_for_who_gets_it() -> None:
    page = (ROOT / "systemd" / "README.md").read_text()
    section = page.split("\n## Alerts\n")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(Logd\w+)` \|", section, re.MULTILINE)
    assert named == [rule["alert"] for rule in rules()]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
def test_prometheus_own_tool_takes_the_rules_and_the_metrics(instance: Instance) -> None:
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True)
    text = instance.cli("metrics")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dashboard_loads_and_each_panel_asks_for_metrics_that_are_there() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["id"] is None  # Grafana gives it one
    assert (dashboard["uid"], dashboard["schemaVersion"]) == ("logd", 39)
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource", "datasource", "prometheus",
    )  # fmt: skip
    source = {"type": "prometheus", "uid": "${datasource}"}
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"] and panel["description"]
        assert panel["datasource"] == source
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        cells |= taken
        for target in panel["targets"]:
            assert target["datasource"] == source
            names = asked_for(target["expr"])
            assert names and names <= THERE, target
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    shown = set().union(
        *(asked_for(t["expr"]) for panel in dashboard["panels"] for t in panel["targets"])
    )
    for annotation in dashboard["annotations"]["list"]:
        assert asked_for(annotation["expr"]) <= THERE
    assert {"logd_events_stored_total", "logd_pending_events", "logd_lost_events_total"} <= shown
