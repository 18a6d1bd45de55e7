"""The teacher's pages: activity of the class, from logd's reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, abort, render_template, request

from webapp.classroom.model import catalogue
from webapp.classroom.model.accounts import Role, User, find_user, list_users, name_key
from webapp.classroom.model.analytics import BUCKETS, analytics_for
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.present import charts
from webapp.classroom.present.request_texts import is_echo
from webapp.classroom.present.texts import describe_event
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import course_or_404, key_argument, or_404, time_argument

blueprint = Blueprint("teacher", __name__, url_prefix="/teacher")

RANGES_DAYS = (7, 30, 60)
RANGE_DEFAULT_DAYS = 60
STUDENTS_SHOWN = 50


@blueprint.get("/")
@roles_allowed(Role.TEACHER)
def dashboard() -> str:
    days = _range_days()
    students = list_users(get_db(), Role.STUDENT)
    daily = analytics_for(current_account()).daily(days, [student.key for student in students])
    return render_template(
        "dashboard.html",
        days=days,
        ranges=RANGES_DAYS,
        panel=daily
        if isinstance(daily, Unavailable)
        else [charts.active_students(daily), charts.page_views(daily)],
        courses=catalogue.list_courses(get_db()),
        students=students,
    )


@blueprint.get("/courses/<slug>")
@roles_allowed(Role.TEACHER)
def course(slug: str) -> str:
    """Shows the completion matrix, a page of students with totals of all, and the quizzes' scores.

    The figures are requested about all students: the reading of a page of them is one of the class.
    """
    db = get_db()
    card = course_or_404(slug)
    students = list_users(db, Role.STUDENT)
    tasks = catalogue.list_tasks(db, slug)
    quizzes = catalogue.list_quizzes(db, slug)
    analytics = analytics_for(current_account())
    keys = [student.key for student in students]
    matrix = analytics.completions("task_completed", keys, [task.id for task in tasks])
    scores = analytics.score_distribution(keys)
    return render_template(
        "class.html",
        course=card,
        students=students,
        page=student_page(students, key_argument(request.args, "page")),
        tasks=tasks,
        matrix=matrix,
        done={} if isinstance(matrix, Unavailable) else Counter(task for _, task in matrix),
        scores=scores
        if isinstance(scores, Unavailable)
        else [
            charts.score_histogram(quiz.title, scores.get(quiz.id, [0] * BUCKETS))
            for quiz in quizzes
        ],
    )


@dataclass(frozen=True)
class StudentPage:
    """A page of a class in the order of names, and the page of each first letter."""

    students: Sequence[User]
    number: int
    pages: int
    first: int
    letters: dict[str, int]


def student_page(students: Sequence[User], number: int | None) -> StudentPage:
    """Returns the page with that number, from 1 on; aborts with 404 if there is none."""
    pages = max(1, -(-len(students) // STUDENTS_SHOWN))
    number = 1 if number is None else number
    if not 1 <= number <= pages:
        abort(404)
    letters: dict[str, int] = {}
    if pages > 1:
        for at, student in enumerate(students):
            letter = name_key(student.name)[:1].upper() or "…"
            letters.setdefault(letter, at // STUDENTS_SHOWN + 1)
    first = (number - 1) * STUDENTS_SHOWN
    return StudentPage(students[first : first + STUDENTS_SHOWN], number, pages, first + 1, letters)


@blueprint.get("/students/<int:user_id>")
@roles_allowed(Role.TEACHER)
def timeline(user_id: int) -> str:
    student = or_404(find_user(get_db(), user_id)) if user_id < 2**63 else None
    if student is None or student.role is not Role.STUDENT:
        abort(404)
    before_id, before_ns = time_argument(request.args)
    return render_template(
        "timeline.html",
        student=student,
        before_id=before_id,
        page=analytics_for(current_account()).timeline(student.key, before_id, before_ns),
        is_echo=is_echo,
        describe_event=describe_event,
        titles=catalogue.titles(get_db()),
    )


def _range_days() -> int:
    """Returns the range of days chosen in the URL, or the default."""
    chosen = {str(days): days for days in RANGES_DAYS}
    return chosen.get(request.args.get("days", ""), RANGE_DEFAULT_DAYS)
