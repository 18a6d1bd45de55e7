"""The client: hands events to the logd daemon without blocking the caller.

from logd_client import Client

with Client("/run/logd/logd.sock") as client:
    client.emit("page_view", user="7", props={"path": "/lesson/3"})
"""

from logd_client.client import Client, Outcome

__all__ = ["Client", "Outcome"]
