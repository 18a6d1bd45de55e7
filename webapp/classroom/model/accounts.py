"""Accounts, their roles, and their passwords."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from flask_login import UserMixin
from sqlcipher3 import dbapi2 as sqlcipher
from werkzeug.security import check_password_hash, generate_password_hash

from webapp.classroom.store.db import Connection, Database

LOGIN_CHARS_MAX = 64
NAME_CHARS_MAX = 100
PASSWORD_CHARS_MIN = 10
PASSWORD_CHARS_MAX = 256


class Role(StrEnum):
    STUDENT = "student"
    TEACHER = "teacher"
    AUDITOR = "auditor"


class LoginTaken(ValueError):
    """Another account has this login name."""


@dataclass(frozen=True)
class User(UserMixin):  # type: ignore[misc]  # flask_login has no types
    """An account without its password's hash, which stays in the database."""

    id: int
    login: str
    name: str
    role: Role

    @property
    def key(self) -> str:
        """Returns the account's user id in events and reports."""
        return str(self.id)


_COLUMNS = "id, login, name, role"
_IDS_MAX = 500
# Letters that Unicode does not take apart into a letter and an accent.
_LETTERS = str.maketrans(
    {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "æ": "ae",
        "œ": "oe",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
        "-": " ",
    }
)


def find_user(db: Database, user_id: int) -> User | None:
    return _one(db, "id = ?", user_id)


def find_login(db: Database, login: str) -> User | None:
    """Returns the account with that login, in whatever Unicode normalisation it was typed."""
    found = (_one(db, "login = ?", spelling) for spelling in _spellings(login))
    return next((user for user in found if user is not None), None)


def normal_text(text: str) -> str:
    """Returns the form (NFC) in which a login or password is stored.

    It is the same whatever keyboard the text was typed on.
    """
    return unicodedata.normalize("NFC", text)


def _spellings(text: str) -> tuple[str, ...]:
    """Returns the forms in which accounts of earlier versions may have stored a text."""
    return tuple(dict.fromkeys((normal_text(text), unicodedata.normalize("NFD", text))))


def list_users(db: Database, role: Role | None = None) -> list[User]:
    """Returns all accounts, or those of one role, by name."""
    rows = db.connection().execute(
        f"SELECT {_COLUMNS} FROM users WHERE ?1 IS NULL OR role = ?1",  # noqa: S608 - our own column names
        (role,),
    )
    users = [User(i, login, name, Role(r)) for i, login, name, r in rows]
    return sorted(users, key=lambda user: (name_key(user.name), user.name, user.id))


def find_users(db: Database, keys: Iterable[str]) -> dict[str, User]:
    """Returns the accounts with these user ids of events, by id; ids without an account are left
    out.
    """
    ids = [int(key) for key in set(keys) if key.isascii() and key.isdecimal() and len(key) < 19]
    found: dict[str, User] = {}
    for start in range(0, len(ids), _IDS_MAX):
        part = ids[start : start + _IDS_MAX]
        marks = ", ".join("?" * len(part))
        rows = db.connection().execute(
            f"SELECT {_COLUMNS} FROM users WHERE id IN ({marks})",  # noqa: S608 - question marks only
            part,
        )
        found |= {str(i): User(i, login, name, Role(r)) for i, login, name, r in rows}
    return found


@lru_cache(maxsize=8192)
def name_key(name: str) -> str:
    """Returns the key by which people look for a name: without case, accents and punctuation.

    By the letters' numbers, "Ömer" would come after "Zoe".
    """
    apart = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS))
    return "".join(letter for letter in apart if letter.isalnum() or letter == " ")


def check_password(db: Database, user: User | None, password: str, method: str) -> bool:
    """Returns whether the password is the account's; takes as long for a missing account.

    Otherwise the response time would disclose which logins exist.
    """
    if len(password) > PASSWORD_CHARS_MAX:
        password = ""  # no password is this long, and hashing it would take long
    stored = _unknown_account_hash(method)
    if user is not None:
        (stored,) = (
            db.connection()
            .execute("SELECT password_hash FROM users WHERE id = ?", (user.id,))
            .fetchone()
        )
    # All forms are checked, so that the time does not show which of them is right.
    right = [check_password_hash(stored, spelling) for spelling in _spellings(password)]
    return user is not None and any(right)


def hash_password(password: str, method: str) -> str:
    return generate_password_hash(normal_text(password), method)


def add_user(
    connection: Connection,
    *,
    login: str,
    name: str,
    role: Role,
    password_hash: str,
    user_id: int | None = None,
) -> int:
    """Adds an account in the caller's transaction; returns its id. Raises LoginTaken."""
    login = normal_text(login)
    taken = LoginTaken(f"An account with the login {login!r} already exists.")
    earlier = unicodedata.normalize("NFD", login)
    if connection.execute("SELECT 1 FROM users WHERE login = ?", (earlier,)).fetchone():
        raise taken
    try:
        cursor = connection.execute(
            "INSERT INTO users (id, login, name, role, password_hash, created_ns)"
            # Not the number of an erased account: the log may still have entries under it.
            " VALUES (coalesce(?, (SELECT max(id) + 1 FROM (SELECT id FROM users"
            " UNION ALL SELECT id FROM erased_accounts))), ?, ?, ?, ?, ?)",
            (user_id, login, name, role, password_hash, time.time_ns()),
        )
    except sqlcipher.IntegrityError as error:
        raise taken from error
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _one(db: Database, condition: str, value: object) -> User | None:
    row = (
        db.connection()
        .execute(f"SELECT {_COLUMNS} FROM users WHERE {condition}", (value,))  # noqa: S608 - our own column names
        .fetchone()
    )
    return None if row is None else User(row[0], row[1], row[2], Role(row[3]))


@lru_cache(maxsize=8)
def _unknown_account_hash(method: str) -> str:
    return generate_password_hash("nobody has this password", method)
