"""What the figures of `benchmarks.request` say, in words; every number in it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from benchmarks.sums import Sums
from benchmarks.table import duration, times


class Figures(Protocol):
    """A measured way, as far as it is read here."""

    @property
    def sums(self) -> Sums: ...

    @property
    def notes(self) -> Mapping[str, float]: ...

    def call(self, share: float) -> int: ...

    def request(self, share: float) -> int: ...


def reading(rows: Mapping[str, Figures]) -> str:
    """A paragraph about the ways that were measured; rows that were left out are not spoken of."""
    sentences: list[str] = []
    for part in (_synchronous, _queue, _logd, _durable, _request):
        sentences += part(rows)
    return " ".join(["Medians, and ratios of medians.", *sentences])


def _have(rows: Mapping[str, Any], *names: str) -> bool:
    return all(name in rows for name in names)


def _synchronous(rows: Mapping[str, Figures]) -> list[str]:
    if not _have(rows, "sync-delete", "sync-wal"):
        return []
    delete, wal = rows["sync-delete"], rows["sync-wal"]
    said = [
        f"Written in the request, an event costs {duration(delete.call(0.5))} with DELETE + FULL"
        f" and {duration(wal.call(0.5))} with WAL + NORMAL ({_ratio(wal, delete)} of it)"
    ]
    names = ["sync-delete", "sync-wal"]
    if "sync-wal-open" in rows:
        elsewhere = rows["sync-wal-open"]
        said[0] += (
            f", or {duration(elsewhere.call(0.5))} ({_ratio(elsewhere, delete)}) when another"
            " connection keeps the file open, so that closing this one flushes nothing"
        )
        names.append("sync-wal-open")
    shares = ", ".join(f"{rows[name].notes['opening_share']:.0%}" for name in names)
    said.append(
        f"of the time of these calls {shares} passes before the INSERT, while the connection is"
        " opened and the passphrase becomes a key"
    )
    return ["; ".join(said) + "."]


def _ratio(row: Figures, to: Figures) -> str:
    return f"{row.call(0.5) / to.call(0.5):.2f}"


def _queue(rows: Mapping[str, Figures]) -> list[str]:
    said = []
    for name, how in (("queue", "opens a connection for each transaction"), ("queue-kept", "")):
        if not _have(rows, name):
            continue
        row = rows[name]
        how = how or "keeps its connection"
        refused = row.sums.refused / row.sums.attempted
        text = f"The queue whose thread {how} takes {duration(row.call(0.5))} a call"
        said.append(text + (f", and refused {refused:.0%} of the events." if refused else "."))
    return said


def _logd(rows: Mapping[str, Figures]) -> list[str]:
    if not _have(rows, "logd"):
        return []
    call = rows["logd"].call(0.5)
    compared = [
        (f"{times(rows[name].call(0.5) / call)} less than {what}")
        if rows[name].call(0.5) > call
        else f"{times(call / rows[name].call(0.5))} that of {what}"
        for name, what in (
            ("sync-delete", "the write in the request"),
            ("queue-kept", "the queue with a kept connection"),
        )
        if name in rows
    ]
    return [f"logd takes {duration(call)} a call" + _listed(compared) + "."]


def _listed(parts: Sequence[str]) -> str:
    return ": " + ", and ".join(parts) if parts else ""


def _durable(rows: Mapping[str, Figures]) -> list[str]:
    if not _have(rows, "logd-durable"):
        return []
    call = rows["logd-durable"].call(0.5)
    return [f"To wait until the event is on the disk (durable=True) takes {duration(call)}."]


def _request(rows: Mapping[str, Figures]) -> list[str]:
    if not _have(rows, "none", "logd"):
        return []
    ratio = rows["logd"].request(0.5) / rows["none"].request(0.5)
    return [f"A whole request takes {ratio:.2f} times as long with logd as without logging."]
