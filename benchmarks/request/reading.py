"""What the figures of `bench-request` say, in words; every number in it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.harness.earlier import CIPHER_LABELS, CIPHERS
from benchmarks.harness.table import digits, duration, times
from benchmarks.request import access_log
from benchmarks.request.modes import QUIZ_EVERY
from benchmarks.request.one_way import Measured
from benchmarks.request.throughput import Throughput

SLOW_FLUSH_MS = 80
DISKS = {0: "as it is", SLOW_FLUSH_MS: f"+{SLOW_FLUSH_MS} ms"}

Rows = Mapping[str, Measured]


def reading(by_disk: Mapping[int, Rows], compared: Sequence[Throughput]) -> list[str]:
    """Paragraphs about what was measured; rows that were left out are not spoken of."""
    fast, slow = by_disk[0], by_disk.get(SLOW_FLUSH_MS, {})
    paragraphs = [
        ["Medians of the call, and ratios of medians.", *_synchronous(fast, slow)],
        _elsewhere(fast),
        _logd(fast, slow),
        _killed(by_disk),
        [_compared(one) for one in compared],
    ]
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def _p50(row: Measured) -> str:
    return duration(row.call(0.5))


def _ratio(row: Measured, to: Measured) -> str:
    return times(row.call(0.5) / to.call(0.5))


def _synchronous(fast: Rows, slow: Rows) -> list[str]:
    """The write in the request: what of it is the key, what the connection, what the disk."""
    said = []
    new = [fast.get(f"sync-new-{cipher}-delete") for cipher in CIPHERS]
    if all(new):
        costs = ", ".join(
            f"{_p50(row)} {CIPHER_LABELS[cipher]}"
            for cipher, row in zip(CIPHERS, new, strict=True)
            if row is not None
        )
        said.append(
            "Written in the request over a new connection, with DELETE + FULL, an event costs"
            f" {costs}."
        )
    for rows, disk in (
        (fast, "on the disk as it is"),
        (slow, f"with {SLOW_FLUSH_MS} ms more a flush"),
    ):
        said += _passphrase(rows, disk)
    return said


def _passphrase(rows: Rows, disk: str) -> list[str]:
    names = ("sync-new-passphrase-delete", "sync-new-passphrase-wal", "sync-kept-passphrase-wal")
    if not all(name in rows for name in names):
        return []
    delete, wal, kept = (rows[name] for name in names)
    return [
        f"With the passphrase, {disk}, WAL + NORMAL takes {_p50(wal)}, {_ratio(wal, delete)}"
        f" the {_p50(delete)} of DELETE + FULL; over a kept connection {_p50(kept)}."
    ]


def _elsewhere(rows: Rows) -> list[str]:
    """The ways that leave the writing to somebody else."""
    if "logd" not in rows:
        return []
    said = []
    for name, what in (
        ("queue-new", "the queue whose thread opens a connection for each transaction"),
        ("queue-kept", "the queue whose thread keeps its connection"),
        ("process", "the queue to a child process"),
        ("jsonl", "a line in a file"),
    ):
        if name in rows:
            row = rows[name]
            refused, attempted = row.sums.refused, row.sums.attempted
            more = f" and refused {refused:,} of {attempted:,} events" if refused else ""
            said.append(f"{what} takes {_p50(row)}{more}")
    if not said:
        return []
    text = f"Of the ways that leave the writing to somebody else, {'; '.join(said)}."
    if "nginx" in rows and "nginx-none" in rows:
        text += (
            " The access log costs the web process nothing:"
            f" {digits(rows['nginx'].per_s)} requests/s with it,"
            f" {digits(rows['nginx-none'].per_s)} behind the same server without. Of an event's"
            f" fields it knows {_fields(access_log.KNOWN)}. It cannot know"
            f" {_fields(access_log.UNKNOWN)}."
        )
    return [text]


def _fields(fields: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({note})" if note else name for name, note in fields.items())


def _logd(fast: Rows, slow: Rows) -> list[str]:
    if "logd" not in fast:
        return []
    row = fast["logd"]
    said = []
    for name, what in (
        ("sync-new-passphrase-delete", "the write in the request with a passphrase"),
        ("queue-kept", "the queue with a kept connection"),
        ("jsonl", "a line in a file"),
    ):
        if name in fast:
            other = fast[name]
            is_less = other.call(0.5) > row.call(0.5)
            ratio = _ratio(other, row) if is_less else _ratio(row, other)
            said.append(f"{ratio} {'less than' if is_less else 'that of'} {what}")
    text = f"logd takes {_p50(row)} a call" + (f": {', '.join(said)}." if said else ".")
    if "logd" in slow:
        text += f" With slow flushes it takes {_p50(slow['logd'])}."
    sentences = [text]
    for rows, disk in ((fast, ""), (slow, " with slow flushes")):
        if "logd-durable" in rows:
            sentences.append(
                f"To wait until the event is on the disk takes {_p50(rows['logd-durable'])}{disk}."
            )
        if "logd-selective" in rows:
            some = rows["logd-selective"]
            sentences.append(
                f"When one page in {QUIZ_EVERY} waits and the others do not, p50 is {_p50(some)}"
                f" and p99 {duration(some.call(0.99))}{disk}."
            )
    return sentences


def _killed(by_disk: Mapping[int, Rows]) -> list[str]:
    """What the kill took, which the other ways did not lose."""
    lost = [
        f'{row.sums.lost:,} of {row.sums.accepted:,} of "{row.label}"'
        f"{' with slow flushes' if flush_ms else ''}"
        for flush_ms, rows in by_disk.items()
        for row in rows.values()
        if row.sums.lost
    ]
    if not lost:
        return ["The kill took no accepted event."]
    return [f"The kill took these accepted events, and no others: {', '.join(lost)}."]


def _compared(one: Throughput) -> str:
    low, high = one.middle_half
    return (
        f"Requests/s with logging by logd, over those without, for {one.label}: {one.ratio:.3f},"
        f" the median of {len(one.ratios)} rounds in turns (half of them between {low:.3f} and"
        f" {high:.3f}). A page takes {duration(one.without_cpu_ns)} of the web processes' time"
        f" without logging and {duration(one.with_cpu_ns)} with it, and {duration(one.logd_cpu_ns)}"
        f" of logd's, on the same cores: {times(one.cpu_ratio)} the processor time. What else runs"
        " here disturbs that ratio less than the one of requests/s."
    )
