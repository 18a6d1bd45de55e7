"""Sixty days of a school, generated from a fixed seed: the events, and the work behind them.

Pure: no clock, no database, no socket. The same `now_ns`, courses and seed give the same history,
byte for byte. Events have the form that the live site logs, and agree with the rows for the site's
own database, because both come from the same simulated visits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from webapp.classroom.model.content import Course, Quiz
from webapp.classroom.model.scoring import Kind, Question, score
from webapp.demo.school import AUDITOR, COLLEAGUE, STUDENTS, TEACHER, Person
from webapp.demo.visits import NS, PAGES, Event, PresentReached, Visit, failed_login

SEED = 20_260
DAYS = 60
# Days without school, counted back from the last day: a week of holidays, and one day off.
BREAK_DAYS = range(24, 31)
DAY_OFF = 45

PASSED = 0.6
STRANGERS_PER_DAY = 0.4


@dataclass(frozen=True)
class Completion:
    user_id: int
    task: str
    completed_ns: int


@dataclass(frozen=True)
class QuizTry:
    user_id: int
    quiz: str
    number: int
    answers: dict[int, list[str]]
    score: float
    submitted_ns: int


@dataclass(frozen=True)
class Reading:
    """A lesson that a student opened in the simulation, and when the student left it."""

    user_id: int
    course: str
    lesson: str
    ended_ns: int


@dataclass
class History:
    """The events in order of time, the readings that caused them, and the rows of the site."""

    events: list[Event] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    tries: list[QuizTry] = field(default_factory=list)


def generate(now_ns: int, courses: tuple[Course, ...], seed: int = SEED) -> History:
    """Generates the history of the last sixty days up to `now_ns`."""
    history = History()
    midnight = datetime.fromtimestamp(now_ns // NS, UTC).replace(hour=0, minute=0, second=0)
    days = [midnight - timedelta(days=DAYS - 1 - at) for at in range(DAYS)]
    for student in STUDENTS:
        _StudentLife(student, courses, days, now_ns, history, seed).live()
    for member in (TEACHER, COLLEAGUE, AUDITOR):
        _staff_life(member, courses, days, now_ns, history, _random(seed, str(member.id)))
    _strangers(days, now_ns, history, _random(seed, "strangers"))
    # The events were generated person by person;
    # the sort keeps the order of events at the same time.
    history.events.sort(key=lambda event: event[2])
    return history


def is_holiday(days_before_last: int) -> bool:
    return days_before_last in BREAK_DAYS or days_before_last == DAY_OFF


def _random(seed: int, name: str) -> random.Random:
    """Returns one person's own random stream: a change to one person changes no other."""
    return random.Random(f"{seed}:{name}")  # noqa: S311 - made-up history, no secret


