"""What `logd status` shows people: the dict that programs get as JSON, as lines (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from logd import render

NAME_CHARS = 12


def lines(state: Mapping[str, Any]) -> Iterator[str]:
    """The state that `instance.status` found, a line for each figure."""
    for name, value in _figures(state).items():
        yield f"{name:<{NAME_CHARS}} {value}"


def _figures(state: Mapping[str, Any]) -> dict[str, object]:
    pid = state["running_pid"]
    return {
        "daemon": "not running" if pid is None else f"running, pid {pid}",
        "stored": f"{state['stored']:,} events in {state['commits']:,} commits",
        "pending": f"{state['pending']:,} events in {state['outboxes']:,} outboxes",
        "unreadable": f"{state['outboxes_unreadable']:,} outboxes, in no sum",
        "lost": f"{state['lost']:,} events; losses of unknown extent: {state['unknown_extent']:,}",
        "quarantined": f"{state['quarantined']:,}, of them events: {state['quarantined_events']:,}",
        "refused": f"{state['refused_by_clients']:,} events, by their clients",
        "duplicates": f"{state['duplicates_ignored']:,} datagrams ignored",
        "producers": f"{state['producers']:,}",
        "last stored": render.when(state["last_stored_ns"]),
        "schema": state["schema"],
    }
