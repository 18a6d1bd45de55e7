"""Plain text for people: tables, durations, paragraphs; and quantiles."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

WIDTH = 100


def quantile(values: Sequence[int], share: float) -> int:
    """Return the nearest-rank quantile, a measured value. Raises ValueError without values."""
    if not values:
        raise ValueError("no values, no quantile")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def duration(ns: float) -> str:
    """Format nanoseconds with three significant digits: 840 ns, 3.21 us, 84 ms, 1.50 s."""
    for unit, size in (("ns", 1), ("us", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size:
            return f"{digits(ns / size)} {unit}"
    return f"{ns / 1e9:.2f} s"


def digits(value: float) -> str:
    """Format a number with about three significant digits, at most two after the point."""
    if value == int(value) or value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def render(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table; the first `left` columns are left-aligned, the others right-aligned.

    Heads may have several lines. Raises ValueError for a row that is not as long as the head.
    """
    columns = len(head)
    if any(len(row) != columns for row in rows):
        raise ValueError(f"a row does not have {columns} columns, as the head has")
    heads = [column.split("\n") for column in head]
    depth = max(map(len, heads))
    padded = [[""] * (depth - len(lines)) + lines for lines in heads]
    lines = [[column[level] for column in padded] for level in range(depth)]
    widths = [max(len(row[i]) for row in [*lines, *rows]) for i in range(columns)]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*map(line, lines), rule, *map(line, rows)])


def paragraph(text: str) -> str:
    """Wrap text for a terminal."""
    return textwrap.fill(" ".join(text.split()), WIDTH)
