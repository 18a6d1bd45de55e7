"""Evidence sheets over a real daemon: what is lost, refused, removed or not stored yet is said."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import msgpack
import pytest
from flask import Flask

from logd_client import Client
from logd_wire import wire
from tests.support.instance import Instance, check_sums, settled, until
from tests.webapp.browser import Browser
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, MakeApp, fill

WHOLE = "No number is missing in this range."
DAY_NS = 86_400 * 10**9


@pytest.fixture
def app(make_app: MakeApp, instance: Instance) -> Flask:
    """A site whose reports are those of the instance."""
    made = make_app(
        ACTIVITY_QUERY_SOCKET=str(instance.directory / "query.sock"), ACTIVITY_QUERY_TIMEOUT_S=20.0
    )
    fill(made)
    return made


class Sent:
    """Events that were sent to the daemon, and how many of them it was to accept."""

    def __init__(self, instance: Instance) -> None:
        self.instance, self.count, self.lone = instance, 0, 77
        self.client = Client(instance.socket)

    def emit(self, count: int, user: int, ago_ns: int = 0) -> None:
        for _ in range(count):
            assert self.client.emit("page_view", user=str(user), ts_ns=time.time_ns() - ago_ns)
        self.count += count
        assert self.client.flush(60)

    def datagram(self, sequence: int, payload: bytes | None = None, *, end: bool = False) -> None:
        """One of a program that keeps no copy."""
        good = wire.pack_payload(msgpack.Packer(), "page_view", time.time_ns(), str(STUDENT), {})
        seed = wire.producer_seed(self.lone)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(self.instance.socket)
            record = wire.encode_record(seed, sequence, good if payload is None else payload)
            if end:
                sock.send(wire.encode_farewell(self.lone, sequence, {}))
            else:
                sock.send(wire.datagram_head(self.lone) + record)


@pytest.fixture
def sent(instance: Instance) -> Iterator[Sent]:
    instance.start(loads_reports=True)
    made = Sent(instance)
    yield made
    made.client.close()


def page(auditor: Browser, query: str = "") -> str:
    for _ in range(20):  # a report has two seconds, which are few beside other tests
        text = auditor.get(f"/audit/evidence?user={STUDENT}{query}").text
        if "stopped after 2 s" not in text:
            break
    return text


def check(sent: Sent, **lost: int) -> None:
    attempted = sent.count + lost.get("lost", 0) + lost.get("quarantined_events", 0)
    status = settled(sent.instance.status)
    check_sums(status, attempted=attempted, accepted=attempted)
    assert {name: status[name] for name in lost} == lost


def test_a_loss_in_the_range_is_said_and_a_range_before_it_is_whole(
    auditor: Browser, sent: Sent
) -> None:
    sent.emit(3, STUDENT, ago_ns=2 * DAY_NS)
    assert WHOLE in page(auditor)
    sent.datagram(1)
    sent.datagram(5)
    sent.datagram(5, end=True)
    sent.count += 2
    until(lambda: sent.instance.status()["lost"] == 3, "the loss is noticed")
    text = page(auditor)
    assert WHOLE not in text and "Numbers 2 to 4 of program" in text and "(not received)" in text
    before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 86_400))
    assert WHOLE in page(auditor, f"&until={before}")
    check(sent, lost=3)


def test_a_program_that_keeps_no_copy_has_a_last_number_that_is_not_known(
    auditor: Browser, sent: Sent
) -> None:
    sent.datagram(1)
    sent.count += 1
    until(lambda: sent.instance.status()["stored"] == 1, "it is stored")
    text = page(auditor)
    assert WHOLE not in text and "the last numbers of 1 program that keep no copy" in text
    sent.datagram(1, end=True)
    until(lambda: WHOLE in page(auditor), "its farewell has come")
    check(sent, lost=0)


def test_refused_input_is_a_note(auditor: Browser, sent: Sent) -> None:
    sent.emit(1, STUDENT)
    sent.datagram(1, b"\x93\x01\x02\x03")
    sent.datagram(1, end=True)
    until(lambda: sent.instance.status()["quarantined"] == 1, "it is in quarantine")
    text = page(auditor)
    assert WHOLE in text and "Refused by logd in this range: 1 piece of input" in text
    check(sent, quarantined_events=1, lost=0)


def test_events_removed_by_retention_or_erasure_are_said_with_the_act(
    auditor: Browser, sent: Sent
) -> None:
    sent.emit(4, OTHER_STUDENT)
    sent.emit(2, STUDENT)
    assert "Erased because" not in page(auditor)
    sent.instance.cli("forget", str(OTHER_STUDENT), "--yes")
    text = page(auditor)
    assert WHOLE in text and "Erased because a person was forgotten, as event" in text
    assert "4 events stored around this range" in text
    assert f">{sent.count - 1}<" in text and "Number" in text
    # The events of the one who was forgotten are no longer there, and that some are gone is said.
    for _ in range(20):
        other = auditor.get(f"/audit/evidence?user={OTHER_STUDENT}").text
        if "stopped after 2 s" not in other:
            break
    assert "The log has no such event." in other and "Erased because" in other
    check(sent, erased=4, lost=0)


def test_without_the_daemon_no_sheet_is_made_and_with_it_again_it_is_the_same(
    auditor: Browser, sent: Sent
) -> None:
    sent.emit(3, STUDENT)
    up_to = 3
    before = page(auditor, f"&up_to={up_to}")
    sent.instance.kill()
    text = auditor.get(f"/audit/evidence?user={STUDENT}").text
    assert "Analytics are unavailable" in text and WHOLE not in text
    assert auditor.get(f"/audit/evidence/download?user={STUDENT}").status_code == 503
    sent.instance.start(loads_reports=True)
    again = page(auditor, f"&up_to={up_to}")
    table = [text.partition("<tbody")[2].partition("</tbody>")[0] for text in (before, again)]
    assert table[0] == table[1] != "" and WHOLE in again
    check(sent, lost=0)


def test_verification_and_the_anchor_are_said(auditor: Browser, sent: Sent) -> None:
    sent.emit(3, STUDENT)
    assert "has not been verified yet" in page(auditor)
    sent.instance.cli("verify")
    text = page(auditor)
    assert "It was last verified whole on" in text
    until(lambda: "was written to the journal on" in page(auditor), "an anchor was logged")
    (line,) = [line for line in sent.instance.daemon.lines if " anchor batch=0 " in line]  # type: ignore[union-attr] # it runs
    root = line.partition("root=")[2].split()[0]
    assert f"<code>{root}</code>" in page(auditor)
    check(sent, lost=0)