class _StudentLife:
    """One student's sixty days, with a diligence, a skill and a progress of their own."""

    def __init__(
        self,
        person: Person,
        courses: tuple[Course, ...],
        days: list[datetime],
        now_ns: int,
        history: History,
        seed: int,
    ) -> None:
        self._person = person
        self._days = days
        self._now_ns = now_ns
        self._history = history
        self._rng = rng = _random(seed, str(person.id))
        self._diligence = min(1.0, max(0.3, rng.gauss(0.78, 0.18)))
        self._skill = min(0.96, max(0.3, rng.gauss(0.68, 0.17)))
        # The fraction of the material that the student completes by the last day.
        self._goal = min(1.0, max(0.25, self._diligence * rng.uniform(0.85, 1.25)))
        self._steps = [step for course in courses for step in _steps(course)]
        self._done = 0
        self._tries: dict[str, int] = {}

    def live(self) -> None:
        for at, day in enumerate(self._days):
            for start in self._visits_of(at, day):
                self._visit(start, target=self._goal * (at + 1) / len(self._days))

    def _visits_of(self, at: int, day: datetime) -> Iterator[datetime]:
        rng, diligence = self._rng, self._diligence
        school = day.weekday() < 5 and not is_holiday(len(self._days) - 1 - at)
        if school and rng.random() < 0.55 + 0.4 * diligence:
            lesson = rng.choice((8.2, 9.9, 11.6, 13.4))  # hours at which classes visit the site
            yield day + timedelta(hours=lesson + rng.uniform(0, 0.5))
        if rng.random() < (0.75 if school else 0.3) * diligence:
            yield day + timedelta(hours=min(22.4, max(16.0, rng.gauss(18.8, 1.4))))

    def _visit(self, start: datetime, target: float) -> None:
        rng = self._rng
        visit = Visit(self._person, start, self._now_ns, self._history.events, rng)
        try:
            visit.log_in()
            visit.request("courses.index")
            while self._done < len(self._steps) * target and rng.random() < 0.9:
                self._work(visit, *self._steps[self._done])
            for _ in range(rng.randint(13, 34)):
                self._browse(visit)
            if rng.random() < 0.45:
                visit.log_out()
        except PresentReached:
            return

    def _work(self, visit: Visit, course: Course, kind: str, at: int) -> None:
        """Does the next step of the material: a lesson, a task or a quiz."""
        rng = self._rng
        of_course = {"slug": course.slug}
        visit.wait(15)
        visit.request("courses.course", view_args=of_course)
        visit.wait(8)
        if kind == "lesson":
            self._read(visit, course, at)
            visit.wait(180)
        elif kind == "task":
            of_task = {**of_course, "task_id": course.tasks[at].id}
            visit.request("courses.task", view_args=of_task)
            if rng.random() > 0.55 + 0.45 * self._diligence:
                self._done += 1  # the task is opened, but not completed
                return
            visit.wait(420)
            task = course.tasks[at].id
            props = {"task": task, "course": course.slug}
            done_ns = visit.request(
                "courses.complete", "POST", 302, ("task_completed", props), of_task
            )
            self._history.completions.append(Completion(self._person.id, task, done_ns))
            visit.request("courses.course", view_args=of_course)
        else:
            self._quiz(visit, course, course.quizzes[at])
        self._done += 1

    def _read(self, visit: Visit, course: Course, at: int) -> None:
        lesson = course.lessons[at].slug
        of_lesson = {"slug": course.slug, "lesson_slug": lesson}
        ended_ns = visit.request("courses.lesson", view_args=of_lesson)
        self._history.readings.append(Reading(self._person.id, course.slug, lesson, ended_ns))

    def _quiz(self, visit: Visit, course: Course, quiz: Quiz) -> None:
        rng = self._rng
        of_quiz = {"slug": course.slug, "quiz_id": quiz.id}
        while True:
            visit.request("quizzes.quiz", view_args=of_quiz)
            visit.wait(60 * len(quiz.questions))
            number = self._tries.get(quiz.id, 0) + 1
            # Students learn from the feedback, so later attempts have better scores.
            skill = min(0.97, self._skill + 0.12 * (number - 1))
            answers = {at: _answer(q, skill, rng) for at, q in enumerate(quiz.questions)}
            points = score(quiz.questions, answers)
            props = {"quiz": quiz.id, "course": course.slug, "score": points, "attempt": number}
            done_ns = visit.request(
                "quizzes.submit", "POST", 302, ("quiz_submitted", props), of_quiz
            )
            self._tries[quiz.id] = number
            self._history.tries.append(
                QuizTry(self._person.id, quiz.id, number, answers, points, done_ns)
            )
            visit.request("quizzes.result", view_args={**of_quiz, "number": number})
            visit.wait(45)
            if number >= 4 or rng.random() > (0.55 if points < PASSED else 0.1):
                return

    def _browse(self, visit: Visit) -> None:
        visit.wait(35)
        pages = (
            "courses.lesson",
            "courses.course",
            "courses.task",
            "courses.index",
            "quizzes.history",
        )
        endpoint = self._rng.choices(pages, weights=(45, 25, 14, 9, 7))[0]
        missing = self._rng.random() < 0.004
        kind = endpoint.removeprefix("courses.")
        if kind not in ("lesson", "course", "task"):
            visit.request(endpoint)
            return
        # The lesson is one that the student has come to, or the first one.
        steps = self._steps[: self._done + 1]
        course, _, at = self._rng.choice(
            [step for step in steps if kind in ("course", step[1])]
            or [next(step for step in self._steps if step[1] == kind)]
        )
        if missing:
            visit.request(endpoint, status=404, view_args=_mistyped(endpoint, course))
        elif kind == "lesson":
            self._read(visit, course, at)
        else:
            of_task = {"task_id": course.tasks[at].id} if kind == "task" else {}
            visit.request(endpoint, view_args={"slug": course.slug, **of_task})


