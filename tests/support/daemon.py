"""`logd run`, with a report process that is loaded when the first report is asked for.

    python -m tests.support.daemon --config CONFIG

Most tests of a running daemon ask for no report, and loading the report process is half of the CPU
time of a start. In its place the daemon starts a process that waits for the first connection and
then becomes the report process: same process id, same socket, same lifeline. One that also serves
metrics is loaded at once. The daemon's own code is unchanged; `Instance.start(loads_reports=True)`
starts it without this module.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from logd.config import settings

REPORT_PROCESS = "logd.serve.report_server"
# Without `site` and the packages that it finds: a tenth of the time of the report process's start.
WAIT_FOR_A_REPORT = """
import os, select, sys
waiting = select.poll()
waiting.register(0, 0)  # the lifeline: only its end is of interest
waiting.register(int(sys.argv[1]), select.POLLIN)
if 0 not in dict(waiting.poll()):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class _Popen(subprocess.Popen[Any]):
    """In place of a report process, starts a process that waits for the first report."""

    def __init__(self, command: list[str], **options: Any) -> None:
        if REPORT_PROCESS in command and settings.load(Path(command[-1])).metrics is None:
            fd = command[-2]
            command = [command[0], "-I", "-S", "-c", WAIT_FOR_A_REPORT, fd, *command]
        super().__init__(command, **options)


def main() -> None:
    """Runs the daemon."""
    subprocess.Popen = _Popen  # type: ignore[misc, assignment] # in this process alone
    from logd.cli import main as logd

    logd(["run", *sys.argv[1:]], prog_name="logd")


if __name__ == "__main__":
    main()
