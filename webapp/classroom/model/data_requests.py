"""Requests for correction or erasure of one's data, and the auditors' answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlcipher3 import dbapi2 as sqlcipher

from webapp.classroom.model.accounts import User
from webapp.classroom.store.db import Database

TEXT_CHARS_MAX = 2000
SHOWN_MAX = 50  # of an account's requests, and of all open or answered ones


class Kind(StrEnum):
    CORRECTION = "correction"
    ERASURE = "erasure"


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class DataRequest:
    """One request, with the account that made it, and its answer if there is one."""

    id: int
    user_id: int
    login: str
    name: str
    role: str
    kind: Kind
    text: str
    made_ns: int
    outcome: Outcome | None
    answer: str | None
    answered_by: str | None
    answered_ns: int | None


_SELECT = (
    "SELECT r.id, r.user_id, u.login, u.name, u.role, r.kind, r.text, r.made_ns, r.outcome,"
    " r.answer, a.name AS auditor, r.answered_ns"
    " FROM data_requests r JOIN users u ON u.id = r.user_id"
    " LEFT JOIN users a ON a.id = r.answered_by"
)


def make_request(db: Database, user: User, kind: Kind, text: str, now_ns: int) -> int | None:
    """Stores a request; returns its id, or None if the account has an open one of that kind."""
    try:
        with db.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO data_requests (user_id, kind, text, made_ns) VALUES (?, ?, ?, ?)",
                (user.id, kind, text, now_ns),
            )
    except sqlcipher.IntegrityError:
        return None
    return cursor.lastrowid


def answer_request(
    db: Database, request_id: int, auditor: User, outcome: Outcome, answer: str, now_ns: int
) -> bool:
    """Stores the answer to an open request; returns False if it has one already."""
    with db.transaction() as connection:
        cursor = connection.execute(
            "UPDATE data_requests SET outcome = ?, answer = ?, answered_by = ?, answered_ns = ?"
            " WHERE id = ? AND answered_ns IS NULL",
            (outcome, answer, auditor.id, now_ns, request_id),
        )
        return cursor.rowcount == 1


def find_request(db: Database, request_id: int) -> DataRequest | None:
    found = _requests(db, "r.id = ?", request_id)
    return found[0] if found else None


def requests_of(db: Database, user: User) -> list[DataRequest]:
    """Returns the latest requests of an account, the newest first."""
    return _requests(db, "r.user_id = ?", user.id)


def open_requests(db: Database) -> list[DataRequest]:
    """Returns the oldest requests without an answer, the oldest first."""
    return _requests(db, "r.answered_ns IS NULL", order="r.id")


def count_open(db: Database) -> int:
    row = db.connection().execute("SELECT count(*) FROM data_requests WHERE answered_ns IS NULL")
    return int(row.fetchone()[0])


def answered_requests(db: Database) -> list[DataRequest]:
    """Returns the latest answered requests, the latest answer first."""
    return _requests(db, "r.answered_ns IS NOT NULL", order="r.answered_ns DESC, r.id DESC")


def _requests(
    db: Database,
    condition: str,
    *values: object,
    order: str = "r.id DESC",
) -> list[DataRequest]:
    rows = db.connection().execute(
        f"{_SELECT} WHERE {condition} ORDER BY {order} LIMIT ?", (*values, SHOWN_MAX)
    )
    return [
        DataRequest(
            row["id"],
            row["user_id"],
            row["login"],
            row["name"],
            row["role"],
            Kind(row["kind"]),
            row["text"],
            row["made_ns"],
            row["outcome"] and Outcome(row["outcome"]),
            row["answer"],
            row["auditor"],
            row["answered_ns"],
        )
        for row in rows
    ]
