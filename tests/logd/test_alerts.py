"""Alerts and dashboard ask for metrics that are there, and say what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from tests.logd.made_status import EVERYTHING
from tests.support.instance import ROOT, Instance

RULES = ROOT / "systemd" / "prometheus" / "logd.rules.yml"
DASHBOARD = ROOT / "systemd" / "grafana" / "logd.json"
THERE = {name for name, _ in EVERYTHING}


def rules() -> list[dict[str, str]]:
    """The rules, parsed from the few forms of YAML that the file uses; fails on any other."""
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
    return set(re.findall(r"\blogd_\w+", expr))  # `up` is Prometheus' own


def test_each_alert_uses_existing_metrics_and_names_the_remedy() -> None:
    alerts = rules()
    assert len({alert["alert"] for alert in alerts}) == len(alerts) >= 12
    for alert in alerts:
        names = asked_for(alert["expr"])
        assert names and names <= THERE, alert
        assert alert["severity"] in ("critical", "warning")
        assert alert["summary"].endswith(".") and alert["runbook"].endswith("."), alert
        assert re.fullmatch(r"\d+[smh]", alert.get("for", "0s"))


def test_each_alert_is_described_in_the_administrators_page() -> None:
    page = (ROOT / "systemd" / "README.md").read_text()
    section = page.split("\n## Alerts\n")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(Logd\w+)` \|", section, re.MULTILINE)
    assert named == [rule["alert"] for rule in rules()]


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not on this machine"
)


@needs_promtool
def test_the_alerts_fire_for_the_machine_that_they_are_about() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", RULES.with_name("logd.rules.test.yml")],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_unit_test() -> None:
    text = RULES.with_name("logd.rules.test.yml").read_text()
    assert set(re.findall(r"alertname: (\w+)", text)) == {rule["alert"] for rule in rules()}


def test_no_alert_counts_machines_together() -> None:
    """What one of several machines does is not hidden by the others."""
    for rule in rules():
        text = rule["expr"]
        assert not re.search(r"\b(sum|min|max|avg|count)\s*(by\b[^(]*)?\(", text), rule
        assert not re.search(r"\babsent\(", text), rule


@needs_promtool
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
