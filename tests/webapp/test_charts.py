"""Charts: images without scripts, each with a sentence and a table."""

from __future__ import annotations

import base64
import re
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest

from webapp.classroom.model.analytics import Day
from webapp.classroom.present.charts import active_students, page_views, score_histogram


def days(count: int) -> list[Day]:
    first = date(2026, 11, 24) - timedelta(days=count - 1)
    return [Day(first + timedelta(days=at), at * 100, at) for at in range(count)]


def svg(source: str) -> str:
    assert source.startswith("data:image/svg+xml;base64,")
    return base64.b64decode(source.split(",", 1)[1]).decode()


@pytest.mark.parametrize("count", [1, 7, 30, 60])
def test_a_chart_is_well_formed_without_scripts_and_addresses(count: int) -> None:
    for chart in (active_students(days(count)), page_views(days(count))):
        picture = svg(chart.source)
        ElementTree.fromstring(picture)
        assert "<script" not in picture
        assert not re.search(r'(?:href|src)="(?!#)', picture)
        assert "@import" not in picture


def test_few_bars_show_their_values_and_the_last_of_many_its_day() -> None:
    assert ">600<" in svg(page_views(days(7)).source)
    assert "24 Nov" in svg(page_views(days(60)).source)


def test_a_sentence_names_the_range_the_mean_and_the_peak() -> None:
    sentence = page_views(days(7)).sentence
    assert "from 18 November to 24 November 2026" in sentence
    assert "an average of 350 page views" in sentence
    assert "the most on 24 November with 600" in sentence


def test_days_without_events_are_summarised_in_a_sentence() -> None:
    quiet = [Day(date(2026, 11, 24), 0, 0)]
    assert page_views(quiet).sentence.endswith("none.")


def test_the_table_has_every_day() -> None:
    chart = page_views(days(60))
    assert len(chart.rows) == 60
    assert chart.rows[-1] == ("Tue 24 Nov 2026", "5,900")


def test_a_histogram_of_one_student_uses_the_singular() -> None:
    chart = score_histogram("Chance", [0] * 9 + [1])
    assert "latest scores of 1 student;" in chart.sentence
    assert chart.rows[-1] == ("90–100 %", "1")  # noqa: RUF001 - a range has a dash
    assert "90–100 %" in svg(chart.source)  # noqa: RUF001 - a range has a dash


def test_an_empty_histogram_has_a_sentence() -> None:
    assert "no student" in score_histogram("Chance", [0] * 10).sentence
