"""Quiz questions and the marking of answers. Pure: no database, no request.

An answer is the list of texts that a form sends for a question: an option's number for a single
choice, several for several choices, the typed text for a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

NUMBER_CHARS_MAX = 40

# A number has either decimal mark and may have an exponent,
# but no thousands separators: "1,234" would be ambiguous.
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class Kind(StrEnum):
    SINGLE = "single"
    SEVERAL = "several"
    NUMBER = "number"


class BadQuestion(ValueError):
    """A question of the content cannot be answered."""


class BadAnswer(ValueError):
    """An answer is invalid: text in place of a number, or an option that does not exist."""


@dataclass(frozen=True)
class Question:
    """One question. `correct` holds option numbers; `value` and `tolerance` belong to numbers."""

    kind: Kind
    text: str
    explanation: str
    options: tuple[str, ...] = ()
    correct: tuple[int, ...] = ()
    value: float = 0.0
    tolerance: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        if self.kind is Kind.NUMBER:
            if not (math.isfinite(self.value) and math.isfinite(self.tolerance)):
                raise BadQuestion(f"{self.text!r}: value and tolerance must be finite")
            if self.tolerance < 0:
                raise BadQuestion(f"{self.text!r}: a tolerance cannot be negative")
            return
        if len(self.options) < 2:
            raise BadQuestion(f"{self.text!r}: a choice needs at least two options")
        if not all(0 <= number < len(self.options) for number in self.correct):
            raise BadQuestion(f"{self.text!r}: a correct option does not exist")
        if len(set(self.correct)) != len(self.correct):
            raise BadQuestion(f"{self.text!r}: a correct option is named twice")
        if self.kind is Kind.SINGLE and len(self.correct) != 1:
            raise BadQuestion(f"{self.text!r}: a single choice has exactly one correct option")
        if not self.correct:
            raise BadQuestion(f"{self.text!r}: no option is correct")


Answers = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class Mark:
    """The marking of one answer: points from 0 to 1."""

    points: float
    answered: bool

    @property
    def right(self) -> bool:
        return self.points == 1.0


def mark(question: Question, answer: Sequence[str]) -> Mark:
    """Marks one answer; an empty one gets 0 points. Raises BadAnswer for an invalid one."""
    if question.kind is Kind.NUMBER:
        number = parse_number(answer[0] if answer else "")
        if number is None:
            return Mark(0.0, answered=False)
        # The range is slightly larger than the tolerance,
        # so that 0.3 is within 0.1 of 0.2 as binary numbers, too.
        slack = question.tolerance + 1e-9 * max(1.0, abs(question.value))
        return Mark(float(abs(number - question.value) <= slack), answered=True)
    chosen = parse_options(question, answer)
    if not chosen:
        return Mark(0.0, answered=False)
    return Mark(_share(question, chosen), answered=True)


def _share(question: Question, chosen: frozenset[int]) -> float:
    """Returns the points of chosen options: each wrong choice cancels one right choice.

    So choosing all options gains nothing over guessing, and points are never negative.
    """
    correct = frozenset(question.correct)
    if question.kind is Kind.SINGLE:
        return float(chosen == correct)
    points = (len(chosen & correct) - len(chosen - correct)) / len(correct)
    return max(0.0, points)


def score(questions: Sequence[Question], answers: Answers) -> float:
    """Returns the score of a quiz, from 0 to 1: the mean of its questions, to four digits."""
    if not questions:
        return 0.0
    points = [mark(question, answers.get(i, ())).points for i, question in enumerate(questions)]
    return round(math.fsum(points) / len(points), 4)


def parse_number(text: str) -> float | None:
    """Parses a typed number; returns None for an empty text. Raises BadAnswer for anything else."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if not text:
        return None
    if len(text) > NUMBER_CHARS_MAX or not _NUMBER.fullmatch(text):
        raise BadAnswer("Enter a number such as 12, 0.5 or 0,5.")
    number = float(text.replace(",", "."))
    if not math.isfinite(number):
        raise BadAnswer("This number is too large.")
    return number


def parse_options(question: Question, answer: Sequence[str]) -> frozenset[int]:
    """Parses the chosen options. Raises BadAnswer for one that the page does not offer."""
    offered = {str(number): number for number in range(len(question.options))}
    try:
        chosen = frozenset(offered[text] for text in answer)
    except KeyError as error:
        raise BadAnswer("Choose from the options shown.") from error
    if question.kind is Kind.SINGLE and len(chosen) > 1:
        raise BadAnswer("Choose one option.")
    return chosen


def dump_questions(questions: Sequence[Question]) -> str:
    return json.dumps([asdict(question) for question in questions], ensure_ascii=False)


def load_questions(text: str) -> tuple[Question, ...]:
    return tuple(
        Question(
            **item
            | {
                "kind": Kind(item["kind"]),
                "options": tuple(item["options"]),
                "correct": tuple(item["correct"]),
            }
        )
        for item in json.loads(text)
    )
