"""Adds the demo school to a site: stores its people and their work, and logs its history."""

from __future__ import annotations

import time

import click
from flask import current_app

from logd_client import Client
from logd_client.socket_path import locate
from logd_wire.rendezvous import NoOutbox, read_rendezvous
from webapp.classroom.model.accounts import add_user, hash_password, list_users
from webapp.classroom.model.catalogue import store_courses
from webapp.classroom.model.content import Course
from webapp.classroom.model.scoring import dump_questions
from webapp.classroom.model.work import insert_attempt
from webapp.classroom.store.db import Connection, Database, operator_errors
from webapp.demo.history import History, generate
from webapp.demo.school import DEMO_ACCOUNTS, PEOPLE
from webapp.demo.visits import Event

# The outbox is large enough for the whole history, so that it can be logged before logd is started.
OUTBOX_BYTES = 32 * 1024 * 1024
RETRY_INTERVAL_S = 0.005
STALLED_AFTER_S = 30.0
FLUSH_TIMEOUT_S = 5.0


def add_demo_school(db: Database, courses: tuple[Course, ...]) -> None:
    """Adds the school to an empty site, and logs its history through logd.

    Raises a ClickException if the site is not empty, or logd's instance does not exist.
    """
    _refuse_second_demo(db)
    client = open_client(current_app.config["ACTIVITY_LOG_SOCKET"])
    now_ns = time.time_ns()
    history = generate(now_ns, courses)
    db.instance.seeding_marker.write_text(f"{now_ns}\n", encoding="ascii")
    _store_school(db, courses, history)
    _log_history(history.events, client)
    db.instance.seeded_marker.write_text(f"{now_ns}\n", encoding="ascii")
    db.instance.seeding_marker.unlink()


def _refuse_second_demo(db: Database) -> None:
    instance = db.instance
    if instance.seeding_marker.exists():
        raise click.ClickException(
            f"Adding the demo school to {instance.directory} was interrupted, and logging its "
            "history again would store part of it twice. Remove that directory and logd's, and "
            "start over."
        )
    if instance.seeded_marker.exists():
        raise click.ClickException(f"The demo school is already in {instance.directory}.")
    if list_users(db):
        raise click.ClickException(
            f"The site in {instance.directory} already has accounts. The demo school needs an "
            "empty directory: set CLASSROOM_DIR to one."
        )


def _store_school(db: Database, courses: tuple[Course, ...], history: History) -> None:
    """Stores accounts, courses and the students' work in one transaction."""
    with operator_errors(db.instance), db.transaction() as connection:
        store_courses(connection, courses)
        _store_people(connection)
        connection.executemany(
            "INSERT INTO completions VALUES (?, ?, ?)",
            [(done.user_id, done.task, done.completed_ns) for done in history.completions],
        )
        questions = {
            quiz.id: dump_questions(quiz.questions) for course in courses for quiz in course.quizzes
        }
        for tried in history.tries:
            insert_attempt(
                connection,
                tried.user_id,
                tried.quiz,
                tried.number,
                questions[tried.quiz],
                tried.answers,
                tried.score,
                tried.submitted_ns,
            )


def _store_people(connection: Connection) -> None:
    # Hashing is slow on purpose, so each demo password is hashed once, and all students
    # have the demo student's hash. No secret is weakened, since these passwords are printed.
    method = current_app.config["PASSWORD_METHOD"]
    hashes = {account.role: hash_password(account.password, method) for account in DEMO_ACCOUNTS}
    for person in PEOPLE:
        add_user(
            connection,
            user_id=person.id,
            login=person.login,
            name=person.name,
            role=person.role,
            password_hash=hashes[person.role],
        )


def open_client(socket_path: str) -> Client:
    """Opens a client whose outbox holds the whole history, so that logd may be started later."""
    try:
        read_rendezvous(locate(socket_path))
    except NoOutbox as error:
        raise click.ClickException(
            f"The history cannot be logged: {str(error).rstrip('.')}. "
            "If logd's directory is another one, set LOGD_DIR to it."
        ) from error
    return Client(socket_path, outbox_bytes=OUTBOX_BYTES)


def _log_history(events: list[Event], client: Client) -> None:
    """Logs the history as the site logs its events: one by one, through the socket."""
    try:
        with click.progressbar(events, label=f"Logging {len(events):,} events") as bar:
            for event in bar:
                emit_with_retries(client, event)
        everything_stored = _flush(client)
        stats = client.stats()
    finally:
        client.close()
    causes = ", ".join(f"{cause}: {n:,}" for cause, n in stats["refused_by_cause"].items())
    click.echo(
        f"{stats['accepted']:,} events accepted, {stats['pending']:,} of them not yet on disk; "
        f"{stats['refused']:,} calls refused and repeated{f' ({causes})' if causes else ''}."
    )
    if not everything_stored:
        click.echo("Events not yet on disk wait in the outbox; logd stores them when it runs.")


def _flush(client: Client) -> bool:
    """Waits until all is on disk; returns False once a timeout passes without progress."""
    pending = client.stats()["pending"]
    while not client.flush(FLUSH_TIMEOUT_S):
        left = client.stats()["pending"]
        if left >= pending:
            return False
        pending = left
    return True


def emit_with_retries(client: Client, event: Event) -> None:
    """Logs one event, retrying while the outbox is full; fails if it stays full for long."""
    event_type, user, ts_ns, props = event
    deadline_s: float | None = None
    while not client.emit(event_type, user=user, props=props, ts_ns=ts_ns):
        now_s = time.monotonic()
        if deadline_s is None:
            deadline_s = now_s + STALLED_AFTER_S
        elif now_s > deadline_s:
            causes = ", ".join(client.stats()["refused_by_cause"])
            raise click.ClickException(
                f"logd has stored no event for {STALLED_AFTER_S:.0f} seconds ({causes}). Start "
                "logd (`logd run`), remove both directories, and seed again."
            )
        time.sleep(RETRY_INTERVAL_S)
