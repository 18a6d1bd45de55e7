"""Courses, lessons, tasks and quizzes in the site's database."""

from __future__ import annotations

from dataclasses import dataclass

from webapp.classroom.model.content import Course, Lesson, Quiz, Task
from webapp.classroom.model.scoring import dump_questions, load_questions
from webapp.classroom.store.db import Connection, Database


@dataclass(frozen=True)
class CourseCard:
    """A course as a list of courses shows it."""

    slug: str
    title: str
    summary: str


def list_courses(db: Database) -> list[CourseCard]:
    rows = db.connection().execute("SELECT slug, title, summary FROM courses ORDER BY position")
    return [CourseCard(*row) for row in rows]


def find_course(db: Database, slug: str) -> CourseCard | None:
    row = (
        db.connection()
        .execute("SELECT slug, title, summary FROM courses WHERE slug = ?", (slug,))
        .fetchone()
    )
    return None if row is None else CourseCard(*row)


def list_lessons(db: Database, course: str) -> list[Lesson]:
    rows = db.connection().execute(
        "SELECT slug, title, body FROM lessons WHERE course = ? ORDER BY position", (course,)
    )
    return [Lesson(*row) for row in rows]


def list_tasks(db: Database, course: str) -> list[Task]:
    rows = db.connection().execute(
        "SELECT id, title, body FROM tasks WHERE course = ? ORDER BY position", (course,)
    )
    return [Task(*row) for row in rows]


def list_quizzes(db: Database, course: str) -> list[Quiz]:
    rows = db.connection().execute(
        "SELECT id, title, intro, questions FROM quizzes WHERE course = ? ORDER BY position",
        (course,),
    )
    return [Quiz(row[0], row[1], row[2], load_questions(row[3])) for row in rows]


def titles(db: Database) -> dict[str, str]:
    """Returns titles by id, which name things in descriptions of events.

    Tasks and quizzes have their ids, courses `course:SLUG`, and lessons `lesson:COURSE/SLUG`.
    """
    rows = db.connection().execute(
        "SELECT id, title FROM tasks UNION ALL SELECT id, title FROM quizzes"
        " UNION ALL SELECT 'course:' || slug, title FROM courses"
        " UNION ALL SELECT 'lesson:' || course || '/' || slug, title FROM lessons"
    )
    return {row[0]: row[1] for row in rows}


def store_courses(connection: Connection, courses: tuple[Course, ...]) -> None:
    """Adds the courses, or updates existing ones, in the caller's transaction.

    It deletes nothing, since students' work refers to it.
    """
    for at, course in enumerate(courses):
        connection.execute(
            "INSERT INTO courses (slug, title, summary, position) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (slug) DO UPDATE SET title = excluded.title,"
            " summary = excluded.summary, position = excluded.position",
            (course.slug, course.title, course.summary, at),
        )
        connection.executemany(
            "INSERT INTO lessons (course, slug, title, body, position) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (course, slug) DO UPDATE SET title = excluded.title,"
            " body = excluded.body, position = excluded.position",
            [(course.slug, x.slug, x.title, x.body, i) for i, x in enumerate(course.lessons)],
        )
        connection.executemany(
            "INSERT INTO tasks (id, course, title, body, position) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET title = excluded.title,"
            " body = excluded.body, position = excluded.position",
            [(x.id, course.slug, x.title, x.body, i) for i, x in enumerate(course.tasks)],
        )
        connection.executemany(
            "INSERT INTO quizzes (id, course, title, intro, questions, position)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET title = excluded.title,"
            " intro = excluded.intro, questions = excluded.questions, position = excluded.position",
            [
                (x.id, course.slug, x.title, x.intro, dump_questions(x.questions), i)
                for i, x in enumerate(course.quizzes)
            ],
        )
