"""Lists the entries in quarantine, one by one or by reason and sender.

A reason may quote the sender's data after a colon; the text before it is the daemon's. An excerpt
has the first bytes that were received. Both are printed without control characters.
"""

from __future__ import annotations

from collections.abc import Iterator

from logd.render import format_time, printable
from logd.reports.ledger_queries import quarantine_page
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.storage.database import Connection
from logd_wire.query import Row

EXCERPT_CHARS_SHOWN = 60


def quarantine_rows(connection: Connection, limit: int | None) -> Iterator[Row]:
    """Yields at most `limit` entries, newest first, with excerpts in hexadecimal."""
    before, left = None, limit
    while left is None or left > 0:
        size = PAGE_ROWS_MAX if left is None else min(PAGE_ROWS_MAX, left)
        page = quarantine_page(connection, before, size)
        yield from page.rows
        left = None if left is None else left - len(page.rows)
        before = page.next
        if before is None:
            return


def quarantine_summary(connection: Connection, limit: int | None) -> list[Row]:
    """Returns totals by reason and user, the largest first.

    They count datagrams or files, events among them, and processes, with the times of the first and
    the last entry.
    """
    cursor = connection.execute(
        "SELECT iif(instr(reason, ':'), substr(reason, 1, instr(reason, ':') - 1), reason) AS why,"
        " uid, count(*) AS rows, sum(sequence IS NOT NULL) AS events, count(DISTINCT pid) AS pids,"
        " min(detected_ns) AS first_ns, max(detected_ns) AS last_ns"
        " FROM quarantine GROUP BY why, uid ORDER BY rows DESC, why, uid LIMIT ?",
        (-1 if limit is None else limit,),  # without a limit, quarantine_rows_max bounds the rows
    )
    names = ("reason", "uid", "rows", "events", "pids", "first_ns", "last_ns")
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def quarantine_totals(connection: Connection) -> tuple[int, int]:
    """Returns how many entries were ever made, and how many are kept: the oldest are removed."""
    ever, kept = connection.execute(
        "SELECT (SELECT coalesce(sum(value), 0) FROM counter WHERE name = 'quarantined'),"
        " (SELECT count(*) FROM quarantine)"
    ).fetchone()
    return int(ever), int(kept)


def quarantine_line(row: Row) -> str:
    """Formats an entry as a line: time, sender, size, reason, excerpt."""
    sender = f"{row['uid']}/{row['pid']}"
    if row["sequence"] is not None:
        sender += f" {printable(row['producer'])} #{row['sequence']}"
    return (
        f"{format_time(row['detected_ns'])}  {sender:<18}  {row['bytes']:>7}"
        f"  {printable(row['reason'])}  {excerpt(row['excerpt'])}"
    )


def summary_line(row: Row) -> str:
    """Formats the totals of one reason and sender as a line."""
    return (
        f"{row['rows']:>8,}  {row['events']:>8,}  {row['uid']:>7}  {row['pids']:>6,}"
        f"  {format_time(row['last_ns']):24}  {printable(row['reason'])}"
    )


HEAD = f"{'time (UTC)':24}  {'user/pid':18}  {'bytes':>7}  reason  excerpt"
SUMMARY_HEAD = f"{'refused':>8}  {'events':>8}  {'user':>7}  {'pids':>6}  {'last (UTC)':24}  reason"


def excerpt(hexadecimal: str) -> str:
    """Formats an excerpt in quotes, without control characters; a dash if it is empty."""
    data = bytes.fromhex(hexadecimal)
    if not data:
        return "-"
    text = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '\\"' else f"\\x{byte:02x}"
        for byte in data[:EXCERPT_CHARS_SHOWN]
    )
    return f'"{text}"' + ("..." if len(data) > EXCERPT_CHARS_SHOWN else "")
