"""Reads shared/PROTOCOL.md: its sections, and its tables by the names of their columns."""

from __future__ import annotations

from tests.support.instance import ROOT

FOLDER = ROOT / "shared"
TEXT = (FOLDER / "PROTOCOL.md").read_text(encoding="utf-8")
REPOSITORY = FOLDER.parent
Row = dict[str, str]


def section(heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    _, found, rest = f"\n{TEXT}".partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r}"
    inside, fenced = [], False
    for line in rest.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            break
        inside.append(line)
    return "\n".join(inside)


def tables(heading: str) -> list[list[Row]]:
    """The tables below a heading: rows by the names of their columns."""
    found: list[list[Row]] = []
    names: list[str] | None = None
    for line in section(heading).splitlines():
        if not line.startswith("|"):
            names = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if names is None:
            names = cells
            found.append([])
        elif set("".join(cells)) != {"-"}:
            assert len(cells) == len(names), line
            found[-1].append(dict(zip(names, cells, strict=True)))
    return found


def plain(cell: str) -> str:
    return cell.strip("`")


def number(cell: str) -> int:
    return int(cell.replace(",", ""))
