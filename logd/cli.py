"""The command line. Every failure is one clear line on stderr and an exit code of its own."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from logd import __version__, instance, render, service
from logd import config as configuration
from logd import status as status_text
from logd import verify as verification
from logd.config import Config
from logd.database import Connection, DatabaseError, translate
from logd.errors import EXIT_CONFIG, EXIT_NOT_WHOLE, LogdError
from logd.reports import PAGE_ROWS_MAX, event_page, loss_page
from shared.paths import PathTooLong
from shared.query import Row

DEFAULT_CONFIG = "/etc/logd/logd.toml"
TAIL_INTERVAL_S = 0.25


class _Group(click.Group):
    """Turns our errors into a line and an exit code: no traceback reaches a person."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except LogdError as error:
            _fail(str(error), error.exit_code)
        except PathTooLong as error:
            _fail(str(error), EXIT_CONFIG)
        except DatabaseError as error:
            config = context.obj
            problem = translate(error, config.database if config else Path("database"))
            _fail(str(problem), getattr(problem, "exit_code", 70))
        except BrokenPipeError:
            # The reader of our output has seen enough (`logd query | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


def _fail(message: str, exit_code: int) -> None:
    click.echo(f"logd: {message}", err=True)
    sys.exit(exit_code)


def _load(context: click.Context, _parameter: click.Parameter, value: str) -> Config:
    config = context.find_root().obj = configuration.load(value)
    return config


config_option = click.option(
    "--config",
    callback=_load,
    default=DEFAULT_CONFIG,
    envvar="LOGD_CONFIG",
    show_default=True,
    metavar="FILE",
    help="The instance's logd.toml; LOGD_CONFIG in the environment does the same.",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="logd")
