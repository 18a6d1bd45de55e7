"""A client in its own process that numbers its events, so that each can be found again.

In the process of the test it could not be: a test that looks at `status` opens and closes the
outboxes, and a process that closes any descriptor of a file lets go of its own lock on it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from logd.audit import verify as verification
from logd.storage.opening import open_for_reading
from logd_client import Client
from tests.faults.strangers import become_user
from tests.support.instance import DEADLINE_S, ROOT, Instance, check_streams
from tests.support.tally import Tally

DURABLE_TIMEOUT_S = 10.0
PAUSE_S = 0.005


@dataclass(frozen=True)
class Latencies:
    """Durable events: the milliseconds each took, and how many were not stored by then."""

    took_ms: list[float]
    not_stored: int

    @property
    def p95_ms(self) -> float:
        """The 95th percentile."""
        return sorted(self.took_ms)[len(self.took_ms) * 95 // 100]


class Steady:
    """Emits on request, each event attempted once. Its outbox lives as long as the process.

    `options` are the Client's; `prefix` is a command to run it under, `uid` a user to run it as.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        prefix: Sequence[str] = (),
        uid: int | None = None,
        **options: Any,
    ) -> None:
        self.instance = instance
        command = [sys.executable, "-m", "tests.faults.steady", instance.socket]
        self._process = subprocess.Popen(
            [*prefix, *command, json.dumps(options), json.dumps(uid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self.numbered = 0
        self.stats: dict[str, Any] = {"accepted": 0, "refused": 0, "attempted": 0, "confirmed": 0}

    def _ask(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client has ended with {self._process.wait(DEADLINE_S)}"
        answer, self.numbered, self.stats = json.loads(line)
        return answer

    def emit(self, count: int, **fields: Any) -> int:
        """Emits `count` events with decreasing `ts_ns`; returns how many were accepted."""
        accepted: int = self._ask("emit", count=count, **fields)
        return accepted

    def emit_stored(self, count: int, **fields: Any) -> None:
        """Emits `count` events, and waits until they are on disk."""
        self.emit(count, **fields)
        assert self.flush(30), self.instance.daemon and self.instance.daemon.lines

    def emit_durable(self, timeout_s: float) -> str:
        """Emits one durable event; returns its outcome."""
        outcome: str = self._ask("durable", timeout_s=timeout_s)
        return outcome

    def emit_for(self, seconds: float, plain: int) -> Latencies:
        """For that long, emits durable events, each after `plain` ordinary ones."""
        return Latencies(*self._ask("emit_for", seconds=seconds, plain=plain))

    def flush(self, timeout_s: float) -> bool:
        """Whether all events are on disk within that time."""
        return bool(self._ask("flush", timeout_s=timeout_s))

    @property
    def accepted(self) -> int:
        """Calls that returned True."""
        return int(self.stats["accepted"])

    @property
    def confirmed(self) -> int:
        """The number of events that the daemon has confirmed by now."""
        self._ask("emit", count=0)
        return int(self.stats["confirmed"])

    def account(self, tally: Tally, *, kills: int = 0, seeds: int = 0) -> None:
        """Checks, after the fault, that accepted events are stored once, in order, without loss."""
        status = self.instance.settle()
        events = self.instance.events()
        tally.account(
            status,
            events,
            attempted=self.stats["attempted"],
            accepted=self.accepted,
            refused=self.stats["refused"],
            kills=kills,
            seeds=seeds,
        )
        assert (status["lost"], status["quarantined"], status["unknown_extent"]) == (0, 0, 0)
        numbers = [event["props"]["number"] for event in events if event["type"] == "page_view"]
        assert numbers == [*range(1, self.numbered + 1)]
        check_streams(events)
        check_whole(self.instance)

    def close(self) -> None:
        """Ends the client with its farewell."""
        self._process.communicate()

    def __enter__(self) -> Steady:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_whole(instance: Instance) -> None:
    """Does what `logd verify` does, without a process."""
    connection = open_for_reading(instance.config)
    try:
        verdict = verification.verify(connection)
    finally:
        connection.close()
    assert verdict.whole, verdict.findings


def one_line(said: str) -> str:
    """The single line of an answer; fails if there are more."""
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("logd: "), said
    return lines[0]


def status_json(instance: Instance) -> dict[str, Any]:
    """What `logd status --json` prints."""
    state: dict[str, Any] = json.loads(instance.cli("status", "--json"))
    return state


def main(socket: str, options: dict[str, Any], uid: int | None) -> None:
    """The process: reads a request per line, answers with the result and the client's counts."""
    number = 0
    if uid is not None:
        become_user(uid)

    def emit(count: int, text: str = "", ts_ns: int | None = None) -> int:
        nonlocal number
        before = number
        for back_ns in range(count):
            props = {"number": number + 1, "text": text}
            at_ns = None if ts_ns is None else ts_ns - back_ns
            number += client.emit("page_view", user="7", props=props, ts_ns=at_ns)
        return number - before

    def durable(timeout_s: float) -> str:
        nonlocal number
        number += 1
        props = {"number": number}
        return client.emit_durable("page_view", props=props, timeout_s=timeout_s).value

    def emit_for(seconds: float, plain: int) -> tuple[list[float], int]:
        took_ms: list[float] = []
        not_stored = 0
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            emit(plain)
            start_s = time.monotonic()
            not_stored += durable(DURABLE_TIMEOUT_S) != "stored"
            took_ms.append((time.monotonic() - start_s) * 1000)
            time.sleep(PAUSE_S)
        return took_ms, not_stored

    with Client(socket, **options) as client:
        known: dict[str, Callable[..., Any]] = {}
        known |= {"emit": emit, "durable": durable, "flush": client.flush}
        known |= {"emit_for": emit_for}
        for line in sys.stdin:
            what, arguments = json.loads(line)
            print(json.dumps([known[what](**arguments), number, client.stats()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
