"""A process that emits numbered events, and counts them in a file that survives its kill.

    python emitter.py SOCKET COUNTERS NAME [EVENTS]

It emits EVENTS events as fast as it can, or, without that number, about 1,000 a second until the
third word of COUNTERS is set. The first two words count accepted and refused events; what is
refused is tried again. Imports nothing of the tests: it also runs beside an installed logd.
"""

from __future__ import annotations

import mmap
import sys
import time

from logd_client import Client

EVENTS_AT_ONCE = 50
PAUSE_S = 0.05
REFUSED_PAUSE_S = 0.001


def main(socket: str, counters: str, name: str, count: str = "0") -> None:
    events = int(count)
    with open(counters, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    client = Client(socket)
    number = 0
    while number < events or not (events or words[2]):
        number += 1
        while not client.emit("page_view", user=name, props={"number": number}):
            words[1] += 1
            time.sleep(REFUSED_PAUSE_S)
        words[0] = number
        if not events and number % EVENTS_AT_ONCE == 0:
            time.sleep(PAUSE_S)
    stats = client.stats()
    assert stats["accepted"] == number, stats
    assert stats["refused"] == words[1], stats
    assert stats["attempted"] == number + words[1], stats


if __name__ == "__main__":
    main(*sys.argv[1:])
