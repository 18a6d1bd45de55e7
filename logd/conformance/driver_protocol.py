"""Encodes commands to a driver and decodes its answers, each one line of words. Pure.

shared/PROTOCOL.md, "Conformance", has the table for authors of drivers.
"""

from __future__ import annotations

from logd.conformance.verdicts import Failed

PAGE = "Conformance"
UNSUPPORTED = "unsupported"
ANSWER_CHARS_MAX = 200_000
_SHOWN_CHARS_MAX = 100

# The answers that a driver may give to each command;
# "hex" stands for bytes, "counts" for three numbers.
ANSWERS: dict[str, tuple[str, ...]] = {
    "open": ("ok",),
    "emit": ("accepted", "refused"),
    "event": ("accepted", "refused"),
    "durable": ("stored", "refused", "unknown"),
    "outbox": ("yes", "no"),
    "stats": ("counts",),
    "flush": ("yes", "no"),
    "fork": ("accepted", "refused", "ok"),
    "closefds": ("ok",),
    "close": ("ok",),
    "payload": ("hex", "refused"),
    "record": ("hex",),
    "datagram": ("hex",),
}


def hexadecimal(data: bytes | None) -> str:
    """Encodes bytes as a word of hexadecimal: `-` for nil, `.` for no bytes."""
    return "-" if data is None else data.hex() or "."


def parse(command: str, line: str) -> str:
    """Returns an answer after checking it for its command. Raises Failed if it is not valid."""
    name, answer = command.split(" ", 1)[0], line.strip()
    if answer == UNSUPPORTED:
        return answer
    if answer.startswith("error"):
        raise Failed(f"the driver answered `{shown(answer)}` to `{shown(command)}`", PAGE)
    for allowed in ANSWERS[name]:
        if answer == allowed or (allowed == "hex" and parse_hex(answer) is not None):
            return answer
        if allowed == "counts" and parse_counts(answer) is not None:
            return answer
    expected = ", ".join(f"`{word}`" for word in (*ANSWERS[name], UNSUPPORTED))
    raise Failed(
        f"the driver answered `{shown(answer)}` to `{shown(command)}`; expected {expected}", PAGE
    )


def parse_hex(answer: str) -> bytes | None:
    """Returns the bytes of a hexadecimal answer; None if the answer is not hexadecimal."""
    if answer == ".":
        return b""
    try:
        return bytes.fromhex(answer) if answer and " " not in answer else None
    except ValueError:
        return None


def parse_counts(answer: str) -> tuple[int, int, int] | None:
    """Returns the counts in an answer to `stats`: attempted, accepted, refused; None if invalid."""
    words = answer.split()
    if len(words) != 3 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    attempted, accepted, refused = map(int, words)
    return attempted, accepted, refused


def shown(text: str) -> str:
    """Returns a line, shortened to the length that messages show."""
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 3] + "..."
