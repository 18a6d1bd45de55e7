"""The marking of answers: from 0 to 1, and no gain from guessing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.classroom.model.scoring import (
    BadAnswer,
    BadQuestion,
    Kind,
    Question,
    dump_questions,
    load_questions,
    mark,
    parse_number,
    score,
)


@st.composite
def choices(draw: st.DrawFn, kind: Kind = Kind.SEVERAL) -> Question:
    count = draw(st.integers(2, 7))
    numbers = st.integers(0, count - 1)
    if kind is Kind.SINGLE:
        correct = [draw(numbers)]
    else:
        correct = draw(st.lists(numbers, min_size=1, max_size=count, unique=True))
    options = tuple(f"option {number}" for number in range(count))
    return Question(kind, "which?", "because", options=options, correct=tuple(correct))


finite = st.floats(-1e9, 1e9, allow_nan=False)
numeric = st.builds(
    Question,
    st.just(Kind.NUMBER),
    st.just("how much?"),
    st.just("because"),
    value=finite,
    tolerance=st.floats(0, 1e6),
)
questions = st.lists(
    st.one_of(choices(Kind.SINGLE), choices(Kind.SEVERAL), numeric), min_size=1, max_size=8
)


def right_answer(question: Question) -> list[str]:
    if question.kind is Kind.NUMBER:
        return [repr(question.value)]
    return [str(number) for number in question.correct]


@given(questions)
def test_all_correct_scores_1_and_nothing_answered_scores_0(asked: list[Question]) -> None:
    assert score(asked, {at: right_answer(question) for at, question in enumerate(asked)}) == 1.0
    assert score(asked, {}) == 0.0


@given(questions, st.data())
def test_a_score_is_between_0_and_1(asked: list[Question], data: st.DataObject) -> None:
    answers = {}
    for at, question in enumerate(asked):
        if question.kind is Kind.NUMBER:
            answers[at] = [data.draw(finite.map(repr))]
        else:
            limit = 1 if question.kind is Kind.SINGLE else len(question.options)
            numbers = st.integers(0, len(question.options) - 1).map(str)
            answers[at] = data.draw(st.lists(numbers, max_size=limit, unique=True))
    assert 0.0 <= score(asked, answers) <= 1.0


@given(choices(), st.data())
def test_a_wrong_choice_never_adds_and_a_right_one_never_subtracts(
    question: Question, data: st.DataObject
) -> None:
    numbers = st.integers(0, len(question.options) - 1)
    chosen = data.draw(st.sets(numbers))
    more = data.draw(numbers)
    before = mark(question, [str(number) for number in chosen]).points
    after = mark(question, [str(number) for number in chosen | {more}]).points
    if more in question.correct:
        assert after >= before
    else:
        assert after <= before


def test_a_wrong_choice_cancels_a_right_one() -> None:
    question = Question(Kind.SEVERAL, "?", "!", options=("a", "b", "c", "d"), correct=(0, 1))
    assert mark(question, ["0", "1"]).points == 1.0
    assert mark(question, ["0", "1", "2"]).points == 0.5
    assert mark(question, ["0", "1", "2", "3"]).points == 0.0


@given(choices(Kind.SINGLE))
def test_a_single_choice_scores_1_or_0(question: Question) -> None:
    for number in range(len(question.options)):
        points = mark(question, [str(number)]).points
        assert points == float(number == question.correct[0])


@given(numeric, st.floats(0, 1))
def test_a_number_within_the_tolerance_is_right(question: Question, share: float) -> None:
    given_number = question.value + share * question.tolerance
    assert mark(question, [f"{given_number:.20g}"]).right


@given(numeric)
def test_a_number_well_outside_the_tolerance_is_not(question: Question) -> None:
    outside = question.value + 1.01 * question.tolerance + 1e-6 * max(1.0, abs(question.value))
    assert not mark(question, [repr(outside)]).right


def test_a_tolerance_holds_for_decimal_fractions() -> None:
    question = Question(Kind.NUMBER, "?", "!", value=0.3, tolerance=0.1)
    assert mark(question, ["0.4"]).right  # 0.4 - 0.3 is 0.10000000000000003


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12.0), (" 0,5 ", 0.5), ("-3.", -3.0), (".5", 0.5), ("1e3", 1000.0), ("−4", -4.0)],  # noqa: RUF001 - a minus as some write it
)
def test_common_number_formats_are_parsed(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_number_is_not_answered(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    "text", ["seven", "1,234.5", "1 000", "nan", "inf", "1e999", "0x10", "٣", "9" * 100]
)
def test_an_invalid_number_is_refused_rather_than_marked_wrong(text: str) -> None:
    with pytest.raises(BadAnswer):
        parse_number(text)


@given(st.text(max_size=60))
def test_any_text_is_a_number_empty_or_refused(text: str) -> None:
    try:
        number = parse_number(text)
    except BadAnswer:
        return
    assert number is None or number == number


@given(choices(Kind.SINGLE), st.text(max_size=8))
def test_an_option_that_was_not_offered_is_refused(question: Question, text: str) -> None:
    if text not in {str(number) for number in range(len(question.options))}:
        with pytest.raises(BadAnswer):
            mark(question, [text])


def test_two_answers_to_a_single_choice_are_refused() -> None:
    question = Question(Kind.SINGLE, "?", "!", options=("a", "b"), correct=(0,))
    with pytest.raises(BadAnswer):
        mark(question, ["0", "1"])


@given(questions)
def test_questions_are_stored_and_loaded_unchanged(asked: list[Question]) -> None:
    assert list(load_questions(dump_questions(asked))) == asked


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": Kind.SINGLE, "options": ("a",), "correct": (0,)},
        {"kind": Kind.SINGLE, "options": ("a", "b"), "correct": (0, 1)},
        {"kind": Kind.SEVERAL, "options": ("a", "b"), "correct": ()},
        {"kind": Kind.SEVERAL, "options": ("a", "b"), "correct": (2,)},
        {"kind": Kind.SEVERAL, "options": ("a", "b"), "correct": (0, 0)},
        {"kind": Kind.NUMBER, "tolerance": -1.0},
        {"kind": Kind.NUMBER, "value": float("nan")},
    ],
)
def test_an_unanswerable_question_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(BadQuestion):
        Question(text="?", explanation="!", **broken)  # type: ignore[arg-type] # wrong ones too
