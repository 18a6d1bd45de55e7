"""`flask --app webapp`: the site with the commands `seed`, `create-user`, `forget-user` and
`reconcile`.

It is above the site and the demo, so that a server, which loads `webapp.classroom.wsgi`, loads
neither the commands nor the demo school.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from webapp.classroom import factory
from webapp.classroom.model.accounts import (
    LOGIN_CHARS_MAX,
    NAME_CHARS_MAX,
    PASSWORD_CHARS_MAX,
    PASSWORD_CHARS_MIN,
    LoginTaken,
    Role,
    add_user,
    find_user,
    hash_password,
)
from webapp.classroom.model.catalogue import store_courses
from webapp.classroom.model.content import BadContent, read_courses
from webapp.classroom.model.personal_rows import counts_about, erase_account
from webapp.classroom.store.db import get_db, operator_errors
from webapp.demo.school import DEMO_ACCOUNTS
from webapp.demo.seed import add_demo_school
from webapp.reconcile import reconcile


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Creates the site and its commands; `config` overrides the environment.

    Raises a ClickException with a message of one line if the instance directory cannot be used.
    """
    app = factory.create_app(config)
    for command in (seed, create_user, forget_user, reconcile):
        app.cli.add_command(command)
    return app


@click.command("seed")
@click.option("--demo", is_flag=True, help="Also add a demo school and log 60 days of its history.")
@click.option(
    "--no-accounts", is_flag=True, help="Do not print the demo accounts and their passwords."
)
@with_appcontext
def seed(demo: bool, no_accounts: bool) -> None:
    """Add or update the courses in the site's database."""
    db = get_db()
    try:
        courses = read_courses()
    except BadContent as error:
        raise click.ClickException(f"The courses cannot be read: {error}") from error
    if not demo:
        with operator_errors(db.instance), db.transaction() as connection:
            store_courses(connection, courses)
        click.echo(f"Stored {len(courses)} courses.")
        return
    add_demo_school(db, courses)
    if not no_accounts:
        click.echo("The demo school is ready. Log in as:")
        for account in DEMO_ACCOUNTS:
            click.echo(f"  {account.role:8} {account.username:8} {account.password}")


@click.command("create-user")
@click.argument("login")
@click.option("--name", prompt=True, help="Full name, shown on the pages.")
@click.option("--role", type=click.Choice([str(role) for role in Role]), prompt=True)
@click.password_option(help="Asked for if not given, so that it stays out of the shell's history.")
@with_appcontext
def create_user(login: str, name: str, role: str, password: str) -> None:
    """Add an account with the login name LOGIN."""
    login, name = login.strip(), name.strip()
    if not login or len(login) > LOGIN_CHARS_MAX or login.isdigit():
        raise click.BadParameter(
            f"a login has 1 to {LOGIN_CHARS_MAX} characters and is not only digits",
            param_hint="LOGIN",
        )
    if not name or len(name) > NAME_CHARS_MAX:
        raise click.BadParameter(
            f"a name has 1 to {NAME_CHARS_MAX} characters", param_hint="--name"
        )
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise click.BadParameter(
            f"a password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters",
            param_hint="--password",
        )
    db = get_db()
    try:
        with operator_errors(db.instance), db.transaction() as connection:
            user_id = add_user(
                connection,
                login=login,
                name=name,
                role=Role(role),
                password_hash=hash_password(password, current_app.config["PASSWORD_METHOD"]),
            )
    except LoginTaken as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Added {role} {login} with id {user_id}.")


@click.command("forget-user")
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def forget_user(number: int, yes: bool) -> None:
    """Erase the account with the id NUMBER, and all that the site holds about it.

    The entries of the activity log are erased by `logd forget NUMBER`, run after this command: from
    then on nothing new is logged for the account. Backups of the site are not changed. No later
    account gets the number.
    """
    db = get_db()
    with operator_errors(db.instance):
        user = find_user(db, number)
        if user is None:
            raise click.ClickException(f"No account has the id {number}.")
        rows = ", ".join(f"{count} of {name}" for name, count in counts_about(db, user).items())
        click.echo(f"{user.role} {user.login} ({user.name}), id {number}. Rows: {rows}.")
        if not yes:
            click.confirm("Erase all of it? It cannot be undone.", abort=True)
        # What is deleted is overwritten, also in free pages of the file.
        db.connection().execute("PRAGMA secure_delete = ON")
        with db.transaction() as connection:
            erased = erase_account(connection, number, time.time_ns())
        db.connection().execute("PRAGMA wal_checkpoint (TRUNCATE)").fetchall()
    click.echo(f"Erased {sum(erased.values())} rows. Now run: logd forget {number}")
