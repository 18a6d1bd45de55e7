"""Charts: pygal renders them in this process, as SVG images inside the page.

In an <img> an SVG can neither run scripts nor load anything, in any browser. No chart uses colour
for meaning, and each has a sentence and a table with the same content.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, cast

import pygal
from pygal.style import Style

from webapp.classroom.model.analytics import BUCKETS, EPOCH, Day

# Sizes in pixels. The page scales an image with its text,
# so an image for a narrow place is made smaller.
WIDE = (760, 300)
NARROW = (420, 340)
# The most labelled lines on the value axis.
STEPS_MAX = 5
# The most bars with values printed on them: the values of more bars would overlap.
BARS_WITH_VALUES_MAX = 14
# The most bars of types and of days: more would not be readable.
TYPES_DRAWN_MAX = 8
DAYS_DRAWN_MAX = 60

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#3c4654",
    foreground_strong="#1c2430",
    foreground_subtle="#5b6675",
    opacity="1",
    opacity_hover="1",
    transition="0s",
    colors=("#2f5fd0",),
    font_family=_FONT,
    label_font_size=15,
    major_label_font_size=15,
    value_font_size=15,
    value_label_font_size=15,
    title_font_size=17,
    guide_stroke_color="#c9d1dc",
    major_guide_stroke_color="#c9d1dc",
    guide_stroke_dasharray="2,4",
    major_guide_stroke_dasharray="2,4",
)

# An image does not see the page's style sheet, so it has its own dark scheme.
_DARK = """inline:
@media (prefers-color-scheme: dark) {
  .axis text, .graph text, text { fill: #c7d0dc !important; }
  .bar rect, rect.rect { fill: #8fb0ff !important; stroke: #8fb0ff !important; }
  .axis path, .guides, path.guides.line { stroke: #475264 !important; }
  rect.background { fill: transparent !important; stroke: none !important; }
}
"""


@dataclass(frozen=True)
class Chart:
    """An image, its content in one sentence, and its figures as a table."""

    title: str
    source: str
    sentence: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: bool = False
    links: tuple[str | None, ...] = ()  # of the rows, where their figures lead to a list


def active_students(days: Sequence[Day]) -> Chart:
    return _daily("Active students per day", "active students", days, [day.users for day in days])


def page_views(days: Sequence[Day]) -> Chart:
    return _daily("Page views per day", "page views", days, [day.events for day in days])


def score_histogram(title: str, counts: Sequence[int]) -> Chart:
    """Returns the chart of how many students' latest scores are in each tenth of the scale."""
    labels = [_bucket_label(at) for at in range(BUCKETS)]
    students = sum(counts)
    passed = sum(counts[BUCKETS // 2 :])
    sentence = (
        f"{title}: latest scores of {_count(students, 'student')}; {passed} of them reached half of"
        f" the points or more, and {counts[-1]} reached nine tenths or more."
        if students
        else f"{title}: no student has handed it in yet."
    )
    return Chart(
        title,
        _bars(title, labels, counts, size=NARROW, shape=pygal.HorizontalBar),
        sentence,
        ("Score", "Students"),
        tuple((label, str(count)) for label, count in zip(labels, counts, strict=True)),
    )


def events_by_type(events: Mapping[str, int], links: Sequence[str | None]) -> Chart:
    """Returns the chart of the most frequent types, and all of them as a table."""
    total = sum(events.values())
    drawn = dict(list(events.items())[:TYPES_DRAWN_MAX])
    most = next(iter(events))
    sentence = (
        f"{_events(total)} of {_count(len(events), 'type')}; the most are {most},"
        f" with {events[most]:,}."
    )
    title = "Events by type"
    return Chart(
        title,
        _bars(
            title,
            list(drawn)[::-1],
            list(drawn.values())[::-1],
            size=WIDE,
            shape=pygal.HorizontalBar,
        ),
        sentence,
        ("Type", "Events"),
        tuple((name, f"{count:,}") for name, count in events.items()),
        wide=True,
        links=tuple(links),
    )


def events_by_day(events: Mapping[int, int], links: Sequence[str | None]) -> Chart:
    """Returns the chart of the last days with events, and all days with events as a table.

    `events` are by days since 1970; `links` are of the days, the latest first.
    """
    days = sorted(events, reverse=True)
    last, first = days[0], max(days[-1], days[0] - DAYS_DRAWN_MAX + 1)
    drawn = list(range(first, last + 1))
    top = max(days, key=lambda day: events[day])
    title = "Events by day"
    sentence = (
        f"{_events(sum(events.values()))} on {_count(len(days), 'day')}"
        f" from {_date(days[-1]):%-d %B %Y} to {_date(last):%-d %B %Y};"
        f" the most on {_date(top):%-d %B %Y}, with {events[top]:,}."
    )
    if days[-1] < first:
        sentence += f" The picture shows the last {DAYS_DRAWN_MAX} days, the table all of them."
    return Chart(
        title,
        _bars(
            title,
            [f"{_date(day):%-d %b}" for day in drawn],
            [events.get(day, 0) for day in drawn],
            size=WIDE,
            labels_every=max(1, len(drawn) // 6),
        ),
        sentence,
        ("Day", "Events"),
        tuple((f"{_date(day):%a %-d %b %Y}", f"{events[day]:,}") for day in days),
        wide=True,
        links=tuple(links),
    )


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}"


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)


def _daily(title: str, what: str, days: Sequence[Day], figures: Sequence[int]) -> Chart:
    first, last = days[0].date, days[-1].date
    top = max(range(len(days)), key=lambda at: figures[at])
    lively = [figure for figure in figures if figure]
    if lively:
        mean = sum(lively) / len(lively)
        sentence = (
            f"{title} from {first:%-d %B} to {last:%-d %B %Y}: an average of {mean:,.0f} {what}"
            f" on days with any; the most on {days[top].date:%-d %B} with {figures[top]:,};"
            f" {figures[-1]:,} so far on the last day."
        )
    else:
        sentence = f"{title} from {first:%-d %B} to {last:%-d %B %Y}: none."
    labels = [f"{day.date:%-d %b}" for day in days]
    return Chart(
        title,
        _bars(title, labels, figures, size=WIDE, labels_every=max(1, len(days) // 6)),
        sentence,
        ("Day", what.capitalize()),
        tuple((f"{day.date:%a %-d %b %Y}", f"{n:,}") for day, n in zip(days, figures, strict=True)),
        wide=True,
    )


def _bars(
    title: str,
    labels: Sequence[str],
    figures: Sequence[int],
    *,
    size: tuple[int, int],
    shape: type[Any] = pygal.Bar,
    labels_every: int = 1,
) -> str:
    """Returns a bar chart as a data URI.

    The last bar has a label, and others at equal distances.
    """
    steps = _steps(max(figures, default=0))
    chart = shape(
        style=_STYLE,
        css=["file://style.css", "file://graph.css", "file://base.css", _DARK],
        js=[],
        width=size[0],
        height=size[1],
        explicit_size=True,
        no_prefix=True,
        disable_xml_declaration=True,
        show_legend=False,
        margin=8,
        spacing=12,
        range=(0, steps[-1]),
        include_x_axis=True,
        show_minor_x_labels=labels_every == 1,
        x_labels_major=list(labels[::-1][::labels_every]),
        truncate_label=-1,
        rounded_bars=2,
        print_values=len(figures) <= BARS_WITH_VALUES_MAX,
        print_values_position="top",
        formatter=_padded if shape is pygal.HorizontalBar else _plain,
    )
    chart.x_labels = list(labels)
    chart.y_labels = [{"label": f"{step:,}", "value": step} for step in steps]
    chart.add(title, list(figures))
    chart.add_xml_filter(_without_scripts)
    svg = cast(str, chart.render(is_unicode=True))
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _steps(top: int) -> list[int]:
    """Returns round values from 0 to at least `top`, such as 0, 200, 400 for 374."""
    step = 1
    while step * (STEPS_MAX - 1) < top:
        # The steps are 1, 2, 5, 10, 20, 50 and so on.
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return list(range(0, max(top, 4) + step, step))


def _plain(value: float) -> str:
    return f"{value:,.0f}"


def _padded(value: float) -> str:
    """Formats a value for the end of a horizontal bar, padded since pygal centres it there."""
    figure = _plain(value)
    # Such a space is half as wide as a digit.
    return "\N{NO-BREAK SPACE}" * (2 * len(figure)) + figure


def _without_scripts(root: Any) -> Any:
    """Removes the script with its configuration that pygal writes even if `js` is empty."""
    for parent in root.iter():
        for child in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(child)
    return root


def _bucket_label(at: int) -> str:
    step = 100 // BUCKETS
    top = 100 if at == BUCKETS - 1 else (at + 1) * step - 1
    return f"{at * step}\N{EN DASH}{top} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
