"""Load in the booted machine: a process of a user who may log events, and its sums."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

from tests.support.instance import DEADLINE_S, check_streams, check_sums, until
from tests.systemd.box import PYTHON, SOURCE, Box

SOCKET = "/run/logd/logd.sock"
_numbers = itertools.count(1)


class Load:
    """A process of the user `app` that emits until `end` (support/emitter.py)."""

    def __init__(self, box: Box, program: str = PYTHON) -> None:
        self.name = f"load{next(_numbers)}"
        counters = f"/run/test/{self.name}"
        self._counters = box.path(counters)
        self._counters.write_bytes(bytes(4096))
        self._counters.chmod(0o666)
        emit = f"{program} {SOURCE}/tests/support/emitter.py {SOCKET} {counters} {self.name}"
        self._process = box.popen(f"exec runuser -u app -- {emit}")

    @property
    def accepted(self) -> int:
        """Emits that returned True."""
        return self._count(0)

    @property
    def refused(self) -> int:
        """Emits that returned False (each is retried as a further attempt)."""
        return self._count(1)

    def _count(self, index: int) -> int:
        return int.from_bytes(self._counters.read_bytes()[index * 8 :][:8], sys.byteorder)

    def wait_for_more(self, events: int = 1000) -> None:
        """Waits until that many more events have been accepted."""
        goal = self.accepted + events

        def reached() -> bool:
            assert self._process.poll() is None, self._process.communicate()
            return self.accepted >= goal

        until(reached, f"{events} more events are accepted")

    def end(self) -> None:
        """Ends the process, and waits for its end."""
        with open(self._counters, "r+b") as file:
            file.seek(16)
            file.write((1).to_bytes(8, sys.byteorder))
        _, err = self._process.communicate(timeout=DEADLINE_S)
        assert self._process.returncode == 0, err


def emit(
    box: Box, count: int, user: str = "app", options: str = "", program: str = PYTHON
) -> dict[str, Any]:
    """Runs a client of that user that emits `count` events; returns its `stats()`."""
    code = (
        "import json; from logd_client import Client; "
        f"c = Client('{SOCKET}'{options}); "
        f"[c.emit('page_view', user='{user}', props={{'n': n}}) for n in range({count})]; "
        "print(json.dumps(c.stats()))"
    )
    stats: dict[str, Any] = json.loads(box.run(f'runuser -u {user} -- {program} -c "{code}"'))
    return stats


def difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Returns the status with the earlier counts subtracted."""
    return {
        name: value - before[name] if type(value) is int and type(before[name]) is int else value
        for name, value in after.items()
    }


@contextlib.contextmanager
def load(box: Box, program: str = PYTHON) -> Iterator[Load]:
    """Emits during the block; then checks that each accepted event is stored once, in order."""
    before = box.settle()
    running = Load(box, program)
    try:
        running.wait_for_more()
        yield running
        running.wait_for_more()
    finally:
        running.end()
    status = difference(box.settle(), before)
    check_sums(
        status,
        attempted=running.accepted + running.refused,
        accepted=running.accepted,
        refused=running.refused,
    )
    assert status["lost"] == status["quarantined"] == 0, status
    stored = box.events(f"--user {running.name}")
    assert len(stored) == running.accepted
    check_streams(stored)
