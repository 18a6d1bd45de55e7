"""Which hypothesis fits the earlier investigation's figures: the arithmetic of `bench-cause`.

The notes have an average of an event, encrypted, in production; nothing about the key, about other
connections or about the machine. So both hypotheses are held against them, each with the file open
elsewhere and not, and what each would need of that machine is computed from what is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from benchmarks.cause.phases import Cell
from benchmarks.harness.table import digits

SLOW_FLUSH_MS = 80

# The notes' figures, in milliseconds.
DEVELOPMENT_MS = 10.0  # unencrypted, DELETE + FULL
BEFORE_MS = 83.86  # encrypted, in production, DELETE + FULL
AFTER_MS = 85.81  # the same with WAL + NORMAL
QUEUE_MS = 0.02  # the call once there was a queue
# A ratio of two medians within so much of the notes' own is taken for the same.
TOLERANCE = 0.25


class Medians(Protocol):
    """A measured cell, as far as it is needed here."""

    @property
    def totals_ns(self) -> Sequence[int]: ...

    @property
    def total_ns(self) -> float: ...

    @property
    def phases_ns(self) -> Mapping[str, float]: ...

    @property
    def open_cpu_ns(self) -> float: ...

    @property
    def flushes(self) -> int | None: ...


Rows = Mapping[Cell, Medians]


@dataclass(frozen=True)
class Hypothesis:
    """A cause, and in which cells it would have been at work before and after the change."""

    cause: str
    flush_ms: int
    cipher: str
    elsewhere: bool

    def after_over_before(self, rows: Rows) -> float | None:
        """What the change to WAL + NORMAL does under it, measured here; None if it was not."""
        before = rows.get(Cell(self.flush_ms, self.cipher, "delete"))
        after = rows.get(Cell(self.flush_ms, self.cipher, "wal", self.elsewhere))
        if not (before and after):
            return None
        # Round by round: what else the machine does meets both.
        return median(a / b for a, b in zip(after.totals_ns, before.totals_ns, strict=True))


HYPOTHESES = tuple(
    Hypothesis(cause, flush_ms, cipher, elsewhere)
    for cause, flush_ms, cipher in (
        ("a slow disk", SLOW_FLUSH_MS, "raw"),
        ("a key derived at every open", 0, "passphrase"),
        ("both", SLOW_FLUSH_MS, "passphrase"),
    )
    for elsewhere in (False, True)
)


def fits(ratio: float) -> bool:
    """Whether the notes' own ratio is about this one."""
    return abs(ratio / (AFTER_MS / BEFORE_MS) - 1) <= TOLERANCE


def verdict(rows: Rows) -> list[str]:
    """Paragraphs: what the cells show, and what follows for the notes' figures."""
    return [
        text
        for text in (
            _cells(rows),
            _change(rows),
            _disk(rows),
            _key(rows),
            _conclusion(rows),
            _open_questions(),
        )
        if text
    ]


def _ms(ns: float) -> str:
    return f"{digits(ns / 1e6)} ms"


def _cells(rows: Rows) -> str:
    """The decomposition in a sentence or two."""
    key, raw = rows[Cell(0, "passphrase", "delete")], rows[Cell(0, "raw", "delete")]
    text = (
        f"Medians. On the disk as it is, an event with a passphrase takes {_ms(key.total_ns)}, of"
        f" which {_ms(key.phases_ns['open'])}"
        f" ({key.phases_ns['open'] / key.total_ns:.0%}) is opening the file; with a raw key it"
        f" takes {_ms(raw.total_ns)}, of which opening is {_ms(raw.phases_ns['open'])}."
    )
    slow = [rows.get(Cell(SLOW_FLUSH_MS, cipher, "delete")) for cipher in ("passphrase", "raw")]
    if slow[0] and slow[1]:
        text += (
            f" With {SLOW_FLUSH_MS} ms more a flush these are {_ms(slow[0].total_ns)} and"
            f" {_ms(slow[1].total_ns)}, and opening {_ms(slow[0].phases_ns['open'])} and"
            f" {_ms(slow[1].phases_ns['open'])}: the disk lengthens the commit, the passphrase the"
            " opening, and neither the other."
        )
    counts = [
        rows[Cell(0, "raw", journal, elsewhere)].flushes
        for journal, elsewhere in (("delete", False), ("wal", False), ("wal", True))
    ]
    if None not in counts:
        text += (
            f" An event makes {counts[0]} flushes with DELETE + FULL, {counts[1]} with WAL + NORMAL"
            f" when nobody else has the file open, and {counts[2]} when somebody has: the last"
            " connection that closes moves the log into the file, and flushes both."
        )
    return text


