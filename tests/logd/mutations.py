"""Every way to change a text a little."""

from __future__ import annotations

import random
from collections.abc import Iterator

_CHARACTERS = "\n\r\t\0 +-/=09AZaz—e"


def mutations(text: str, step: int = 1) -> Iterator[str]:
    """Yields the text with one change.

    At every `step`th place a character is replaced, its case or last bit changed, removed, added or
    doubled; each line is removed, doubled or exchanged with the next one; the end is cut off.
    """
    seen = {text}
    for changed in _changed(text, random.Random(step), step):
        if changed not in seen:
            seen.add(changed)
            yield changed


def _changed(text: str, rng: random.Random, step: int) -> Iterator[str]:
    for place in range(rng.randrange(step), len(text), step):
        character = text[place]
        before, after = text[:place], text[place + 1 :]
        yield before + rng.choice(_CHARACTERS) + after
        yield before + chr(ord(character) ^ 1) + after  # also in the last bits of base64
        yield before + character.swapcase() + after
        yield before + after
        yield before + rng.choice(_CHARACTERS) + character + after
        yield before + character + character + after
    lines = text.splitlines(keepends=True)
    for place, line in enumerate(lines):
        yield "".join([*lines[:place], *lines[place + 1 :]])
        yield "".join([*lines[:place], line, *lines[place:]])
        yield "".join([*lines[:place], *reversed(lines[place : place + 2]), *lines[place + 2 :]])
        yield "".join(lines[:place])
    yield text.replace("\n", "\r\n")
    yield text.rstrip("\n")
    yield text + text
