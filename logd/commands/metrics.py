"""`logd metrics`: how it stands, for Prometheus."""

from __future__ import annotations

import sys

import click

from logd.commands._command import Command
from logd.commands._options import config_option
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_KEY,
    EXIT_OK,
    EXIT_TEMPORARY,
)


@click.command(
    cls=Command,
    examples=[
        ("logd metrics | grep pending", "to look at"),
        ("logd metrics >logd.prom.new", "for node_exporter's textfile collector; then rename it"),
    ],
    exits=[
        *(EXIT_OK, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG),
    ],
)
@config_option
def metrics(config: Config) -> None:
    """Print the metrics once, in Prometheus' text format.

    For node_exporter's textfile collector, or to look at; with the daemon down too (logd_up 0).
    To have them served, set `metrics` in logd.toml to a socket's path or 127.0.0.1:9464.
    """
    from logd.status import (
        metrics as exposition,  # a tenth of a second, which no other command needs
    )

    sys.stdout.write(exposition.text(config))
