"""The sending process: runs a plan, times every call, and writes the results.

    python -m benchmarks.client.sender ORDERS RESULTS

It is a process of its own, so that the caller's heap and threads are not measured too.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.client.peers import KINDS, Peer, make
from benchmarks.client.plan import Cell, Group
from benchmarks.client.receivers import Receiving, pin
from benchmarks.harness.emitter import REFUSED_WAIT_S
from benchmarks.harness.table import quantile

STEP = "step: "
DONE = "done"
CALLS_TIMEOUT_S = 60.0
# Seconds to wait when a receiver's queue is full; they are not measured.
QUEUE_FULL_SPIN_NS = 20_000
QUEUE_FULL_WAIT_S = 0.00005
OVERHEAD_CALLS = 20_000
SHARES = {"p50_ns": 0.5, "p99_ns": 0.99, "p999_ns": 0.999}


@dataclass(frozen=True)
class Orders:
    """The sender's task: the plan, the receivers, the cores to pin to (sender's, receiver's)."""

    groups: Sequence[Group]
    receiving: Mapping[str, Receiving | None]  # one for each peer of the plan
    place: str
    cores: tuple[int, int] | None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Orders:
        body = json.loads(text)
        return Orders(
            groups=[
                Group(one["name"], one["rounds"], [Cell(**cell) for cell in one["cells"]])
                for one in body["groups"]
            ],
            receiving={
                name: None if one is None else Receiving(**one)
                for name, one in body["receiving"].items()
            },
            place=body["place"],
            cores=None if body["cores"] is None else tuple(body["cores"]),
        )


@dataclass
class Timed:
    """The calls of one thread. `spun_ns` is CPU time spent waiting for a full queue."""

    calls_ns: array[int]
    refused: int = 0
    spun_ns: int = 0


@dataclass
class CellTimes:
    """All rounds of one cell."""

    calls_ns: array[int]
    rounds_p50_ns: list[int]
    accepted: int = 0
    refused: int = 0
    delivered: int = 0
    sender_cpu_ns: int = 0
    receiver_cpu_ns: int = 0

    def summary(self) -> dict[str, Any]:
        """Return the results for JSON."""
        body = {key: value for key, value in vars(self).items() if key != "calls_ns"}
        return body | {key: quantile(self.calls_ns, share) for key, share in SHARES.items()}


def calls(
    call: Callable[[], bool],
    events: int,
    interval_s: float,
    start_s: float,
    back_off: Callable[[], int],
) -> Timed:
    """Call until `events` are accepted, and time each accepted call.

    Calls are `interval_s` apart from `start_s` (monotonic) on, or as fast as possible for 0. A
    refused call is retried after `back_off`, off the clock. Raises TimeoutError if that takes
    too long.
    """
    timed = Timed(array("Q"))
    note, clock_ns = timed.calls_ns.append, time.perf_counter_ns
    deadline_s = start_s + events * interval_s + CALLS_TIMEOUT_S
    done = 0
    while done < events:
        if interval_s:
            ahead_s = start_s + done * interval_s - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
        start_ns = clock_ns()
        accepted = call()
        took_ns = clock_ns() - start_ns
        if accepted:
            note(took_ns)
            done += 1
            continue
        timed.refused += 1
        timed.spun_ns += back_off()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"only {done:,} of {events:,} events were accepted")
    return timed


def spin() -> int:
    """Wait briefly without sleeping, which would cool the caches; return the CPU time in ns."""
    cpu_ns, end_ns = time.thread_time_ns(), time.perf_counter_ns() + QUEUE_FULL_SPIN_NS
    while time.perf_counter_ns() < end_ns:
        pass
    return time.thread_time_ns() - cpu_ns


def back_off_of(cell: Cell) -> Callable[[], int]:
    """Return how to wait when the cell's peer refuses a call."""
    if cell.peer != "logd" and cell.threads == 1:
        return spin
    wait_s = REFUSED_WAIT_S if cell.peer == "logd" else QUEUE_FULL_WAIT_S

    def wait() -> int:
        time.sleep(wait_s)  # lets other threads run
        return 0

    return wait


