"""Emits at a bounded rate until told to end, and counts in a file what was accepted and refused.

    python emitter.py SOCKET COUNTERS NAME

Words of the counters: accepted, refused, and one that is set from outside to end it. An event that
is refused is tried again. Runs inside the booted machine with the installed logd alone.
"""

from __future__ import annotations

import mmap
import sys
import time

from logd_client import Client

# 50 events, then a pause: at most 1,000 a second.
EVENTS_AT_ONCE = 50
PAUSE_S = 0.05


def main(socket: str, counters: str, name: str) -> None:
    with open(counters, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    client = Client(socket)
    number = 0
    while not words[2]:
        for _ in range(EVENTS_AT_ONCE):
            number += 1
            while not client.emit("page_view", user=name, props={"number": number}):
                words[1] += 1
                time.sleep(PAUSE_S)
            words[0] = number
        time.sleep(PAUSE_S)
    stats = client.stats()
    assert stats["accepted"] == number, stats
    assert stats["refused"] == words[1], stats


if __name__ == "__main__":
    main(*sys.argv[1:])
