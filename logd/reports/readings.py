"""Decides whom the reading of a report is about, so that it is recorded and they can be told.

Persons whom the question names are in its parameters `user` and `users`. Here are those whom the
answer names, and those whom it counts where fewer than PERSONS_MIN make up a figure. Figures are
answered however few persons they count: withheld ones could be computed as the difference of two
others, while of two readings that are recorded each lists its members.
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

    `everyone`: it counts or quotes persons who are not listed, so it may be about anyone.
    """

    persons: frozenset[str] = frozenset()
    everyone: bool = False


# Finds the persons whom an event's properties mention.
Mentioned = Callable[[Mapping[str, Any]], set[str]]
# Of a question's parameters and its answer, in the transaction of the answer.
Concern = Callable[[Connection, Mapping[str, Any], Answer, Mentioned], Concerned]


def named_in_rows(
    _connection: Connection, _params: Mapping[str, Any], answer: Answer, mentioned: Mentioned
) -> Concerned:
    """Finds the users of the rows, and whom the rows' properties mention."""
    found = {row["user"] for row in answer.rows if row["user"] is not None}
    for row in answer.rows:
        found |= mentioned(row.get("props", {}))
    return Concerned(frozenset(user for user in found if 0 < len(user.encode()) <= USER_BYTES_MAX))


def counted_by_day(
    connection: Connection, params: Mapping[str, Any], answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Finds the users of the days on which few were counted."""
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
    """Finds the users of the subjects in which few were counted."""
    if params.get("users") is not None:
        return Concerned()
    counted: Counter[str] = Counter()
    for row in answer.rows:  # a subject is whole on its page
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
    """Whose data the bytes of refused input are is not known: they may be anyone's."""
    return Concerned(everyone=any(row["excerpt"] or ":" in row["reason"] for row in answer.rows))


def may_concern_anyone(props: Mapping[str, Any]) -> bool:
    """Whether a recorded reading may be about persons whom its properties do not list."""
    everyone = props.get("everyone")
    if isinstance(everyone, bool):
        return everyone
    # Recorded by an earlier version, which listed up to five users of the question.
    params = props.get("params")
    if not isinstance(params, Mapping):
        return True
    return "user" not in params and not isinstance(params.get("users"), list)
