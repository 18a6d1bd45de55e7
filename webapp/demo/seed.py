"""Puts the demo school into a site: its people and their work, and its history through logd."""

from __future__ import annotations

import time

import click
from flask import current_app

from logd_client import Client
from logd_client.socket_path import locate
from logd_wire.rendezvous import NoOutbox, read_rendezvous
from webapp.classroom.model.accounts import add_user, hash_password, list_users
from webapp.classroom.model.content import Course, store_courses
from webapp.classroom.model.scoring import dump_questions
from webapp.classroom.model.work import insert_attempt
from webapp.classroom.store.db import Connection, Database, operator_errors
from webapp.demo.history import History, generate
from webapp.demo.school import DEMO_ACCOUNTS, PEOPLE
from webapp.demo.visits import Event

# Room for a whole history, so that nothing has to wait for a logd that is not running.
OUTBOX_BYTES = 32 * 1024 * 1024
RETRY_INTERVAL_S = 0.005
STALLED_AFTER_S = 30.0
FLUSH_TIMEOUT_S = 5.0


def add_demo_school(db: Database, courses: tuple[Course, ...]) -> None:
    """Adds the school to a fresh site, and plays its history to logd, for as long as that takes.

    Raises a ClickException when the site is not fresh, or logd cannot be reached.
    """
    _refuse_second_demo(db)
    client = open_client(current_app.config["ACTIVITY_LOG_SOCKET"])
    now_ns = time.time_ns()
    history = generate(now_ns, courses)
    db.instance.seeding_marker.write_text(f"{now_ns}\n", encoding="ascii")
    _store_school(db, courses, history)
    _play(history.events, client)
    db.instance.seeded_marker.write_text(f"{now_ns}\n", encoding="ascii")
    db.instance.seeding_marker.unlink()


def _refuse_second_demo(db: Database) -> None:
    instance = db.instance
    if instance.seeding_marker.exists():
        raise click.ClickException(
            f"An earlier demo run in {instance.directory} was cut short, and playing its history "
            "again would store part of it twice. Remove that directory and logd's, and start over."
        )
    if instance.seeded_marker.exists():
        raise click.ClickException(f"The demo school is already in {instance.directory}.")
    if list_users(db):
        raise click.ClickException(
            f"The site in {instance.directory} already has accounts. The demo school needs a fresh "
            "directory: name one in CLASSROOM_DIR."
        )


def _store_school(db: Database, courses: tuple[Course, ...], history: History) -> None:
    """Accounts, courses and the students' work, all or nothing."""
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
    # Hashing is slow on purpose, so each password of the demo is hashed once, and the students
    # share a hash with the demo student. No secret is weakened: these passwords are printed.
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
    """A client with room for the whole history, so that logd may also be started afterwards."""
    try:
        read_rendezvous(locate(socket_path))
    except NoOutbox as error:
        raise click.ClickException(
            f"There is no place to play the history to: {error} "
            "Or name logd's directory in LOGD_DIR."
        ) from error
    return Client(socket_path, outbox_bytes=OUTBOX_BYTES)


def _play(events: list[Event], client: Client) -> None:
    """Sends the history the way the site sends its events: through the socket, one by one."""
    try:
        with click.progressbar(events, label=f"Playing {len(events):,} events") as bar:
            for event in bar:
                _emit_patiently(client, event)
        everything_stored = _flush(client)
        stats = client.stats()
    finally:
        client.close()
    causes = ", ".join(f"{cause}: {n:,}" for cause, n in stats["refused_by_cause"].items())
    click.echo(
        f"{stats['accepted']:,} events accepted, {stats['pending']:,} of them not yet on disk; "
        f"{stats['refused']:,} tries refused and repeated{f' ({causes})' if causes else ''}."
    )
    if not everything_stored:
        click.echo("What is not on disk waits in the outbox; logd stores it as soon as it runs.")


def _flush(client: Client) -> bool:
    """Waits for the disk for as long as something moves."""
    pending = client.stats()["pending"]
    while not client.flush(FLUSH_TIMEOUT_S):
        left = client.stats()["pending"]
        if left >= pending:
            return False
        pending = left
    return True


def _emit_patiently(client: Client, event: Event) -> None:
    """One event, tried again while there is no room for it. Gives up when nothing moves."""
    event_type, user, ts_ns, props = event
    deadline_s: float | None = None
    while not client.emit(event_type, user=user, props=props, ts_ns=ts_ns):
        now_s = time.monotonic()
        if deadline_s is None:
            deadline_s = now_s + STALLED_AFTER_S
        elif now_s > deadline_s:
            causes = ", ".join(client.stats()["refused_by_cause"])
            raise click.ClickException(
                f"logd has taken no event for {STALLED_AFTER_S:.0f} seconds ({causes}). Start logd "
                "(`logd run`), remove the half-filled directories, and seed again."
            )
        time.sleep(RETRY_INTERVAL_S)
