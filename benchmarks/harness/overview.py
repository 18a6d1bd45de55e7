"""All tables and pictures of a run: RESULTS.md, index.html (no script), the picture of targets."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from benchmarks.harness import plot
from benchmarks.harness.machine import Machine
from benchmarks.harness.part import Part, Plot, figures_table
from benchmarks.harness.targets import MET, Outcome

# The longest bar, in multiples of the limit: longer ones are cut off, and their figure is exact.
_USED_MAX = 2.0
_MISSED_COLOUR = "#b8434e"

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>logd, measured</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ font-size: 0.8rem; line-height: 1.35; overflow-x: auto; }}
img {{ max-width: 100%; height: auto; border-radius: 4px; }}
</style>
<h1>logd, measured</h1>
<pre>{machine}</pre>
{body}
</html>
"""  # noqa: E501 - a line of CSS


def targets_plot(outcomes: Sequence[Outcome]) -> Plot | None:
    """Draw how much of each target's limit is used; None if no target was measured."""
    shown = [one for one in outcomes if one.decides]
    if not shown:
        return None
    svg = plot.horizontal_bars(
        "Targets: how much of each limit is used (less is better)",
        [one.target.what for one in shown],
        [plot.Series("used", [_bar(one) for one in shown])],
        top=_USED_MAX * 1.9,  # leaves room for the texts
        ticks=(0, 0.5, 1, _USED_MAX),
        tick_text=lambda tick: f"{tick:.0%}" + ("+" if tick == _USED_MAX else ""),
    )
    return Plot("targets", svg)


def _bar(outcome: Outcome) -> plot.Bar:
    target, measured = outcome.target, outcome.measured
    assert measured is not None
    limit = f"{target.sign} {target.shown(target.limit)}"
    return plot.Bar(
        min(_USED_MAX, target.used(measured)),
        f"{outcome.verdict}: {target.shown(measured)} ({limit})",
        plot.COLOURS[0] if outcome.verdict == MET else _MISSED_COLOUR,
    )


def page(here: Machine, parts: Sequence[Part], targets: str, plots: Sequence[Plot]) -> str:
    """Return index.html: the targets first, then each part with pictures and tables."""
    sections = [_section("targets", plots, targets)]
    sections += [_section(part.name, part.plots, part.text) for part in parts]
    return _PAGE.format(machine=html.escape(str(here)), body="\n".join(sections))


def markdown(here: Machine, parts: Sequence[Part], targets: str) -> str:
    """Return RESULTS.md: the machine and the commit, the targets, every part's tables."""
    sections = [("Targets", targets)]
    sections += [(part.name, f"{part.text}\n\n{figures_table(part)}") for part in parts]
    body = "\n".join(f"\n## {name}\n\n```\n{text}\n```" for name, text in sections)
    return f"# Results\n\nWritten by `make bench`.\n\n```\n{here}\n```\n{body}\n"


def _section(name: str, plots: Sequence[Plot], text: str) -> str:
    pictures = "\n".join(
        f'<p><img alt="{html.escape(one.name)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(one.svg).decode("ascii")}"></p>'
        for one in plots
    )
    return f"<h2>{html.escape(name)}</h2>\n{pictures}\n<pre>{html.escape(text)}</pre>"
