"""Plain text for people: tables, durations, paragraphs; and the quantiles that go into them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

WIDTH = 100


def quantile(values: Sequence[int], share: float) -> int:
    """The nearest-rank quantile: a value that was measured. Raises ValueError for none."""
    if not values:
        raise ValueError("no values, no quantile")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def duration(ns: float) -> str:
    """Nanoseconds with three digits that count: 840 ns, 3.21 us, 84.0 ms, 1.50 s."""
    for unit, size in (("ns", 1), ("us", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size:
            return f"{digits(ns / size)} {unit}"
    return f"{ns / 1e9:.2f} s"


def digits(value: float) -> str:
    """A number with about three digits that count, and no more than two behind the point."""
    if value == int(value) or value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def render(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table: the first `left` columns to the left, the others to the right.

    Heads may have two lines. Raises ValueError for a row of another length than the head's.
    """
    columns = len(head)
    if any(len(row) != columns for row in rows):
        raise ValueError(f"a row does not have the head's {columns} columns")
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
    """Text wrapped for a terminal."""
    return textwrap.fill(" ".join(text.split()), WIDTH)
