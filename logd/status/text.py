"""Formats the status as the lines that `logd status` prints (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from logd import render
from logd.batch import LOST_CLAIMED
from logd.runtime_stats import COMMIT_BOUNDS_S, RuntimeStats, within_s
from logd.storage.last_verification import NOT_PROVEN, WHOLE
from logd_wire.query import Row

NAME_CHARS = 12
READERS_SHOWN_MAX = 5
# A daemon without new statistics for this many seconds is reported:
# it publishes them once a second, or once per scan of the outboxes if that is less often.
SILENT_S = 90.0
# Parts proven longer than this before the last run
# were proven by earlier runs; a full run takes less.
FULL_RUN_NS = 12 * 3600 * 10**9


def status_lines(state: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each figure in the status that `collect_status` returned."""
    yield from _runtime_files(state)
    for name, value in _figures(state).items():
        yield _line(name, value)
    yield from _by_cause(state)
    yield from _ledger(state)
    yield from _others(state)
    yield from _readers(state)


def status_line(figures: RuntimeStats, trouble: str | None, since_ns: int) -> str:
    """Returns the status of a running daemon on one line, for the service manager."""
    waiting = f"{_how_many(figures.backlog)} waiting"
    if trouble is not None:
        return f"nothing can be stored since {render.format_time(since_ns)}: {trouble} ({waiting})"
    return (
        f"{format_rate(figures.events_per_s_1m)} events/s, {waiting},"
        f" {_how_many(figures.lost)} lost since the start"
    )


def format_rate(per_s: float) -> str:
    """Formats events per second, with significant digits only."""
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}" if per_s >= 0.05 else "0"


def loss_line(loss: Row) -> str:
    """Formats an entry of the loss ledger as a line: time, producer, range, count, cause."""
    last = "?" if loss["last"] is None else f"{loss['last']:,}"
    sequences = f"{loss['first']:,} to {last}"
    producer = render.printable(loss["producer"])
    return (
        f"{render.format_time(loss['detected_ns'])}  {producer:<22}  {sequences:<21}"
        f"  {_how_many(loss['events']):<16}  {render.printable(loss['cause'])}"
    )


def _line(name: str, value: object) -> str:
    return f"{name:<{NAME_CHARS}} {value}"


