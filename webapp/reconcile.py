"""`flask --app webapp reconcile`: adds to the trail what the site has and the trail has not.

`webapp/classroom/model/reconciliation.py` decides which rows those are.
"""

from __future__ import annotations

import time

import click
from flask import current_app
from flask.cli import with_appcontext

from logd_wire.query import QueryClient, QueryError
from webapp.classroom.extensions import activity
from webapp.classroom.model import reconciliation
from webapp.classroom.model.reconciliation import DAYS, ERASED, Busy, Comparison, Trail, Work
from webapp.classroom.store.db import get_db, operator_errors

EXIT_MISSING, EXIT_TRY_AGAIN = 1, 75
QUERY_TIMEOUT_S, FLUSH_TIMEOUT_S = 30.0, 30.0
LISTED_MAX = 20


class TryAgain(click.ClickException):
    """The comparison could not be made or finished now; a later run may do it."""

    exit_code = EXIT_TRY_AGAIN


@click.command("reconcile")
@click.option("--dry-run", is_flag=True, help="Only print what is missing; exit with 1 if any is.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=DAYS,
    show_default=True,
    help="Compare work of the last DAYS. More than 7 only if logd.toml keeps tasks and quizzes for"
    " longer than that: a removed event would be added again.",
)
@click.option(
    "--not-erased",
    is_flag=True,
    help="Also emit what is withheld, after you have made sure that no row listed is of a person"
    " who was erased from the trail.",
)
@with_appcontext
def reconcile(dry_run: bool, days: int, not_erased: bool) -> None:
    """Add finished tasks and quizzes to the trail that it lacks.

    Compares the site's rows with the trail, and logs the missing ones with their own time and
    "reconciled". A second run adds nothing. What is younger than 15 minutes waits for the next run.

    Exit codes: 0 done; 1 a dry run found something missing, or the site cannot be used; 75 logd did
    not answer, another run is at work, or not all is confirmed: run it again.
    """
    db = get_db()
    try:
        with operator_errors(db.instance), reconciliation.only_run(db):
            trail = Trail(QueryClient(current_app.config["ACTIVITY_QUERY_SOCKET"], QUERY_TIMEOUT_S))
            now_ns = time.time_ns()
            result = reconciliation.compare(db, trail, now_ns, days=days, not_erased=not_erased)
            if dry_run:
                _report(result, days, dry_run=True)
                if result.missing:
                    raise click.exceptions.Exit(EXIT_MISSING)
                return
            reconciliation.record(db, result, now_ns)
            stored = _emit(result)
            _report(result, days, dry_run=False)
            if result.emitted and trail.erasures() != result.erasures:
                raise TryAgain(
                    "A person was erased from the trail during this run. If it is one of the"
                    " persons listed above, run `logd forget` for that person again."
                )
    except Busy as error:
        raise TryAgain("Another `reconcile` is at work on this site.") from error
    except QueryError as error:
        raise TryAgain(
            f"The site's work could not be compared with the trail: {error}. Start logd, and run"
            " this again."
        ) from error
    if not stored:
        raise TryAgain(
            f"logd has not confirmed all of it within {FLUSH_TIMEOUT_S:.0f} s; what it stores later"
            " is not emitted again."
        )
    if result.refused:
        raise TryAgain(
            f"{result.refused} events were refused by the client (its outbox may be full); the next"
            " run emits them."
        )


def _emit(result: Comparison) -> bool:
    """Emits what is missing; returns whether all that was accepted is on disk."""
    db = get_db()
    if not result.missing:
        return True
    client = activity.client()
    return reconciliation.emit(db, result, _log, lambda: client.flush(FLUSH_TIMEOUT_S))


def _log(work: Work) -> bool:
    user, event_type, _, _ = work.key
    return bool(
        activity.log(event_type, user=str(user), ts=work.at_ns, durable=False, props=work.props)
    )


def _report(result: Comparison, days: int, *, dry_run: bool) -> None:
    click.echo(f"Rows not yet known to be in the trail: {result.rows}")
    click.echo(f"  found there: {len(result.found)}")
    _list("missing", result.missing)
    if not dry_run:
        click.echo(f"    emitted: {result.emitted}, refused: {result.refused}")
    _list(f"withheld, since an erasure ({ERASED}) may have removed them", result.withheld)
    click.echo(f"  younger than 15 minutes, left for the next run: {result.young}")
    click.echo(f"  older than {days} days, not compared: {result.old}")


def _list(name: str, rows: list[Work]) -> None:
    click.echo(f"  {name}: {len(rows)}")
    for work in rows[:LISTED_MAX]:
        user, event_type, subject, number = work.key
        attempt = f" attempt {number}" if number else ""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(work.at_ns // 10**9))
        click.echo(f"    user {user} {event_type} {subject}{attempt} {at}")
    if len(rows) > LISTED_MAX:
        click.echo(f"    and {len(rows) - LISTED_MAX} more")
