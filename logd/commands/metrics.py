"""`logd metrics`: prints the metrics for Prometheus."""

from __future__ import annotations

import sys

import click

from logd.commands._command import Command
from logd.commands._options import READ_EXITS, config_option
from logd.config.settings import Config


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd metrics | grep pending", "one metric"),
        ("logd metrics >logd.prom.new", "for node_exporter's textfile collector; then rename it"),
    ],
    exits=READ_EXITS,
)
@config_option
def metrics(config: Config) -> None:
    """Print the metrics once, in the text format of Prometheus.

    For the textfile collector of node_exporter, or for a quick look. It also works without a
    running daemon (logd_up is 0 then). To serve the metrics, set `metrics` in logd.toml to the path
    of a socket or to an address such as 127.0.0.1:9464.
    """
    # The module is imported here, since that takes 0.1 s and no other command needs it.
    from logd.status.metrics import metrics_text

    sys.stdout.write(metrics_text(config))