def _runtime_files(state: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines for files of the daemon that are missing, wrong, or were restored."""
    for file in state["runtime_files"]:
        where = f"{file['name']}, {render.printable(file['path'])}"
        if file["problem"]:
            since = render.format_time(file["since_ns"])
            problem = render.printable(file["problem"])
            yield _line("missing", f"since {since}: {where}: {problem}. {file['remedy']}")
        if file["restored"]:
            last = _moment(file["restored_ns"], state["at_ns"])
            yield _line("put back", f"{where}: {_of(file['restored'], 'time')}, the last {last}")


def _readers(state: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each user whose reports took most of the report process's time."""
    for reader in state["readers"][:READERS_SHOWN_MAX]:
        yield _line(
            "reports",
            f"user {reader['uid']} sent {_of(reader['questions'], 'request')}, which took"
            f" {reader['running_s']:,.1f} s; deferred {reader['put_off']:,}; closed"
            f" {_of(reader['let_go'], 'connection')} that sent nothing or did not read the answer",
        )


def _by_cause(state: Mapping[str, Any]) -> Iterator[str]:
    name = "by cause"
    for cause, totals in state["losses_by_cause"].items():
        if not totals["entries"] or cause == LOST_CLAIMED:
            continue  # the line "lost" shows zero; claims are shown by user
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


def _of(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"


def _others(state: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines by user: too many outboxes, waiting events, claims, refusals, ignored input."""
    for user in state["outboxes_by_user"]:
        if user["surplus"]:
            yield _line(
                "outboxes",
                f"user {user['uid']} has {user['files']:,}, {user['bytes']:,} bytes:"
                " more than can be open at once; the rest wait",
            )
    waiting = [user for user in state["outboxes_by_user"] if user["pending"]]
    for user in waiting if len(waiting) > 1 else ():
        yield _line("pending", f"of user {user['uid']}: {_how_many(user['pending'])}")
    for user in state["losses_by_user"]:
        if user["claimed"] or user["claimed_unknown_extent"]:
            yield _line(
                "claimed",
                f"of user {user['uid']}: {_how_many(user['claimed'])}; of unknown extent:"
                f" {user['claimed_unknown_extent']:,}",
            )
    for sender in state["quarantine_senders"]:
        yield _line(
            "quarantined",
            f"of user {sender['uid']}, pid {sender['pid']}: {sender['rows']:,},"
            f" the newest: {render.printable(sender['newest_reason'])}",
        )
    for sender in state["duplicate_senders"]:
        pid = "" if sender["pid"] is None else f", pid {sender['pid']}"
        yield _line("ignored", f"of user {sender['uid']}{pid}: {_ignored(sender)}")


def _ignored(sender: Mapping[str, Any]) -> str:
    counts = (
        (sender["duplicates"], "duplicate"),
        (sender["early"], "early record"),
        (sender["farewells"], "farewell"),
        (sender["skipped"], "skipped datagram"),
        (sender["closings"], "closed file"),
    )
    return ", ".join(_of(count, what) for count, what in counts if count)


def _figures(state: Mapping[str, Any]) -> dict[str, object]:
    pid, trouble = state["running_pid"], state["trouble"]
    figures: dict[str, object] = {}
    if trouble:  # shown first, so that it is not overlooked
        began = render.format_time(trouble["since_ns"])
        figures["trouble"] = f"{'since' if pid else 'ended'} {began}: {trouble['what']}"
    figures["daemon"] = _daemon(state)
    if pid is not None and state["figures"]:
        figures["rate"] = _rates(state["figures"])
        figures["commits"] = _commits(state["figures"])
    return figures | {
        "stored": f"{state['stored']:,} events in {state['commits']:,} commits",
        "removed": f"{state['pruned']:,} pruned, {state['erased']:,} erased, of the events stored",
        "last stored": _moment(state["last_stored_ns"], state["at_ns"]),
        "pending": f"{_how_many(state['pending'])} in {_of(state['outboxes'], 'outbox', 'es')}",
        "outboxes": f"{format_size(state['outboxes_bytes'])} of memory,"
        f" of {_of(len(state['outboxes_by_user']), 'user')}{_room(state)}",
        "unreadable": f"{_of(state['outboxes_unreadable'], 'outbox', 'es')}, not counted",
        "lost": f"{state['lost']:,} events; losses of unknown extent: {state['unknown_extent']:,}",
        "claimed": f"{state['lost_claimed']:,} more events, reported by outboxes alone; of unknown"
        f" extent: {state['unknown_extent_claimed']:,}",
        "quarantined": f"{state['quarantined']:,},"
        f" including {_how_many(state['quarantined_events'])}",
        "refused": f"{state['refused_by_clients']:,} events, refused by the clients",
        "duplicates": f"{state['duplicates_ignored']:,} datagrams ignored",
        "producers": f"{state['producers']:,}",
        "disk": _disk(state["disk"]),
        "growth": _growth(state["disk"]),
        "integrity": _integrity(state["integrity"], state["at_ns"]),
        **{run["task"]: _run(run, state["at_ns"]) for run in state["maintenance"]},
        "schema": state["schema"],
    }


def _daemon(state: Mapping[str, Any]) -> str:
    pid, figures, now_ns = state["running_pid"], state["figures"], state["at_ns"]
    if pid is None:
        last = f", last seen {_moment(figures['at_ns'], now_ns)}" if figures else ""
        return f"not running{last}"
    if not figures or figures["started_ns"] > now_ns:
        return f"running, pid {pid}"
    silent_s = (now_ns - figures["at_ns"]) / 1e9
    if silent_s > SILENT_S:
        silent = format_duration(silent_s)
        return f"running, pid {pid}, but without a report for {silent}: check the disk"
    return f"running, pid {pid}, for {format_duration((now_ns - figures['started_ns']) / 1e9)}"


def _rates(figures: Mapping[str, Any]) -> str:
    return (
        f"{format_rate(figures['events_per_s_1m'])} events/s over 1 minute,"
        f" {format_rate(figures['events_per_s_5m'])} over 5"
    )


def _commits(figures: Mapping[str, Any]) -> str:
    if not figures["commits"]:
        return "none since the start"
    half, most = (within_s(figures["commit_counts"], part) for part in (0.5, 0.99))
    return (
        f"half {_within(half)}, 99 % {_within(most)}; last {_ms(figures['commit_last_s'])},"
        f" longest {_ms(figures['commit_longest_s'])}"
    )


def _within(bound_s: float | None) -> str:
    if bound_s is None or bound_s == float("inf"):
        return f"over {_ms(COMMIT_BOUNDS_S[-1])}"
    return f"within {_ms(bound_s)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.3g} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _room(state: Mapping[str, Any]) -> str:
    if state["room_s"] is None:
        return ""
    when = "if logd stops now" if state["running_pid"] and not state["trouble"] else "from now"
    return f"; at the current rate the first is full in {format_duration(state['room_s'])} {when}"


def _disk(disk: Mapping[str, Any]) -> str:
    free = (
        "free space unknown"
        if disk["free_bytes"] is None
        else f"{format_size(disk['free_bytes'])} free"
    )
    database, wal = format_size(disk["database_bytes"]), format_size(disk["wal_bytes"])
    return f"database {database}, WAL {wal}; {free}"


def _growth(disk: Mapping[str, Any]) -> str:
    per_day = disk["growth_bytes_per_day"]
    if per_day is None:
        return "unknown before a day of events"
    text = f"{format_size(per_day)} a day over the last {disk['growth_days']:.0f} days"
    left = disk["days_left"]
    if left is None:
        return text
    return f"{text}: enough for {left:,.0f} days" if left >= 1 else f"{text}: FULL WITHIN A DAY"


def _integrity(integrity: Mapping[str, Any] | None, now_ns: int) -> str:
    if integrity is None:
        return "never verified; run logd verify"
    when = f"{_moment(integrity['at_ns'], now_ns)}, {_how_many(integrity['events'])}"
    if integrity["answer"] == NOT_PROVEN:
        return f"whole in itself, but not proven when verified {when}: no anchors were found"
    if integrity["answer"] == WHOLE:
        since_ns = (integrity.get("proven") or {}).get("since_ns", integrity["at_ns"])
        by_parts = integrity["at_ns"] - since_ns > FULL_RUN_NS
        all_since = f"; all of it since {render.format_time(since_ns)}" if by_parts else ""
        return f"whole when verified {when}{all_since}"
    return f"NOT WHOLE when verified {when}; run logd verify for details"


def _run(run: Mapping[str, Any], now_ns: int) -> str:
    good = f"last good {_moment(run['ok_ns'], now_ns)}" if run["ok_ns"] else "none recorded"
    if run["problem"] is None:
        return good
    when = f" {_moment(run['at_ns'], now_ns)}" if run["at_ns"] else ""
    return f"PROBLEM{when}: {render.printable(run['problem'])}; {good}"


def _moment(at_ns: int | None, now_ns: int) -> str:
    if at_ns is None:
        return "-"
    ago_s = (now_ns - at_ns) / 1e9
    return f"{render.format_time(at_ns)}{f' ({format_duration(ago_s)} ago)' if ago_s >= 0 else ''}"


def format_size(count: float) -> str:
    """Formats a number of bytes in powers of 1024."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def format_duration(seconds: float) -> str:
    """Formats a duration in its largest unit, and the next smaller one if that is significant."""
    if seconds < 1:
        return "less than a second"
    for unit, of_s, next_unit, of_next_s in _SPANS:
        if seconds >= of_s:
            whole, rest = divmod(int(seconds), of_s)
            more = rest // of_next_s
            return f"{whole:,} {unit}{f' {more} {next_unit}' if more and whole < 10 else ''}"
    return f"{int(seconds)} s"


_SPANS = (
    ("d", 86_400, "h", 3600),
    ("h", 3600, "min", 60),
    ("min", 60, "s", 1),
)
