"""The list of cases, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from logd.conformance import (
    byte_cases,
    kill_cases,
    life_cases,
    loss_cases,
    outbox_cases,
    sending_cases,
)
from logd.conformance.scene import Scene
from logd.conformance.verdicts import FOLLOWING, FORKS


@dataclass(frozen=True)
class Case:
    """A test of one part of a producer's life. `page` is the heading in shared/PROTOCOL.md."""

    name: str
    page: str
    run: Callable[[Scene], None]

    @property
    def what(self) -> str:
        """Returns what the case tests, in a line: the docstring of its function."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


CASES = (
    Case("payload-vectors", "Payload", byte_cases.payload_vectors),
    Case("record-vectors", "Record", byte_cases.record_vectors),
    Case("datagram-vectors", "Datagram", byte_cases.datagram_vectors),
    Case("refusals", "Payload", byte_cases.refusals),
    Case("text", "Payload", byte_cases.text),
    Case("sizes", "Limits", byte_cases.sizes),
    Case("creating", "Creating", outbox_cases.creating),
    Case("taking-its-name", "Creating", outbox_cases.taking_its_name),
    Case("ring-sizes", "Limits", outbox_cases.ring_sizes),
    Case("records", "Record", outbox_cases.records),
    Case("wrap", "The ring", outbox_cases.wrap),
    Case("full", "Writing an event", outbox_cases.full),
    Case("room", "Writing an event", outbox_cases.room),
    Case("rendezvous", "Rendezvous", outbox_cases.rendezvous),
    Case("socket-link", "Rendezvous", outbox_cases.socket_link),
    Case("datagrams", "Writing an event", sending_cases.datagrams),
    Case("watching", "Watching", sending_cases.watching),
    Case("queue-full", "Writing an event", sending_cases.queue_full),
    Case("daemon-away", "A client with an outbox", sending_cases.daemon_away),
    Case("outbox-later", "A client with an outbox", sending_cases.outbox_later),
    Case("outbox-retries", "Rendezvous", sending_cases.outbox_retries),
    Case("no-outbox", "A client without an outbox", sending_cases.no_outbox),
    Case("durable", "What is on disk", life_cases.durable),
    Case("durable-no-outbox", "Datagram", life_cases.durable_without_outbox),
    Case("durable-unknown", "Durable events", life_cases.durable_unknown),
    Case("ending", "Ending", life_cases.ending),
    Case("killed", "The lock", life_cases.killed),
    Case("forks", FORKS, life_cases.forks),
    Case("lock-lost", FOLLOWING, life_cases.lock_lost),
    Case("descriptors-closed", FOLLOWING, loss_cases.descriptors_closed),
    Case("linked", FOLLOWING, loss_cases.linked),
    Case("removed", FOLLOWING, life_cases.removed),
    Case("removed-full", FOLLOWING, loss_cases.removed_full),
    Case("removed-unread", FOLLOWING, loss_cases.removed_unread),
    Case("retired", FOLLOWING, life_cases.retired),
    Case("retired-with-more", FOLLOWING, loss_cases.retired_with_more),
    Case("retired-named", FOLLOWING, loss_cases.retired_with_its_name),
    Case("given-up", FOLLOWING, life_cases.given_up),
    Case("given-up-each-time", FOLLOWING, loss_cases.given_up_each_time),
    Case("kills", "What each side must never do", kill_cases.kills),
    Case("kills-without-outbox", "A client without an outbox", kill_cases.kills_without_outbox),
)
