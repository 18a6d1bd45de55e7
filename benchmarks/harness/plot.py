"""Bar charts as SVG, drawn by pygal: no script in them, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pygal
from pygal.style import Style

from benchmarks.harness.table import digits

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
COLOURS = (
    ("#2f5fd0", "#d98324", "#2f8f5b", "#8a5bc7", "#b8434e", "#5b6675", "#1f9aa8", "#a38a1c")
)  # fmt: skip
WIDTH = 900
LEGENDS_MAX = 8  # as many as fit in one row, with short names
# A piece of a stacked bar has text only if it is at least this share of the longest bar.
_TEXT_SHARE_MIN = 0.035
_STYLE = {
    "background": "#ffffff",
    "plot_background": "#ffffff",
    "foreground": "#3c4654",
    "foreground_strong": "#1c2430",
    "foreground_subtle": "#5b6675",
    "opacity": "1",
    "opacity_hover": "1",
    "transition": "0s",
    "font_family": _FONT,
    "label_font_size": 14,
    "major_label_font_size": 14,
    "value_font_size": 13,
    "no_data_font_size": 13,
    "value_label_font_size": 13,
    "legend_font_size": 14,
    "title_font_size": 17,
    "guide_stroke_color": "#c9d1dc",
    "major_guide_stroke_color": "#c9d1dc",
    "guide_stroke_dasharray": "2,4",
    "major_guide_stroke_dasharray": "2,4",
}


@dataclass(frozen=True)
class Bar:
    """One figure: the length of its bar, and the text printed beside it, if any."""

    value: float
    text: str = ""
    colour: str | None = None  # the colour in place of that of the series


@dataclass(frozen=True)
class Series:
    """Bars of one colour, one for each label of the chart."""

    name: str
    bars: Sequence[Bar | None]


def horizontal_bars(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    stacked: bool = False,
    top: float | None = None,
    ticks: Sequence[float] | None = None,
    axis: str = "",
    tick_text: Callable[[float], str] = digits,
    colours: Sequence[str] = COLOURS,
) -> bytes:
    """Draw horizontal bars, the first label at the top; series side by side or stacked."""
    lanes = 1 if stacked else len(series)
    sums = [
        sum(bar.value if bar else 0 for bar in bars)
        for bars in zip(*(one.bars for one in series), strict=True)
    ]
    longest = top or max(sums, default=0)
    shape = pygal.HorizontalStackedBar if stacked else pygal.HorizontalBar
    chart = shape(
        style=Style(
            **_STYLE,
            colors=tuple(colours),
            value_colors=("#ffffff" if stacked else "#1c2430",) * len(series),
        ),
        css=["file://style.css", "file://graph.css", "file://base.css"],
        js=[],
        width=WIDTH,
        height=110 + len(labels) * (18 + 22 * lanes) + (24 if len(series) > 1 else 0),
        explicit_size=True,
        no_prefix=True,
        title=title,
        x_title=axis or None,
        show_legend=len(series) > 1,
        legend_at_bottom=True,
        legend_at_bottom_columns=min(len(series), LEGENDS_MAX),
        legend_box_size=12,
        truncate_label=-1,
        truncate_legend=-1,
        margin=12,
        spacing=10,
        print_values=True,
        print_values_position="center" if stacked else "top",
        range=None if top is None else (0, top),
        include_x_axis=True,
        formatter=digits,
    )
    chart.x_labels = list(labels)[::-1]  # since pygal starts at the bottom
    if ticks is not None:
        chart.y_labels = [{"value": tick, "label": tick_text(tick)} for tick in ticks]
    for one in series:
        bars = [_stacked(bar, longest) if stacked else _beside(bar) for bar in one.bars]
        chart.add(one.name, bars[::-1])
    chart.add_xml_filter(_without_scripts)
    return cast(bytes, chart.render())


def _stacked(bar: Bar | None, longest: float) -> dict[str, Any] | None:
    if bar is None:
        return None
    return _entry(bar, bar.text if bar.value > _TEXT_SHARE_MIN * longest else "")


def _beside(bar: Bar | None) -> dict[str, Any] | None:
    if bar is None:
        return None
    # pygal centres the text at the end of a horizontal bar, so padding moves it beside the bar.
    return _entry(bar, "\N{NO-BREAK SPACE}" * int(len(bar.text) * 1.7 + 2) + bar.text)


def _entry(bar: Bar, text: str) -> dict[str, Any]:
    colour = {} if bar.colour is None else {"color": bar.colour}
    return {"value": bar.value, "formatter": lambda _value: text, **colour}


def _without_scripts(root: Any) -> Any:
    """Remove the script that pygal writes even with `js=[]`."""
    for parent in root.iter():
        for child in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(child)
    return root