def in_threads(cell: Cell, call: Callable[[], bool]) -> list[Timed]:
    """Make the cell's calls in as many threads as it has; a single one is the current thread."""
    interval_s = cell.threads / cell.rate if cell.rate else 0.0
    back_off = back_off_of(cell)
    if cell.threads == 1:
        return [calls(call, cell.events, interval_s, time.monotonic(), back_off)]
    share, left = divmod(cell.events, cell.threads)
    done: list[Timed] = []
    failed: list[BaseException] = []
    # All threads start before this time; then they call one after the other, not at once.
    start_s = time.monotonic() + 0.01

    def run(number: int) -> None:
        time.sleep(max(0.0, start_s - time.monotonic()))
        own_start_s = start_s + (number / cell.rate if cell.rate else 0.0)
        try:
            events = share + (number < left)
            done.append(calls(call, events, interval_s, own_start_s, back_off))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(cell.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return done


def measure(cell: Cell, peer: Peer, seen: CellTimes) -> None:
    """Measure one round of a cell and add it to `seen`."""
    peer.set_awake(cell.awake)
    received = peer.received()
    sender_ns, receiver_ns = time.process_time_ns(), peer.receiver_cpu_ns()
    timed = in_threads(cell, peer.call)
    if not KINDS[cell.peer].works_in_sender:
        sender_ns = time.process_time_ns() - sender_ns
    peer.drain(received + cell.events)
    if KINDS[cell.peer].works_in_sender:
        sender_ns = time.process_time_ns() - sender_ns
    seen.receiver_cpu_ns += peer.receiver_cpu_ns() - receiver_ns
    peer.set_awake(False)
    seen.sender_cpu_ns += sender_ns - sum(one.spun_ns for one in timed)
    seen.accepted += cell.events
    seen.refused += sum(one.refused for one in timed)
    seen.delivered += peer.received() - received if KINDS[cell.peer].receiver else cell.events
    round_ns = array("Q")
    for one in timed:
        round_ns.extend(one.calls_ns)
    seen.calls_ns.extend(round_ns)
    seen.rounds_p50_ns.append(quantile(round_ns, 0.5))


def overhead_ns() -> int:
    """Return the measured time of an empty call: two clock readings, and entering a function."""
    return quantile(calls(lambda: True, OVERHEAD_CALLS, 0.0, time.monotonic(), spin).calls_ns, 0.5)


class Cores:
    """The cores of sender and receivers; set only when a cell needs others than the last one."""

    def __init__(self, orders: Orders) -> None:
        self._all = os.sched_getaffinity(0)
        self._cores = orders.cores
        self._receivers = [one.pid for one in orders.receiving.values() if one is not None]
        self._pinned = False

    def set(self, pinned: bool) -> None:
        """Pin sender and receivers to a core each, or unpin them."""
        if pinned == self._pinned or self._cores is None:
            return
        self._pinned = pinned
        pin(os.getpid(), {self._cores[0]} if pinned else self._all)
        for pid in self._receivers:
            pin(pid, {self._cores[1]} if pinned else self._all)


@contextlib.contextmanager
def ready(orders: Orders) -> Iterator[dict[str, Peer]]:
    """Make every peer of the plan; close them at the end."""
    with contextlib.ExitStack() as stack:
        peers = {}
        for name, receiving in orders.receiving.items():
            peers[name] = make(name, Path(orders.place), receiving)
            stack.callback(peers[name].close)
        yield peers


def run_plan(orders: Orders, advance: Callable[[str], None]) -> dict[str, Any]:
    """Run the plan; cells change places every round, so that none is always first."""
    cores = Cores(orders)
    groups = []
    overheads_ns = [overhead_ns()]
    with ready(orders) as peers:
        for group in orders.groups:
            seen = [CellTimes(array("Q"), []) for _ in group.cells]
            for turn in range(group.rounds):
                for number in range(len(group.cells)):
                    at = (turn + number) % len(group.cells)
                    cell = group.cells[at]
                    cores.set(cell.pinned)
                    measure(cell, peers[cell.peer], seen[at])
                    advance(f"{cell.peer}, {cell.load}")
            groups.append([one.summary() for one in seen])
            overheads_ns.append(overhead_ns())
        stats = peers["logd"].stats() if "logd" in peers and peers["logd"].stats else {}
    return {"groups": groups, "overhead_ns": median(overheads_ns), "logd": stats}


def main() -> None:
    orders = Orders.from_json(Path(sys.argv[1]).read_text())

    def advance(now: str) -> None:
        print(f"{STEP}{now}", file=sys.stderr, flush=True)

    results = run_plan(orders, advance)
    Path(sys.argv[2]).write_text(json.dumps(results))
    advance(DONE)


if __name__ == "__main__":
    main()
