"""Emits events and counts, in memory that outlives it, what was accepted and what refused.

    python -m tests.support.emitter SOCKET EVENTS COUNTERS NAME

An event that is refused is tried again a little later, as who must not lose does.
"""

from __future__ import annotations

import mmap
import sys
import time

from logd_client import Client


def main(socket: str, events: int, counters: str, name: str) -> None:
    with open(counters, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    client = Client(socket)
    for number in range(1, events + 1):
        while not client.emit("page_view", user=name, props={"number": number}):
            words[1] += 1
            time.sleep(0.001)
        words[0] = number
    stats = client.stats()
    assert stats["accepted"] == events, stats
    assert stats["refused"] == words[1], stats
    assert stats["attempted"] == events + words[1], stats


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
