"""`logd run`: runs the daemon."""

from __future__ import annotations

import click

from logd import log_format
from logd.commands._command import Command
from logd.commands._options import JOB_EXITS, config_option
from logd.config.settings import Config
from logd.errors import EXIT_SYSTEM
from logd.serve import run as service


@click.command(
    cls=Command,
    examples=[("logd run --config /srv/logd/logd.toml", "in the foreground, until Ctrl-C")],
    exits=(*JOB_EXITS, EXIT_SYSTEM),
)
@config_option
def run(config: Config) -> None:
    """Run the daemon: receive events and store them, until SIGTERM or SIGINT.

    Usually a service manager starts the daemon and passes its sockets to it. When the daemon
    accepts events, it prints "logd: ready" on stderr and notifies systemd. An error is one line on
    stderr. The first start creates the database; the first start after an update migrates it.

    While the daemon is stopped, events wait in the outboxes of the processes that log. On SIGTERM
    it stores and confirms what has arrived, within stop_timeout_s. If it is killed, no accepted
    event is lost.

    On SIGHUP it reads logd.toml again and logs which changes are in effect and which need a
    restart. If the file has an error, it logs the error and changes nothing.
    """
    log_format.log_to_stderr()
    service.run(config)
