"""The way without code: the access log of a web server in front of the site."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import queue
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness.processes import READY_TIMEOUT_S, Failed
from webapp.run.process import Child, Events

MISSING = (
    "the access log of a web server: nginx is not installed;"
    " the package `nginx` brings it (on Debian and Ubuntu: apt-get install nginx)"
)
LOG = "access.log"

_CONFIG = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    log_format event '$http_x_event $status $msec $request_method $request_uri $request_time'
                     ' $request_id "$http_user_agent"';
    access_log {log};
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream site {{ server 127.0.0.1:{behind}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://site;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def program() -> str | None:
    """Return the path of nginx, if it is installed; its directory is often not in PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def in_front(directory: Path, behind: int, *, logs: bool) -> Iterator[int]:
    """Run an nginx that proxies to the site at port `behind`; yield its own port. Raises Failed."""
    nginx = program()
    if nginx is None:
        raise Failed(MISSING)
    port = _free_port()
    config = directory / "nginx.conf"
    log = f"{directory / LOG} event" if logs else "off"
    config.write_text(
        _CONFIG.format(user=_user(), directory=directory, log=log, behind=behind, port=port)
    )
    command = [nginx, "-e", "stderr", "-p", str(directory), "-c", str(config)]
    events: Events = queue.SimpleQueue()
    child = Child("nginx", command, events, os.environ)
    try:
        _wait_for(port, child)
        yield port
    finally:
        child.kill()


def _user() -> str:
    """Return a `user` line for root: otherwise nginx switches to a user that cannot write here."""
    if os.geteuid() != 0:
        return ""
    return f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(port: int, child: Child) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while child.running and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise Failed("\n".join(["nginx does not answer", *child.last_lines]))


def answered(directory: Path) -> list[str]:
    """Return the names of the events whose pages were answered, from the log."""
    names = []
    with contextlib.suppress(FileNotFoundError), open(directory / LOG) as file:
        for line in file:
            name, status, *_ = line.split(" ", 2)
            if status == "200" and line.endswith("\n"):
                names.append(name)
    return names