def _change(rows: Rows) -> str:
    """What the change to WAL + NORMAL rules out."""
    found = []
    for one in HYPOTHESES:
        ratio = one.after_over_before(rows)
        if ratio is not None:
            where = "file open elsewhere" if one.elsewhere else "nobody else has the file open"
            found.append(
                (one.cause, where, digits(ratio), "fits" if fits(ratio) else "does not fit")
            )
    said = "; ".join(f"{cause}, {where}: {ratio} ({so})" for cause, where, ratio, so in found)
    return (
        f"The change to WAL + NORMAL. In the notes it made {BEFORE_MS} ms into {AFTER_MS} ms, a"
        f" ratio of {AFTER_MS / BEFORE_MS:.2f}. Here it is, for {said}. So that it changed nothing"
        " does not by itself tell the two apart: it rules out a slow disk only where another"
        " connection had the file open, since then no flush was left to wait for."
    )


def _disk(rows: Rows) -> str:
    """What a slow disk alone would need."""
    raw = rows[Cell(0, "raw", "delete")]
    if not raw.flushes:
        return ""
    without_ms = (raw.phases_ns["open"] + raw.phases_ns["insert"]) / 1e6
    flush_ms = (BEFORE_MS - without_ms) / raw.flushes
    development_ms = DEVELOPMENT_MS / raw.flushes
    return (
        f"If it was the disk alone: ({BEFORE_MS} - {digits(without_ms)}) ms in {raw.flushes}"
        f" flushes are {digits(flush_ms)} ms each. The development machine's"
        f" {digits(DEVELOPMENT_MS)} ms, unencrypted, are at most {digits(development_ms)} ms a"
        f" flush, so the production disk would be {digits(flush_ms / development_ms)} times slower."
        " Possible; the key must then have been raw, and every connection have closed as the"
        " file's last."
    )


def _key(rows: Rows) -> str:
    """What a derivation at every open would need, in processor time: what else ran here, and is
    not known of that machine, is not in it."""
    key, raw = rows[Cell(0, "passphrase", "delete")], rows[Cell(0, "raw", "delete")]
    here_ms = (key.open_cpu_ns - raw.open_cpu_ns) / 1e6
    there_ms = BEFORE_MS - DEVELOPMENT_MS
    text = (
        f"If a key was derived at every open: that takes {digits(here_ms)} ms of processor time"
        " here, whatever the journal and the disk. With all of the development machine's"
        f" {digits(DEVELOPMENT_MS)} ms for the rest, {BEFORE_MS} ms leave {digits(there_ms)} ms for"
        f" it, {digits(there_ms / here_ms)} of what it takes here: possible with an ordinary disk."
    )
    if not raw.flushes:
        return text
    left_ms = BEFORE_MS - here_ms
    if left_ms <= 0:
        return text + (
            " On a processor like this one the derivation alone takes longer than all that was"
            " measured there, and nothing is left for a disk: if a key was derived for each event,"
            " a slow disk is not needed, and hardly possible beside it."
        )
    return text + (
        f" On a processor like this one {digits(left_ms / raw.flushes)} ms a flush are left for the"
        " disk."
    )


def _conclusion(rows: Rows) -> str:
    """Which cause fits on what condition."""
    where: dict[str, list[bool]] = {}  # first with nobody else, as HYPOTHESES are
    for one in HYPOTHESES:
        ratio = one.after_over_before(rows)
        if ratio is not None:
            where.setdefault(one.cause, []).append(fits(ratio))
    conditions = {
        (True, True): "whoever else has the file open",
        (True, False): "only if nobody else ever had the file open",
        (False, True): "only if somebody else had the file open all the time",
        (False, False): "in neither setting",
    }
    said = [
        f"{cause} is consistent with what the change did {conditions[settings[0], settings[1]]}"
        for cause, settings in where.items()
    ]
    text = f"So: {'; '.join(said)}."
    always = [cause for cause, settings in where.items() if all(settings)]
    if len(always) == 1:
        text += (
            f" The one that needs no condition is {always[0]}. That the disk was the cause does not"
            " follow from the notes' figures; nor do they refute it."
        )
    return text


def _open_questions() -> str:
    """What nobody can know from here."""
    return (
        f"The queue's {QUEUE_MS} ms fit both: whatever the wait was, it moved to a thread. What"
        " cannot be known from here: whether production opened with a passphrase or a raw key, for"
        " each event or once, who else had the file open, and how fast its processor and disk were."
        " Two measurements there decide: the time to open the file and read one row, and the time"
        " of one commit over a connection that stays open."
    )
