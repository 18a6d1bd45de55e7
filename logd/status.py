"""What `logd status` shows people: the dict that programs get as JSON, as lines (pure).

Losses are shown by cause, producer, range and time; that there is none is shown too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from logd import render
from logd.figures import Figures
from shared.query import Row

NAME_CHARS = 12


def lines(state: Mapping[str, Any]) -> Iterator[str]:
    """The state that `instance.status` found, a line for each figure."""
    for name, value in _figures(state).items():
        yield _line(name, value)
    yield from _by_cause(state)
    yield from _ledger(state)
    yield from _others(state)


def in_short(figures: Figures, trouble: str | None, since_ns: int) -> str:
    """The state of a running daemon on one line, for the service manager's own status."""
    waiting = f"{_how_many(figures.backlog)} waiting"
    if trouble is not None:
        return f"nothing can be stored since {render.when(since_ns)}: {trouble} ({waiting})"
    return (
        f"{rate(figures.events_per_s_1m)} events/s, {waiting},"
        f" {_how_many(figures.lost)} lost since the start"
    )


def rate(per_s: float) -> str:
    """Events a second, with as many digits as tell something."""
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}" if per_s >= 0.05 else "0"


def loss_line(loss: Row) -> str:
    """An entry of the loss ledger on one line: time, producer, range, how many, cause."""
    last = "?" if loss["last"] is None else f"{loss['last']:,}"
    sequences = f"{loss['first']:,} to {last}"
    producer = render.printable(loss["producer"])
    return (
        f"{render.when(loss['detected_ns'])}  {producer:<22}  {sequences:<21}"
        f"  {_how_many(loss['events']):<16}  {render.printable(loss['cause'])}"
    )


def _line(name: str, value: object) -> str:
    return f"{name:<{NAME_CHARS}} {value}"


def _by_cause(state: Mapping[str, Any]) -> Iterator[str]:
    name = "by cause"
    for cause, totals in state["losses_by_cause"].items():
        if not totals["entries"]:
            continue  # the zero is in "lost", once
        unknown = totals["unknown_extent"]
        plural = "" if unknown == 1 else "es"
        more = f", and {unknown:,} loss{plural} of unknown extent" if unknown else ""
        yield _line(name, f"{render.printable(cause)}: {_how_many(totals['events'])}{more}")
        name = ""


def _ledger(state: Mapping[str, Any]) -> Iterator[str]:
    entries, shown = state["losses_entries"], state["losses"]
    yield _line("ledger", f"{entries:,} entries" + (", the newest first:" if shown else ""))
    for loss in shown:
        yield _line("", loss_line(loss))
    if entries > len(shown):
        yield _line(
            "", f"and {entries - len(shown):,} more: logd losses --config {state['config']}"
        )


def _how_many(events: int | None) -> str:
    return "unknown" if events is None else f"{events:,} event{'' if events == 1 else 's'}"


def _others(state: Mapping[str, Any]) -> Iterator[str]:
    """Who has more outboxes than are read at once, and who sent what is in quarantine."""
    for user in state["outboxes_by_user"]:
        if user["surplus"]:
            yield _line(
                "outboxes",
                f"user {user['uid']} has {user['files']:,}, {user['bytes']:,} bytes:"
                " more than are open at once; the others wait",
            )
    for sender in state["quarantine_senders"]:
        yield _line(
            "quarantined",
            f"of user {sender['uid']}, pid {sender['pid']}: {sender['rows']:,},"
            f" the newest: {render.printable(sender['newest_reason'])}",
        )


def _figures(state: Mapping[str, Any]) -> dict[str, object]:
    pid, trouble = state["running_pid"], state["trouble"]
    figures = {}
    if trouble:  # first, so that nobody overlooks it
        began = render.when(trouble["since_ns"])
        figures["trouble"] = f"{'since' if pid else 'ended'} {began}: {trouble['what']}"
    return figures | {
        "daemon": "not running" if pid is None else f"running, pid {pid}",
        "stored": f"{state['stored']:,} events in {state['commits']:,} commits",
        "pending": f"{state['pending']:,} events in {state['outboxes']:,} outboxes",
        "outboxes": f"{state['outboxes_bytes']:,} bytes of memory,"
        f" of {len(state['outboxes_by_user'])} users",
        "unreadable": f"{state['outboxes_unreadable']:,} outboxes, in no sum",
        "lost": f"{state['lost']:,} events; losses of unknown extent: {state['unknown_extent']:,}",
        "quarantined": f"{state['quarantined']:,}, of them events: {state['quarantined_events']:,}",
        "refused": f"{state['refused_by_clients']:,} events, by their clients",
        "duplicates": f"{state['duplicates_ignored']:,} datagrams ignored",
        "producers": f"{state['producers']:,}",
        "last stored": render.when(state["last_stored_ns"]),
        "schema": state["schema"],
    }
