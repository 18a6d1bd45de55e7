"""`make run`: starts logd and the site, and stops them in order.

    python -m webapp.run          # PORT=8000 VAR=var

logd is started by its command line only. The first run loads a demo history through the real
socket. Ctrl-C or SIGTERM stops the site, then logd, and prints how many events are stored, pending
and lost.
"""

from __future__ import annotations

import os
import queue
import signal
import sys

from webapp.run.plan import RunError, make_plan
from webapp.run.preparation import check_port, take_directory
from webapp.run.process import Events, Signalled
from webapp.run.supervisor import Supervisor


def _demo_accounts() -> list[tuple[str, str, str]]:
    # The accounts are imported once the site answers, since the import takes a while.
    from webapp.demo.school import DEMO_ACCOUNTS

    return [(account.role, account.username, account.password) for account in DEMO_ACCOUNTS]


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # The terminal is closed, or the reader of a pipe; the children must still be stopped.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open


def main() -> int:
    """Runs logd and the site until a signal or a failure; returns the exit code."""
    events: Events = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The handler only calls SimpleQueue.put, which is reentrant.
        signal.signal(number, lambda received, _: events.put(Signalled(received)))
    try:
        plan = make_plan(os.environ)
        with take_directory(plan):
            check_port(plan.port)
            return Supervisor(plan, events, _print, _demo_accounts).run()
    except RunError as error:
        _print(f"make run: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
