"""Checks of the machine: queue, limits, clock, swap. Pure: they judge gathered facts."""

from __future__ import annotations

from collections.abc import Iterator

from logd.status.checks.facts import Facts
from logd.status.checks.findings import FAIL, OK, WARN, Finding
from logd.status.text import format_duration

QUEUE_DATAGRAMS_MIN = 512
DESCRIPTORS_MIN = 40  # the same number as in logd.service
DESCRIPTORS_RESERVED = 32  # the same number as in logd.serve.loop
CLOCK_BACK_S_MAX = 1.0


def _queue(facts: Facts) -> Iterator[Finding]:
    now = facts.queue_datagrams_now
    depth = facts.queue_datagrams or now
    if depth is None:
        yield Finding(
            "queue", WARN, "unknown: there is no /proc here", "run this check on the host"
        )
        return
    source = "of the socket" if facts.queue_datagrams else "of net.unix.max_dgram_qlen now"
    says = f"{depth:,} events of one datagram each, the limit {source}"
    if facts.queue_datagrams is None and facts.inherited:
        says += " (a socket keeps the limit from when systemd created it)"
    if depth < QUEUE_DATAGRAMS_MIN:
        unit = "logd.socket" if facts.inherited else "logd"
        yield Finding(
            "queue", WARN, f"{says}: clients without an outbox lose events in a burst",
            f"sysctl -w net.unix.max_dgram_qlen={QUEUE_DATAGRAMS_MIN}, and keep it in sysctl.d;"
            f" then create the socket again: systemctl restart {unit}",
        )  # fmt: skip
    else:
        yield Finding("queue", OK, says)
    if facts.queue_datagrams and now and facts.queue_datagrams < now:
        yield Finding(
            "queue", WARN, f"net.unix.max_dgram_qlen has been raised since, to {now - 1}",
            "create the socket again: restart logd",
        )  # fmt: skip


def _open_files(facts: Facts) -> Iterator[Finding]:
    limit = facts.open_files
    whose = "of this shell" if facts.running_pid is None else "of the daemon"
    if limit is None or limit < 0:
        yield Finding("open files", OK, "no limit")
    elif limit < DESCRIPTORS_MIN:
        yield Finding("open files", FAIL, f"{limit} {whose}", "LimitNOFILE=8192, ulimit -Hn")
    elif limit < facts.outboxes_max + DESCRIPTORS_RESERVED:
        yield Finding(
            "open files", WARN, f"{limit:,} {whose}, too few for outboxes_max ="
            f" {facts.outboxes_max:,}: further processes that log have to wait", "LimitNOFILE=8192",
        )  # fmt: skip
    else:
        yield Finding("open files", OK, f"{limit:,} {whose}")


def _core(facts: Facts) -> Iterator[Finding]:
    if facts.core_bytes:
        yield Finding(
            "core dumps", WARN, "a crash would write events and the key to disk", "LimitCORE=0"
        )
    elif facts.core_bytes == 0:
        yield Finding("core dumps", OK, "disabled for the daemon")


def _clock(facts: Facts) -> Iterator[Finding]:
    last_ns = facts.state and facts.state["last_stored_ns"]
    ahead_s = (last_ns - facts.now_ns) / 1e9 if last_ns else 0.0
    if facts.clock_problem is not None:
        yield Finding(
            "clock", FAIL, f"{facts.clock_problem}: no events are pruned, no old backups removed",
            "timedatectl; if the clock is right, logd prune --yes or logd backup --yes",
        )  # fmt: skip
    elif ahead_s > CLOCK_BACK_S_MAX:
        yield Finding(
            "clock", WARN,
            f"was set back: the newest event was stored {format_duration(ahead_s)} in the future",
            "check timedatectl; the order of events is kept, their times are those of the clock",
        )  # fmt: skip
    elif facts.synchronised is None:
        yield Finding("clock", WARN, "unknown whether it is synchronised", "timedatectl")
    elif not facts.synchronised:
        yield Finding("clock", WARN, "not synchronised", "timedatectl set-ntp true")
    else:
        yield Finding("clock", OK, "synchronised, as the kernel reports")


def _swap(facts: Facts) -> Iterator[Finding]:
    plain = [swap.name for swap in facts.swaps if not swap.memory and not swap.encrypted]
    on_disk = [swap.name for swap in facts.swaps if not swap.memory]
    if plain and "noswap" not in facts.outbox_options:
        yield Finding(
            "swap", WARN, f"{', '.join(plain)}: not encrypted, as far as logd can tell; events"
            " in outboxes can be written there in plain text",
            "encrypt it (/etc/crypttab, a random key at each boot), swapoff it, or mount the"
            " outboxes' tmpfs with noswap (Linux 6.4)",
        )  # fmt: skip
    elif plain:
        yield Finding(
            "swap", WARN, f"{', '.join(plain)}: not encrypted; it excludes the outboxes, but not"
            " the memory of logd and of the site", "encrypt it, or MemorySwapMax=0 for both units",
        )  # fmt: skip
    else:
        yield Finding("swap", OK, "encrypted, or in memory" if facts.swaps else "none")
    if facts.hibernation and (plain or not on_disk):
        # Warns even if all swap is encrypted,
        # since swap can be added before the machine hibernates.
        yield Finding(
            "hibernation", WARN if plain else OK,
            f"would write all memory to {', '.join(plain)} in plain text" if plain
            else "possible, but there is no swap to write memory to",
            "systemctl mask hibernate.target hybrid-sleep.target" if plain else "",
        )  # fmt: skip
    else:
        yield Finding(
            "hibernation", OK, "to encrypted swap" if facts.hibernation else "not possible"
        )


CHECKS = (_queue, _open_files, _core, _clock, _swap)