def main() -> None:
    """An encrypted activity log that loses nothing.

    \b
    logd init var/logd                           make an instance
    logd run --config var/logd/logd.toml         serve it
    logd tail --follow --config ...              watch events arrive
    logd verify --config ...                     show that nothing was changed
    """


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Make an instance in DIRECTORY: logd.toml, and a new key in logd.key.

    Keep a copy of the key somewhere else: without it nobody reads the database.
    """
    config = instance.init(directory)
    click.echo(f"made {config.path} and {config.key_file}")
    click.echo(f"start it: logd run --config {config.path}")


@main.command()
@config_option
def run(config: Config) -> None:
    """Take in events until SIGTERM or SIGINT.

    Says "logd: ready" on stderr, and to systemd, when events are taken.
    """
    logging.basicConfig(format="logd: %(message)s", level=logging.WARNING, stream=sys.stderr)
    service.run(config)


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def status(config: Config, as_json: bool) -> None:
    """Show the sums: stored, pending, lost. Works with the daemon stopped, too."""
    state = instance.status(config)
    if as_json:
        click.echo(json.dumps(state))
        return
    for line in status_text.lines(state):
        click.echo(line)


class _Time(click.ParamType[int]):
    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_time(str(value), time.time_ns())
        except ValueError:
            self.fail(
                f"{value!r} is no time. Write 2026-03-01, 2026-03-01T12:00:00, 90m, 12h or 7d"
                " (ago), or nanoseconds since 1970.",
                param,
                context,
            )


_AGO = re.compile(r"(\d+)([smhd])\Z")
_AGO_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_time(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of a time as people write it; UTC where no zone is named."""
    ago = _AGO.match(text)
    if ago:
        return now_ns - int(ago[1]) * _AGO_S[ago[2]] * 10**9
    if text.isdecimal() and len(text) > 8:
        return int(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 10**9 + moment.microsecond * 1000


def _put(line: str) -> None:
    """A line of data as it is: click.echo would take what looks like colours out of it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@main.command()
@config_option
@click.option("--type", "event_type", metavar="T", help="Only events of this type.")
@click.option("--user", metavar="U", help="Only events of this user.")
@click.option("--since", type=_Time(), help="From this time on: 2026-03-01, 12h (ago), ...")
@click.option("--until", type=_Time(), help="Before this time.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@click.option("--format", "form", type=click.Choice(list(render.FORMATS)), default="table")
def query(
    config: Config,
    event_type: str | None,
    user: str | None,
    since: int | None,
    until: int | None,
    limit: int | None,
    form: str,
) -> None:
    """Print events, oldest first."""
    connection = instance.open_for_events(config)
    try:
        asked: dict[str, Any] = {"event_type": event_type, "user": user}
        asked |= {"since_ns": since, "until_ns": until}
        rows = _newest(connection, limit, **asked) if limit else _all(connection, **asked)
        for line in render.FORMATS[form](rows):
            _put(line)
    finally:
        connection.close()


def _all(connection: Connection, after_id: int = 0, **asked: Any) -> Iterator[Row]:
    """Every event asked for, a page at a time: no transaction is held while it is printed."""
    while True:
        page = event_page(connection, after_id=after_id, limit=PAGE_ROWS_MAX, **asked)
        yield from page.rows
        if page.next is None:
            return
        after_id = page.next


def _newest(connection: Connection, limit: int, **asked: Any) -> Iterator[Row]:
    rows: list[Row] = []
    before: int | None = None
    while len(rows) < limit:
        size = min(PAGE_ROWS_MAX, limit - len(rows))
        page = event_page(connection, before_id=before, limit=size, **asked)
        rows += page.rows
        before = page.next
        if before is None:
            break
    return reversed(rows)


@main.command()
@config_option
@click.option("-n", "--lines", default=10, show_default=True, help="How many to begin with.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what arrives, until Ctrl-C.")
@click.option("--type", "event_type", metavar="T", help="Only events of this type.")
@click.option("--user", metavar="U", help="Only events of this user.")
def tail(
    config: Config, lines: int, follow: bool, event_type: str | None, user: str | None
) -> None:
    """Print the newest events, one a line; with --follow also those to come."""
    connection = instance.open_for_events(config)
    asked: dict[str, Any] = {"event_type": event_type, "user": user}
    last = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    try:
        for row in _newest(connection, lines, **asked) if lines > 0 else ():
            _put(render.line(row))
            last = max(last, row["id"])
        while follow:
            time.sleep(TAIL_INTERVAL_S)
            for row in _all(connection, after_id=last, **asked):
                _put(render.line(row))
                last = row["id"]
    except KeyboardInterrupt:
        click.echo()
    finally:
        connection.close()


@main.command()
@config_option
@click.option("--format", "form", type=click.Choice(["table", "jsonl"]), default="table")
def losses(config: Config, form: str) -> None:
    """Print the loss ledger, newest first: when, whose, from which sequence to which, and why."""
    connection = instance.open_for_reading(config)
    entries, before = 0, None
    try:
        while True:
            page = loss_page(connection, before, PAGE_ROWS_MAX)
            for row in page.rows:
                _put(status_text.loss_line(row) if form == "table" else render.to_json(row))
            entries, before = entries + len(page.rows), page.next
            if before is None:
                break
    finally:
        connection.close()
    if not entries and form == "table":
        _put("0 entries: no event is known to be lost")


@main.command()
@config_option
def verify(config: Config) -> None:
    """Recompute hashes, sums and roll-ups. Exit 0: whole. Exit 1: says what is wrong, and where."""
    connection = instance.open_for_reading(config)
    try:
        # Not counted: that reads a whole index, and a damaged page of it would be all that is said.
        total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
        with click.progressbar(
            length=total, label="verifying", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            verdict = verification.verify(connection, bar.update)
    finally:
        connection.close()
    for finding in verdict.findings:
        click.echo(finding)
    if not verdict.whole:
        _fail("the trail is not whole", EXIT_NOT_WHOLE)
    click.echo(f"whole: {verdict.events:,} events in {verdict.batches:,} batches")
    click.echo(f"chain head: {verdict.head}")
