"""Progress of a long test, written to the real stderr past pytest's capture.

    def test_something_long(progress: Progress) -> None:
        for seed in progress(range(100_000), "seeds"):
            ...
            progress.note = f"{events:,} events"   # shown after the count

A terminal gets a progress bar; a file gets a line every `LINE_INTERVAL_S` seconds, without control
characters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, TypeVar

import click
import pytest

LINE_INTERVAL_S = 20.0

T = TypeVar("T")


class Progress:
    """Iterates over steps and shows the progress; `note` may change at each step."""

    def __init__(self, out: TextIO, line_interval_s: float = LINE_INTERVAL_S) -> None:
        self._out = out
        self._line_interval_s = line_interval_s
        self.note = ""

    def __call__(self, steps: Sequence[T], name: str) -> Iterator[T]:
        """Yields each of `steps` and shows how many are done."""
        return self._bar(steps, name) if self._out.isatty() else self._lines(steps, name)

    def _bar(self, steps: Sequence[T], name: str) -> Iterator[T]:
        bar = click.progressbar(
            steps, label=name, file=self._out, show_pos=True, item_show_func=lambda _: self.note
        )
        with bar:
            yield from bar

    def _lines(self, steps: Sequence[T], name: str) -> Iterator[T]:
        began_s = written_s = time.monotonic()
        for done, step in enumerate(steps, start=1):
            yield step
            now_s = time.monotonic()
            if now_s - written_s >= self._line_interval_s or done == len(steps):
                written_s = now_s
                left_s = (now_s - began_s) / done * (len(steps) - done)
                left = f"about {left_s / 60:.1f} minutes left" if done < len(steps) else "done"
                note = f"; {self.note}" if self.note else ""
                click.echo(f"{name}: {done:,} of {len(steps):,}, {left}{note}", file=self._out)


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Iterator[Progress]:
    """Shows the progress of a test, also while pytest captures its output."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        fd = os.dup(2)
    else:
        with capture.global_and_fixture_disabled():
            fd = os.dup(2)
    with open(fd, "w", encoding="utf-8", buffering=1) as out:
        if out.isatty():
            click.echo(file=out)  # off the line of dots
        yield Progress(out)
