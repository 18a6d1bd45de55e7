"""The client: hands events to the logd daemon without blocking the caller.

from logd_client import Client

with Client("/run/logd/logd.sock") as client:
    client.emit("page_view", user="7", props={"path": "/lesson/3"})
"""

import sys

from logd_client.client import Client, Outcome

# Threads enter the client, and a fork is detected, by statements that the GIL makes atomic.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "logd_client needs the GIL: start this free-threaded Python with PYTHON_GIL=1"
    )

__all__ = ["Client", "Outcome"]
