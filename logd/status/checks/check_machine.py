"""What `logd check` says of the machine: queue, limits, clock, swap. Pure: judges facts."""

from __future__ import annotations

from collections.abc import Iterator

from logd.status.checks.facts import Facts
from logd.status.checks.findings import FAIL, OK, WARN, Finding
from logd.status.text import span

QUEUE_DATAGRAMS_MIN = 512
DESCRIPTORS_MIN = 40  # see logd.service
DESCRIPTORS_RESERVED = 32  # see logd.serve.loop
CLOCK_BACK_S_MAX = 1.0


def _queue(facts: Facts) -> Iterator[Finding]:
    now = facts.queue_datagrams_now
    depth = facts.queue_datagrams or now
    if depth is None:
        yield Finding("queue", WARN, "not known: no /proc here", "run this check on the host")
        return
    whose = "the socket's" if facts.queue_datagrams else "as net.unix.max_dgram_qlen is now"
    says = f"{depth:,} events of one datagram each, {whose}"
    if facts.queue_datagrams is None and facts.inherited:
        says += " (a socket keeps what that was when systemd made it)"
    if depth < QUEUE_DATAGRAMS_MIN:
        unit = "logd.socket" if facts.inherited else "logd"
        yield Finding(
            "queue", WARN, f"{says}: clients without an outbox lose events in a burst",
            f"sysctl -w net.unix.max_dgram_qlen={QUEUE_DATAGRAMS_MIN}, and keep it in sysctl.d;"
            f" then make the socket anew: systemctl restart {unit}",
        )  # fmt: skip
    else:
        yield Finding("queue", OK, says)
    if facts.queue_datagrams and now and facts.queue_datagrams < now:
        yield Finding(
            "queue", WARN, f"net.unix.max_dgram_qlen has been raised since, to {now - 1}",
            "make the socket anew: restart logd",
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
            "open files", WARN, f"{limit:,} {whose}, which is less than outboxes_max ="
            f" {facts.outboxes_max:,} needs: further processes that log wait", "LimitNOFILE=8192",
        )  # fmt: skip
    else:
        yield Finding("open files", OK, f"{limit:,} {whose}")


def _core(facts: Facts) -> Iterator[Finding]:
    if facts.core_bytes:
        yield Finding(
            "core dumps", WARN, "a crash would write events and the key to a disk", "LimitCORE=0"
        )
    elif facts.core_bytes == 0:
        yield Finding("core dumps", OK, "none of the daemon")


def _clock(facts: Facts) -> Iterator[Finding]:
    last_ns = facts.state and facts.state["last_stored_ns"]
    ahead_s = (last_ns - facts.now_ns) / 1e9 if last_ns else 0.0
    if facts.clock_problem is not None:
        yield Finding(
            "clock", FAIL, f"{facts.clock_problem}: nothing is pruned, no old backup removed",
            "timedatectl; if the clock is right, logd prune --yes or logd backup --yes",
        )  # fmt: skip
    elif ahead_s > CLOCK_BACK_S_MAX:
        yield Finding(
            "clock", WARN, f"has gone back: the newest event was stored {span(ahead_s)} from now",
            "look at timedatectl; order is kept all the same, times are as the clock was",
        )  # fmt: skip
    elif facts.synchronised is None:
        yield Finding("clock", WARN, "not known whether it is kept right", "timedatectl")
    elif not facts.synchronised:
        yield Finding("clock", WARN, "nobody keeps it right", "timedatectl set-ntp true")
    else:
        yield Finding("clock", OK, "kept right, by the kernel's word")


def _swap(facts: Facts) -> Iterator[Finding]:
    plain = [swap.name for swap in facts.swaps if not swap.memory and not swap.encrypted]
    on_disk = [swap.name for swap in facts.swaps if not swap.memory]
    if plain and "noswap" not in facts.outbox_options:
        yield Finding(
            "swap", WARN, f"{', '.join(plain)}: not encrypted as far as can be seen; events in"
            " outboxes may be written there in plain text",
            "encrypt it (/etc/crypttab, a random key at each boot), swapoff it, or mount the"
            " outboxes' tmpfs with noswap (Linux 6.4)",
        )  # fmt: skip
    elif plain:
        yield Finding(
            "swap", WARN, f"{', '.join(plain)}: not encrypted; the outboxes stay out of it, the"
            " memory of logd and the site may not", "encrypt it, or MemorySwapMax=0 for both units",
        )  # fmt: skip
    else:
        yield Finding("swap", OK, "encrypted, or in memory" if facts.swaps else "none")
    if facts.hibernation and (plain or not on_disk):
        # Without a place for it now one may be made when it is asked for.
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
