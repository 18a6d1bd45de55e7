"""Renders the lessons' Markdown to HTML that is safe in a page."""

from __future__ import annotations

from functools import lru_cache

from markdown_it import MarkdownIt
from markupsafe import Markup

# CommonMark with tables. Raw HTML is shown as text, and markdown-it drops links with a scheme that
# could run (`javascript:`, `data:` other than pictures), so a lesson cannot carry a script.
_RENDERER = MarkdownIt("commonmark", {"html": False}).enable("table")


@lru_cache(maxsize=512)
def render(text: str) -> Markup:
    """Renders a block of Markdown; cached, since texts are few and change rarely."""
    return Markup(_RENDERER.render(text))  # noqa: S704 - html is off, see above


@lru_cache(maxsize=2048)
def render_inline(text: str) -> Markup:
    """Renders one line of Markdown without a paragraph, for a question or an option."""
    return Markup(_RENDERER.renderInline(text))  # noqa: S704 - html is off, see above
