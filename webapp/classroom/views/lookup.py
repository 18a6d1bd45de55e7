"""Resolves parts of a URL, or aborts with an error page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from flask import abort

from webapp.classroom.model import catalogue
from webapp.classroom.model.catalogue import CourseCard
from webapp.classroom.store.db import get_db

T = TypeVar("T")


def or_404(found: T | None) -> T:
    """Returns what was found; aborts with 404 for None."""
    if found is None:
        abort(404)
    return found


def course_or_404(slug: str) -> CourseCard:
    return or_404(catalogue.find_course(get_db(), slug))


KEY_MAX = 2**63 - 1


def key_argument(arguments: Mapping[str, str], name: str) -> int | None:
    """Returns the id (or time, in ns) before which a page of a list starts; None if not given.

    Aborts with 400 if the argument is not a number of that kind.
    """
    text = arguments.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(KEY_MAX))):
        abort(400)
    key = int(text)
    if key > KEY_MAX:
        abort(400)
    return key


def time_argument(arguments: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Returns the id and time (ns) of the event before which a page in order of time starts.

    Both are None for the first page. Aborts with 400 if one of them is not a number.
    """
    before_id = key_argument(arguments, "before")
    return before_id, None if before_id is None else key_argument(arguments, "before_ns")
