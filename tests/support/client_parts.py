"""The parts of a client that tests look into: the one place that names them.

They are not public, since no caller of a client needs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logd_client import Client
from logd_client.clock import SYSTEM_CLOCK
from logd_client.environment import Environment
from logd_client.former_producers import FormerProducers
from logd_client.guard import Guard
from logd_client.outbox_file import OutboxFile
from logd_client.producer import Producer
from logd_client.refusals import ClientRefusals
from logd_client.session import ProducerSession
from logd_client.succession import ProducerSuccession
from logd_client.tracker import DurableTracker

if TYPE_CHECKING:  # programs that tests start on other machines have none
    import pytest


def by_clock(monotonic_s: Callable[[], float]) -> Environment:
    """For `Client(environment=)`: this process, but for a clock of the test's own."""
    return Environment(clock=SYSTEM_CLOCK._replace(monotonic_s=monotonic_s))


def producers(client: Client) -> ProducerSuccession:
    """The part of the client that opens and replaces its producers."""
    return client._producers


def current(client: Client) -> Producer | None:
    """The client's producer, if it has one just now."""
    return client._producers.current


def producer(client: Client) -> Producer:
    """The client's producer, which it must have."""
    found = client._producers.current
    assert found is not None
    return found


def outbox(client: Client) -> OutboxFile:
    """The outbox of the client's producer, which it must have."""
    found = producer(client).outbox
    assert found is not None
    return found


def words(outbox: OutboxFile) -> Any:
    """The words of the outbox's header, which the daemon writes to as well."""
    return outbox.writer._words


def ring(outbox: OutboxFile) -> bytes:
    """What the outbox's ring holds now."""
    return bytes(outbox.writer._ring)


def path(outbox: OutboxFile) -> Path:
    """Where the outbox's file was made."""
    return outbox._path


def descriptor(outbox: OutboxFile) -> int:
    """The descriptor of the outbox's file, which holds the lock."""
    return outbox._fd


def former_producers(client: Client) -> FormerProducers:
    """The client's former producers."""
    return client._producers.former


def refusals(client: Client) -> ClientRefusals:
    """The client's counts of refused events."""
    return client._producers.refusals


def session(client: Client) -> ProducerSession:
    """The part of the client that writes to its producer."""
    return client._session


def set_monotonic_ns(
    patch: pytest.MonkeyPatch, client: Client, monotonic_ns: Callable[[], int]
) -> None:
    """Gives the client, which has emitted already, another monotonic clock."""
    patch.setattr(client._session, "_monotonic_ns", monotonic_ns)


def reconnect_at_once(client: Client) -> None:
    """Has the client's next event try the daemon's socket again, however lately that failed."""
    producer(client)._connect_after_s = 0.0


def durable(client: Client) -> DurableTracker:
    """The client's tracker of durable events."""
    return client._durable


def guard(client: Client) -> Guard:
    """The client's guard, which admits one thread at a time."""
    return client._guard


def end_process(client: Client) -> None:
    """Ends the client as the end of its process does."""
    client._shutdown.end_process()


def use_default_directory(client: Client) -> None:
    """Has the client look for outboxes where the daemon says they are, from now on."""
    client._producers.settings = dataclasses.replace(
        client._producers.settings, outbox_directory=None
    )
