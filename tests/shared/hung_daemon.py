"""A daemon that hangs, and a clock that is set, for tests of durable waits."""

from __future__ import annotations

import signal
import time
from typing import Any

from logd_client import Client, Outcome
from logd_client.durable import UNKNOWN_TYPE
from tests.shared.client_scene import LONG_S, in_threads
from tests.support.instance import Instance

TIMEOUT_S = 2.0  # the Classroom's


AT_ONCE_S = 0.2  # on a busy machine


THREADS = 8


class Clocked:
    """A client's durable events: their outcomes, and how long each caller waited."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.outcomes: list[tuple[Outcome, float]] = []

    def hand_in(self, user: int = 7, timeout_s: float = TIMEOUT_S) -> Outcome:
        begun_s = time.monotonic()
        outcome = self.client.emit_durable("quiz_submitted", user=user, timeout_s=timeout_s)
        self.outcomes.append((outcome, time.monotonic() - begun_s))
        return outcome

    def crowd(self, threads: int = THREADS, events: int = 1, timeout_s: float = TIMEOUT_S) -> None:
        """That many threads at once, each with some events in turn."""
        with in_threads(threads, lambda n: [self.hand_in(n, timeout_s) for _ in range(events)]):  # type: ignore[arg-type] # a list is as good as None
            pass

    def of(self, outcome: Outcome) -> list[float]:
        """The seconds waited for that outcome, in order of length."""
        return sorted(took_s for found, took_s in self.outcomes if found is outcome)

    @property
    def breaker(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.stats()["durable_breaker"]
        return found


def stop(instance: Instance) -> None:
    assert instance.daemon is not None
    instance.daemon.popen.send_signal(signal.SIGSTOP)


def go_on(instance: Instance) -> None:
    assert instance.daemon is not None
    instance.daemon.popen.send_signal(signal.SIGCONT)


def opened(instance: Instance, client: Client, timeout_s: float = 0.3) -> Clocked:
    """A client whose daemon has stored an event, is stopped, and has let a wait time out."""
    clocked = Clocked(client)
    assert clocked.hand_in(timeout_s=LONG_S)
    stop(instance)
    assert clocked.hand_in(timeout_s=timeout_s) is Outcome.UNKNOWN
    assert clocked.breaker == {"open": True, "skipped": 0}
    clocked.outcomes.clear()
    return clocked


def unsettled(events: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """The events that the trail names as unknown, less those that it settles as stored."""
    unknown, settled = (
        [(e["props"]["producer"], e["props"]["sequence"]) for e in events if e["type"] == kind]
        for kind in (UNKNOWN_TYPE, "durable_settled")
    )
    assert len(set(unknown)) == len(unknown) and len(set(settled)) == len(settled)
    return set(unknown) - set(settled)
