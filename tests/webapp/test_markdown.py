"""Lessons cannot carry scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.classroom.present.markdown import render, render_inline


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt:alert(1))",
        "[a](vbscript:x)",
        "[a](data:text/html;base64,PHNjcmlwdD4=)",
        "![a](javascript:alert(1))",
        '[a](/x "\\" onclick=alert(1)")',
        "<javascript:alert(1)>",
    ],
)
def test_scripts_are_not_rendered(text: str) -> None:
    for out in (render(text), render_inline(text)):
        lowered = out.lower()
        assert "<script" not in lowered
        assert "<img src=x" not in lowered
        assert 'href="javascript' not in lowered
        assert 'href="vbscript' not in lowered
        assert 'href="data:' not in lowered
        assert 'src="javascript' not in lowered
        assert '" onclick' not in lowered


@given(st.text(max_size=200))
def test_typed_tags_are_shown_as_text(text: str) -> None:
    assert "<b" not in render(f"<b onclick=x>{text}").replace("<blockquote", "").replace("<br", "")


def test_tables_code_and_emphasis_are_rendered() -> None:
    out = render("| a | b |\n|---|---|\n| `x` | *y* |")
    assert "<table>" in out
    assert "<code>x</code>" in out
    assert "<em>y</em>" in out


def test_one_line_has_no_paragraph() -> None:
    assert render_inline("What is `x`?") == "What is <code>x</code>?"
