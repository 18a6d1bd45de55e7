"""Determines the persons whom a report is about, so that the reading is recorded with them.

Persons whom the question names are in its parameters `user` and `users`. This module finds those
whom the answer names, and those whom it counts in figures about fewer than PERSONS_MIN persons.
Figures are answered however few persons they count: a withheld figure could be computed as the
difference of two others, and recorded readings list the persons of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from logd.reports.event_counts import PERSONS_MIN, Counted
from logd.reports.event_queries import DAILY_TYPE, SCORE_TYPE
from logd.storage.database import Connection, in_parts, question_marks
from logd_wire.query import Answer
from logd_wire.schema import USER_BYTES_MAX

# The most parts of a path (between its dots) and of an equation in which persons are looked for.
PATH_PARTS_MAX = 16


@dataclass(frozen=True)
class Concerned:
    """The persons whom an answer names or counts, beside those whom the question names.

    `everyone` is true if the answer counts or quotes persons not listed, so that it may be about
    anyone.
    """

    persons: frozenset[str] = frozenset()
    everyone: bool = False
    # The question as it is recorded, where a parameter names a person under another name than
    # `user`: `logd person` and `logd forget` then find that person in it.
    question: Mapping[str, Any] | None = None


# A function that finds the persons mentioned in an event's properties.
Mentioned = Callable[[Mapping[str, Any]], set[str]]
# A function that finds the persons concerned by a report, called in the transaction of its answer.
# It returns None for an answer that is about no one, and is no reading.
Concern = Callable[[Connection, Mapping[str, Any], Answer, Mentioned], Concerned | None]


def named_in_rows(
    _connection: Connection, _params: Mapping[str, Any], answer: Answer, mentioned: Mentioned
) -> Concerned:
    """Finds the users in the answer's rows, and the persons mentioned in the rows' properties."""
    found = {row["user"] for row in answer.rows if row["user"] is not None}
    for row in answer.rows:
        found |= mentioned(row.get("props", {}))
    return Concerned(_users(found))


def searched(
    connection: Connection, params: Mapping[str, Any], answer: Answer, mentioned: Mentioned
) -> Concerned:
    """Finds the persons in the answer's rows, and those whom the filter names.

    A text may be a part of anyone's name, so that also an answer without rows is about anyone.
    """
    question, named = _recorded_question(params, mentioned)
    found = named_in_rows(connection, params, answer, mentioned).persons
    return Concerned(_users(found | named), "text" in params, question)


def counted_by_filter(
    _connection: Connection, params: Mapping[str, Any], answer: Answer, mentioned: Mentioned
) -> Concerned:
    """Finds whom the filter names, and the persons of figures with fewer than PERSONS_MIN."""
    question, named = _recorded_question(params, mentioned)
    few = answer.few if isinstance(answer, Counted) else frozenset()
    narrowed = params.get("user") is not None or params.get("users") is not None
    return Concerned(_users(few | named), not narrowed or "text" in params, question)


def _users(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if 0 < len(name.encode()) <= USER_BYTES_MAX)


def _recorded_question(
    params: Mapping[str, Any], mentioned: Mentioned
) -> tuple[dict[str, Any], set[str]]:
    """Returns the question with its persons under person keys, and these persons."""
    question, named = dict(params), set()
    for name in ("about", "text"):
        if isinstance(params.get(name), str):
            named.add(params[name])
            question[name] = {"user": params[name]}
    if isinstance(params.get("props"), list):
        question["props"] = []
        for equation in params["props"]:
            path, value, persons = _named_by(equation, mentioned)
            named |= persons
            if persons:
                known = persons == {value}
                equation = {"path": path, "user": value} if known else {"users": sorted(persons)}
            question["props"].append(equation)
    return question, named


def _named_by(equation: str, mentioned: Mentioned) -> tuple[str, str, set[str]]:
    """Returns the path and value of a `path=value`, and the persons whom an event with it names.

    A key may have a `.` or `=` of its own: each way to read the path is tried, and the first one
    that names a person is taken.
    """
    parts = equation.split("=")
    for at in range(1, min(len(parts), PATH_PARTS_MAX)):
        path, value = "=".join(parts[:at]), "=".join(parts[at:])
        keys = path.split(".")[-PATH_PARTS_MAX:]
        persons: set[str] = set()
        for start in range(len(keys)):
            for end in range(start + 1, len(keys) + 1):
                inner: Any = value
                for key in reversed((".".join(keys[start:end]), *keys[end:])):
                    inner = {key: inner}
                persons |= mentioned(inner)
        if persons:
            return path, value, persons
    return parts[0], "=".join(parts[1:]), set()


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
    """Returns that a quarantine report may be about anyone, if it quotes refused input."""
    return Concerned(everyone=any(row["excerpt"] or ":" in row["reason"] for row in answer.rows))


def about_one(
    _connection: Connection, _params: Mapping[str, Any], answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Finds the readers in the answer; the one person whom it is about is in the question."""
    readers = {row.get("reader") for row in answer.rows}
    return Concerned(frozenset(reader for reader in readers if reader is not None))


def named_by_others(
    connection: Connection, _params: Mapping[str, Any], answer: Answer, _mentioned: Mentioned
) -> Concerned:
    """Finds the users of the events in the answer, which tells what they did without their names.

    The person whom those events name is in the question.
    """
    found: set[str] = set()
    for part in in_parts([row["id"] for row in answer.rows]):
        rows = connection.execute(
            f"SELECT DISTINCT user FROM event WHERE id IN ({question_marks(part)})"  # noqa: S608 - question marks only
            " AND user IS NOT NULL",
            part,
        )
        found.update(user for (user,) in rows)
    return Concerned(frozenset(found))


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
