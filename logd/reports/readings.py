"""Determines the persons whom a report is about, so that the reading is recorded with them.

Persons whom the question names are in its parameters `user` and `users`. This module finds those
whom the answer names, and those whom it counts in figures about fewer than PERSONS_MIN persons.
Figures are answered however few persons they count: a withheld figure could be computed as the
difference of two others, and recorded readings list the persons of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logd.reports.event_queries import DAILY_TYPE, SCORE_TYPE
from logd.storage.database import Connection, in_parts, question_marks
from logd_wire.query import Answer
from logd_wire.schema import USER_BYTES_MAX

PERSONS_MIN = 5


@dataclass(frozen=True)
class Concerned:
    """The persons whom an answer names or counts, beside those whom the question names.

    `everyone` is true if the answer counts or quotes persons not listed, so that it may be about
    anyone.
    """

    persons: frozenset[str] = frozenset()
    everyone: bool = False


# A function that finds the persons mentioned in an event's properties.
Mentioned = Callable[[Mapping[str, Any]], set[str]]
# A function that finds the persons concerned by a report, called in the transaction of its answer.
Concern = Callable[[Connection, Mapping[str, Any], Answer, Mentioned], Concerned]


def named_in_rows(
    _connection: Connection, _params: Mapping[str, Any], answer: Answer, mentioned: Mentioned
) -> Concerned:
    """Finds the users in the answer's rows, and the persons mentioned in the rows' properties."""
    found = {row["user"] for row in answer.rows if row["user"] is not None}
    for row in answer.rows:
        found |= mentioned(row.get("props", {}))
    return Concerned(frozenset(user for user in found if 0 < len(user.encode()) <= USER_BYTES_MAX))


def of_the_question(
    _connection: Connection, _params: Mapping[str, Any], _answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Returns nobody besides the persons whom the question names: the answer counts no other."""
    return Concerned()


def counted_by_day(
    connection: Connection, params: Mapping[str, Any], answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Finds the users counted on days with fewer than PERSONS_MIN users."""
    if params.get("users") is not None:
        return Concerned()
    days = [row["day"] for row in answer.rows if row["users"] < PERSONS_MIN]
    found: set[str] = set()
    for part in in_parts(days):
        rows = connection.execute(
            "SELECT DISTINCT user FROM rollup_day"  # noqa: S608 - question marks only
            " WHERE type = (SELECT id FROM event_type WHERE name = ?)"
            f" AND day IN ({question_marks(part)}) AND user <> ''",
            (params.get("type", DAILY_TYPE), *part),
        )
        found.update(user for (user,) in rows)
    return Concerned(frozenset(found), everyone=True)


def counted_by_subject(
    connection: Connection, params: Mapping[str, Any], answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Finds the users counted in subjects with fewer than PERSONS_MIN users."""
    if params.get("users") is not None:
        return Concerned()
    counted: Counter[str] = Counter()
    for row in answer.rows:  # all rows of a subject are on one page
        counted[row["subject"]] += row["users"]
    found: set[str] = set()
    for subject, users in counted.items():
        if users < PERSONS_MIN:
            rows = connection.execute(
                "SELECT user FROM rollup_subject"
                " WHERE type = (SELECT id FROM event_type WHERE name = ?) AND subject = ?"
                " AND last_value IS NOT NULL",
                (params.get("type", SCORE_TYPE), subject),
            )
            found.update(user for (user,) in rows)
    return Concerned(frozenset(found), everyone=True)


def quoted(
    _connection: Connection, _params: Mapping[str, Any], answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Returns whom a quarantine report concerns: anyone if it quotes refused input, or nobody."""
    return Concerned(everyone=any(row["excerpt"] or ":" in row["reason"] for row in answer.rows))


def may_concern_anyone(props: Mapping[str, Any]) -> bool:
    """Whether a recorded reading may be about persons whom its properties do not list."""
    everyone = props.get("everyone")
    if isinstance(everyone, bool):
        return everyone
    # A reading recorded by an earlier version lists up to five users of the question.
    params = props.get("params")
    if not isinstance(params, Mapping):
        return True
    return "user" not in params and not isinstance(params.get("users"), list)
