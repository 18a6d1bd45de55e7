"""The auditor's pages with the real logd: what they say of a real trail, and what is recorded."""

from __future__ import annotations

import contextlib
import re

from logd_client import Client
from tests.support.instance import Instance, check_sums, until
from tests.webapp.browser import Browser
from tests.webapp.conftest import AUDITOR, STUDENT, MakeApp, fill


def test_the_overview_and_its_pages_say_of_a_real_trail_what_is_so(
    instance: Instance, make_app: MakeApp
) -> None:
    instance.start(loads_reports=True)
    with contextlib.closing(Client(instance.socket)) as client:
        assert client.emit("essay_read", user=str(STUDENT), durable=True)
        assert client.emit("essay_read", user="9", durable=True)
        assert client.stats()["accepted"] == client.stats()["attempted"] == 2
    app = make_app(ACTIVITY_QUERY_SOCKET=str(instance.config.query_socket))
    fill(app)
    auditor = Browser(app)
    auditor.log_in("auditor")
    before = auditor.get("/audit/").text
    assert "The record has not been verified yet." in before
    assert "There is no backup that logd knows of." in before
    for command in (("backup",), ("forget", "9", "--yes"), ("verify",)):
        instance.cli(*command)
    instance.cli("export", "--type", "essay_read", "-o", str(instance.directory / "out.csv"))
    until(lambda: ", to logd's log, signed" in auditor.get("/audit/").text, "an anchor")
    text = auditor.get("/audit/").text
    assert "Everything recorded is there. Verified whole on" in text
    assert "1 kept" in text and "1 may still exist" in text
    assert re.search(r"<td>the events of one person</td><td[^>]*>1</td>", text)
    assert not [one for one in instance.events() if one["type"] == "report_read"]

    # The daemon stores the end of an export when it next looks for jobs.
    until(lambda: instance.events("--type", "trail_exported"), "the end of the export")
    exports = auditor.get("/audit/exports").text
    assert "of the machine exported types essay_read, as" in exports and "1 event." in exports
    assert "Quarantine is empty." in auditor.get("/audit/quarantine").text
    readings = auditor.get("/audit/readings").text
    assert readings.count("</strong> looked at a list of entries of the log, of trail_export") == 2
    assert "of report_read" not in readings, "a page is read before its reading is recorded"
    assert "of report_read" in auditor.get("/audit/readings").text
    stored = [one for one in instance.events() if one["type"] == "report_read"]
    assert {one["user"] for one in stored} == {str(AUDITOR)}
    check_sums(instance.settle(), attempted=2, accepted=2)
