"""The course pages: list, overview, lessons, and tasks to complete."""

from __future__ import annotations

import time

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import login_required

from flask_logd import Outcome
from webapp.classroom.extensions import activity
from webapp.classroom.model import catalogue, work
from webapp.classroom.model.accounts import Role
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import course_or_404, or_404

blueprint = Blueprint("courses", __name__, url_prefix="/courses")

NOT_IN_THE_RECORD = (
    "The task is marked as done, but it could not be recorded in the school's activity log."
    " Please tell your teacher."
)


@blueprint.get("/")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def index() -> str:
    db, user = get_db(), current_account()
    done = work.completions_of(db, user)
    cards = []
    for course in catalogue.list_courses(db):
        tasks = catalogue.list_tasks(db, course.slug)
        cards.append((course, sum(task.id in done for task in tasks), len(tasks)))
    return render_template("courses.html", cards=cards)


@blueprint.get("/<slug>")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def course(slug: str) -> str:
    db, user = get_db(), current_account()
    return render_template(
        "course.html",
        course=course_or_404(slug),
        lessons=catalogue.list_lessons(db, slug),
        tasks=catalogue.list_tasks(db, slug),
        quizzes=catalogue.list_quizzes(db, slug),
        done=work.completions_of(db, user),
        best=work.best_scores(db, user),
    )


@blueprint.get("/<slug>/lessons/<lesson_slug>")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def lesson(slug: str, lesson_slug: str) -> str:
    card = course_or_404(slug)
    lessons = catalogue.list_lessons(get_db(), slug)
    at = or_404(next((i for i, item in enumerate(lessons) if item.slug == lesson_slug), None))
    return render_template(
        "lesson.html",
        course=card,
        lesson=lessons[at],
        number=at + 1,
        count=len(lessons),
        previous=lessons[at - 1] if at > 0 else None,
        following=lessons[at + 1] if at + 1 < len(lessons) else None,
    )


@blueprint.get("/<slug>/tasks/<task_id>")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def task(slug: str, task_id: str) -> str:
    card = course_or_404(slug)
    found = next((t for t in catalogue.list_tasks(get_db(), slug) if t.id == task_id), None)
    return render_template(
        "task.html",
        course=card,
        task=or_404(found),
        completed_ns=work.completions_of(get_db(), current_account()).get(task_id),
    )


@blueprint.post("/<slug>/tasks/<task_id>/complete")
@roles_allowed(Role.STUDENT)
def complete(slug: str, task_id: str) -> ResponseReturnValue:
    db = get_db()
    course_or_404(slug)
    found = or_404(next((t for t in catalogue.list_tasks(db, slug) if t.id == task_id), None))
    # The event is logged after its row is committed, so that no event reports what was rolled back.
    if work.complete_task(db, current_account(), found.id, time.time_ns()):
        outcome = activity.log("task_completed", task=found.id, course=slug)
        flash(f"Task completed: {found.title}.")
        # The extension itself flashes the message about an unknown outcome.
        if outcome is Outcome.REFUSED:
            flash(NOT_IN_THE_RECORD, "warning")
    else:
        flash(f"{found.title} was already done.")
    return redirect(url_for("courses.course", slug=slug, _anchor="tasks"))
