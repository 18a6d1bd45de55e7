"""`make run`: brings up logd and the site, and takes them down again in order.

    python -m webapp.run          # PORT=8000 VAR=var

logd is used through its command line alone. On the first run a demo history is played through the
real socket. Ctrl-C or SIGTERM stops the site, then logd, and says what became of the events.
"""

from __future__ import annotations

import os
import queue
import signal
import sys

from webapp.run.plan import RunError, check_port, make_plan, take_directory
from webapp.run.process import Events, Signalled
from webapp.run.supervisor import Supervisor


def _demo_accounts() -> list[tuple[str, str, str]]:
    # Not before the site is up: it takes a while to import.
    from webapp.demo.school import DEMO_ACCOUNTS

    return [(account.role, account.username, account.password) for account in DEMO_ACCOUNTS]


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # The terminal is gone, or what read this pipe. The children must be stopped all the same.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def main() -> int:
    """The whole run; the exit code."""
    events: Events = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # SimpleQueue.put may be interrupted by itself; nothing else is done in a handler.
        signal.signal(number, lambda received, _: events.put(Signalled(received)))
    try:
        plan = make_plan(os.environ)
        with take_directory(plan):
            check_port(plan.port)
            return Supervisor(plan, events, _say, _demo_accounts).run()
    except RunError as error:
        _say(f"make run: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