def _mistyped(endpoint: str, course: Course) -> dict[str, Any]:
    """Returns the arguments of an address that does not exist."""
    rule = PAGES[endpoint][0]
    args = {"lesson_slug": "lessen", "task_id": "taks"}
    return {"slug": course.slug + "x"} | {name: args[name] for name in args if name in rule}


def _steps(course: Course) -> Iterator[tuple[Course, str, int]]:
    """Yields a course's lessons, tasks and quizzes in the order in which students take them."""
    places = [(at / len(course.lessons), 0, "lesson", at) for at in range(len(course.lessons))]
    places += [((at + 0.9) / len(course.tasks), 1, "task", at) for at in range(len(course.tasks))]
    places += [((at + 1) / len(course.quizzes), 2, "quiz", at) for at in range(len(course.quizzes))]
    for _, _, kind, at in sorted(places):
        yield course, kind, at


def _answer(question: Question, skill: float, rng: random.Random) -> list[str]:
    """Returns the answer of a student with this skill; one in fifty is left empty."""
    if rng.random() < 0.02:
        return []
    knows = rng.random() < skill
    if question.kind is Kind.NUMBER:
        value = question.value if knows else question.value * rng.choice((0.5, 0.9, 1.1, 2.0)) + 1
        return [f"{value:g}"]
    wrong = [at for at in range(len(question.options)) if at not in question.correct]
    if question.kind is Kind.SINGLE:
        return [str(question.correct[0] if knows else rng.choice(wrong))]
    chosen = set(question.correct)
    if not knows:
        chosen.discard(rng.choice(question.correct))
        if wrong and rng.random() < 0.5:
            chosen.add(rng.choice(wrong))
    return [str(at) for at in sorted(chosen)]


def _staff_life(
    person: Person,
    courses: tuple[Course, ...],
    days: list[datetime],
    now_ns: int,
    history: History,
    rng: random.Random,
) -> None:
    if person is AUDITOR:
        pages, weights = ("auditor.overview", "auditor.events", "auditor.losses"), (2, 9, 1)
    else:
        pages, weights = ("teacher.dashboard", "teacher.course", "teacher.timeline"), (3, 4, 6)
    for at, day in enumerate(days):
        if day.weekday() >= 5 or is_holiday(len(days) - 1 - at):
            continue
        if person is AUDITOR and day.weekday() != 2:
            continue
        for hour in (7.6, 14.8):
            if rng.random() < 0.25:
                continue
            start = day + timedelta(hours=hour + rng.uniform(0, 0.6))
            visit = Visit(person, start, now_ns, history.events, rng)
            try:
                visit.log_in()
                visit.request(pages[0])
                for _ in range(rng.randint(4, 14)):
                    visit.wait(40)
                    page = rng.choices(pages, weights=weights)[0]
                    args: dict[str, dict[str, Any]] = {
                        "teacher.course": {"slug": rng.choice(courses).slug},
                        "teacher.timeline": {"user_id": rng.choice(STUDENTS).id},
                    }
                    visit.request(page, view_args=args.get(page))
                visit.log_out()
            except PresentReached:
                return


def _strangers(days: list[datetime], now_ns: int, history: History, rng: random.Random) -> None:
    """Adds failed logins with names that do not exist."""
    for day in days:
        if rng.random() < STRANGERS_PER_DAY:
            at_ns = int((day + timedelta(seconds=rng.uniform(0, 86_400))).timestamp() * NS)
            if at_ns < now_ns:
                history.events.append(failed_login(None, at_ns, rng))
