"""The courses that come with the site, read from `content/<course>/` and checked.

A course is a `course.toml` (titles, tasks, quizzes) beside one Markdown file per lesson.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from webapp.classroom.model.scoring import BadQuestion, Kind, Question


class BadContent(ValueError):
    """A content file has an error; the message names the file."""


@dataclass(frozen=True)
class Lesson:
    slug: str
    title: str
    body: str


@dataclass(frozen=True)
class Task:
    """A task. Its `id` is unique among all courses, because events name a task by it alone."""

    id: str
    title: str
    body: str


@dataclass(frozen=True)
class Quiz:
    """A quiz. Its `id` is unique among all courses, like a task's."""

    id: str
    title: str
    intro: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Course:
    slug: str
    title: str
    summary: str
    lessons: tuple[Lesson, ...]
    tasks: tuple[Task, ...]
    quizzes: tuple[Quiz, ...]


def read_courses(root: Traversable | None = None) -> tuple[Course, ...]:
    """Reads all courses below `root`, by default those in this package, in their order."""
    directory = files("webapp.classroom").joinpath("content") if root is None else root
    found = sorted(_positioned(directory), key=lambda pair: pair[0])
    courses = tuple(course for _, course in found)
    for kind, ids in (
        ("task", [task.id for course in courses for task in course.tasks]),
        ("quiz", [quiz.id for course in courses for quiz in course.quizzes]),
    ):
        if len(set(ids)) != len(ids):
            raise BadContent(f"a {kind} id is used twice among the courses: {sorted(ids)}")
    return courses


def _positioned(directory: Traversable) -> Iterator[tuple[int, Course]]:
    for folder in directory.iterdir():
        file = folder.joinpath("course.toml")
        if not file.is_file():
            continue
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
            yield int(data["position"]), _course(folder, data)
        except (KeyError, TypeError, ValueError, OSError, BadQuestion) as error:
            raise BadContent(f"{folder.name}/course.toml: {error!r}") from error


def _course(folder: Traversable, data: dict[str, Any]) -> Course:
    return Course(
        slug=folder.name,
        title=data["title"],
        summary=data["summary"].strip(),
        lessons=tuple(
            Lesson(
                slug=item["slug"],
                title=item["title"],
                body=folder.joinpath(f"{item['slug']}.md").read_text(encoding="utf-8"),
            )
            for item in data["lessons"]
        ),
        tasks=tuple(
            Task(item["id"], item["title"], item["body"].strip()) for item in data["tasks"]
        ),
        quizzes=tuple(
            Quiz(
                item["id"],
                item["title"],
                item["intro"].strip(),
                tuple(_question(question) for question in item["questions"]),
            )
            for item in data["quizzes"]
        ),
    )


def _question(item: dict[str, Any]) -> Question:
    kind = Kind(item["kind"])
    common = {"kind": kind, "text": item["text"], "explanation": item["explanation"]}
    if kind is Kind.NUMBER:
        return Question(
            **common,
            value=float(item["value"]),
            tolerance=float(item.get("tolerance", 0)),
            unit=item.get("unit", ""),
        )
    # Right answers are named by their text, so that inserting an option changes no answer.
    options = [*item["options"]]
    right = {item["right"]} if isinstance(item["right"], str) else set(item["right"])
    if not right <= set(options):
        raise BadContent(f"{item['text']!r}: the right answer is not among the options")
    return Question(
        **common,
        options=tuple(options),
        correct=tuple(i for i, option in enumerate(options) if option in right),
    )
