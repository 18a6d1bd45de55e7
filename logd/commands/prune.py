"""`logd prune`: removes events past their retention."""

from __future__ import annotations

import json

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import JOB_EXITS, config_option, json_option
from logd.commands._output import job_progress, print_note
from logd.config import retention
from logd.config.settings import Config
from logd.maintenance import job_client
from logd.maintenance import prune as pruning
from logd.storage import job_table, last_runs, trail_clock


@click.command(
    cls=Command,
    examples=[
        ("logd prune --dry-run", "print what would be removed"),
        ("logd prune", "remove it"),
    ],
    exits=JOB_EXITS,
)
@config_option
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Trust the clock, now and from now on.")
@json_option
def prune(config: Config, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove events that are past the retention period of their type.

    The periods are in logd.toml (retention.page_view = "90d"). A type without a period is kept for
    ever; request_refused and the other types of requests follow page_view. The age of an event
    counts from its own time, or from the time of storing if its own time is later, or more than
    seven days earlier: imported history is kept from its import on. Roll-ups are updated, the trail
    still verifies, and an event `events_pruned` records what was removed. Rows of batches whose
    events are all removed go too (`batches_collapsed`); `logd verify` covers them by the tree's
    hashes.

    If the clock is wrong, nothing is removed (exit code 75). It counts as wrong if it is behind the
    times stored in the trail, more than a week ahead of them, or set during the command. Set the
    clock; or, if it is right and logd did not run for that long, use --yes once.

    If the daemon runs, it does the work, a few milliseconds at a time between its commits, and this
    command waits for it; otherwise this command does the work. If it is killed, the daemon
    continues at its next start. The database file does not shrink: its space is used again. The
    unit logd-prune.timer runs this command once a day.
    """
    now = trail_clock.read()
    before = retention.before(config.retention, now.wall_ns)
    counts: dict[str, int] = {}
    if before and dry_run:
        counts, why = pruning.count_expired(config, before, now)
        if why is not None:
            print_note(f"this count uses a clock that only --yes would trust: {why}")
    elif before:
        with last_runs.recorded(config, last_runs.PRUNE), job_progress("pruning") as show:
            trail_clock.check_instance(config, now, "no event was pruned", yes=yes)
            job = job_client.run_job(config, job_table.PRUNE, {"before": before}, show)
        counts = {name: job.outcome.get(name, 0) for name in before}
    if as_json:
        shown = {"dry_run": dry_run, "removed": sum(counts.values()), "by_type": counts}
        click.echo(json.dumps(shown | {"before_ns": before}))
        return
    for name, number in counts.items():
        click.echo(
            f"{name:<24} {number:>12,} events from before {render.format_time(before[name])}"
        )
    if not before:
        click.echo(f"{config.path} sets no retention: every event is kept for ever")
        return
    click.echo(f"{'would remove' if dry_run else 'removed'} {sum(counts.values()):,} events")
