"""Says in plain words whether the record can be relied on, and what to do about each problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from webapp.classroom.model.analytics import LossTotals, Summary, Verification
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.model.trail import Run, TrailState
from webapp.classroom.present.filters import moment

HOUR_NS = 3600 * 10**9
# The same limits as those of `logd check` and of logd's alerts.
VERIFIED_NS_MAX = 8 * 24 * HOUR_NS
BACKUP_NS_MAX = 56 * HOUR_NS
PENDING_MAX = 20_000
# logd says the head at least twice a day; this is two hours later.
ANCHORED_NS_MAX = 14 * HOUR_NS


class Level(IntEnum):
    """How much a problem takes from the record: NOTE nothing, WARNING maybe, FAULT surely."""

    NOTE = 0
    WARNING = 1
    FAULT = 2


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what to do; `endpoint` is the page that has more about it."""

    level: Level
    what: str
    advice: str
    endpoint: str | None = None


@dataclass(frozen=True)
class Figures:
    """The figures by which the record is judged; any of them may be unavailable."""

    summary: Summary | Unavailable
    losses: LossTotals | Unavailable
    verification: Verification | Unavailable
    state: TrailState | Unavailable
    now_ns: int


@dataclass(frozen=True)
class Health:
    """The judgement in one line, and the problems, worst first."""

    level: Level
    line: str
    problems: list[Problem]


def assess(figures: Figures) -> Health:
    """Judges the record: the worst problem is its first line, or that all is there."""
    found = [*_integrity(figures), *_losses(figures)]
    if not isinstance(figures.state, Unavailable):
        state = figures.state
        found += [*_daemon(state), *_anchors(state, figures.now_ns)]
        found += [*_copies(state, figures.now_ns), *_refused(state, figures.summary)]
    unknown = [one for one in vars(figures).values() if isinstance(one, Unavailable)]
    if unknown:
        found.append(
            Problem(
                Level.WARNING,
                "Not all of this page can be shown now, so it cannot say that the record is"
                " complete.",
                f"{unknown[0].reason} Reload this page in a minute.",
            )
        )
    found.sort(key=lambda problem: -problem.level)  # stable: worst first, else as above
    level = found[0].level if found else Level.NOTE
    if level is not Level.NOTE:
        return Health(level, found[0].what, found)
    assert not isinstance(figures.verification, Unavailable)
    verified_ns = figures.verification.verified_ns
    assert verified_ns is not None, "or there is a problem"
    line = f"Everything recorded is there. Verified whole on {moment(verified_ns)}."
    return Health(level, line, found)


def _integrity(figures: Figures) -> Iterator[Problem]:
    if isinstance(figures.verification, Unavailable):
        return
    answer, at_ns = figures.verification.answer, figures.verification.verified_ns
    if answer is None or at_ns is None:
        yield Problem(
            Level.WARNING,
            "The record has not been verified yet.",
            "Ask the administrator to run logd verify, and to enable its nightly timer.",
        )
        return
    if answer == "not_whole":
        yield Problem(
            Level.FAULT,
            f"NOT WHOLE: when it was verified on {moment(at_ns)}, stored events had been changed,"
            " removed or cut off.",
            "Ask the administrator to run logd verify --anchor, which names what and where, and to"
            " keep the database as it is until the cause is known: a restore would replace the"
            " evidence.",
        )
    elif answer == "not_proven":
        yield Problem(
            Level.WARNING,
            f"Whole in itself, but not proven, when it was verified on {moment(at_ns)}: the"
            " anchors that would prove it were not found.",
            "Most likely the journal no longer keeps them. That is no sign of a change, and no"
            " reason to restore a backup. Ask the administrator to keep the journal for longer, or"
            " to set anchor_file in logd.toml.",
        )
    if figures.now_ns - at_ns > VERIFIED_NS_MAX:
        yield Problem(
            Level.WARNING,
            f"The record was last verified on {moment(at_ns)}, more than a week ago.",
            "Ask the administrator to run logd verify, and to look after its nightly timer.",
        )


def _losses(figures: Figures) -> Iterator[Problem]:
    lost = 0 if isinstance(figures.summary, Unavailable) else figures.summary.lost
    losses = figures.losses
    unknown = 0 if isinstance(losses, Unavailable) else losses.unknown_extent
    advice = "The loss ledger names each range of missing events, and its cause."
    if lost:
        yield Problem(
            Level.FAULT, f"{count(lost, 'event')} {_are(lost)} known to be lost.", advice,
            "auditor.losses",
        )  # fmt: skip
    if unknown:
        yield Problem(
            Level.WARNING,
            f"{count(unknown, 'loss', 'losses')} of unknown size: a program ended, and whether"
            " events of it are missing, and how many, is not known.",
            advice, "auditor.losses",
        )  # fmt: skip
    claimed = 0 if isinstance(losses, Unavailable) else losses.claimed
    if claimed:
        yield Problem(
            Level.NOTE,
            f"{count(claimed, 'loss', 'losses')} {_are(claimed)} only claimed by the programs' own"
            " files.",
            "Nothing else shows that these events existed. " + advice, "auditor.losses",
        )  # fmt: skip


def _daemon(state: TrailState) -> Iterator[Problem]:
    if state.trouble is not None:
        since = "" if not state.trouble_since_ns else f" since {moment(state.trouble_since_ns)}"
        yield Problem(
            Level.FAULT,
            f"Nothing can be stored{since}: {_ended(state.trouble)}",
            "Tell the administrator at once. Events wait in the machine's memory meanwhile, and are"
            " stored when that is mended; what waits is lost if the machine loses power.",
        )
    elif state.pending is not None and state.pending > PENDING_MAX:
        yield Problem(
            Level.WARNING,
            f"{count(state.pending, 'event')} wait to be stored.",
            "They are kept meanwhile. If the number keeps growing, tell the administrator.",
        )


def _anchors(state: TrailState, now_ns: int) -> Iterator[Problem]:
    why = (
        "Whoever has the database's key could rewrite the record, and only anchors kept elsewhere"
        " would show it. "
    )
    if state.anchor_interval_s == 0:
        yield Problem(
            Level.WARNING, "No anchors are made.", why + "Ask the administrator to set"
            " anchor_interval_s in logd.toml.",
        )  # fmt: skip
        return
    said_ns = state.anchored_ns
    if state.running and (said_ns is None or now_ns - said_ns > ANCHORED_NS_MAX):
        # A daemon that has just started has said none yet.
        if state.started_ns is not None and now_ns - state.started_ns < HOUR_NS:
            return
        last = "none since logd started" if said_ns is None else f"the last on {moment(said_ns)}"
        yield Problem(
            Level.WARNING, f"Anchors are missing: {last}.", why + "Tell the administrator."
        )
    file_ns = state.anchor_file_ns
    if state.anchor_file is not None and (
        file_ns is None or (said_ns is not None and said_ns - file_ns > ANCHORED_NS_MAX)
    ):
        yield Problem(
            Level.WARNING,
            "The file of anchors has no new ones: "
            + ("none at all." if file_ns is None else f"the last is of {moment(file_ns)}."),
            f"Ask the administrator whether {state.anchor_file} can be written.",
        )
    if state.heads_signed is False:
        yield Problem(
            Level.NOTE,
            "Anchors are not signed: a copy of one does not show who wrote it.",
            "The administrator can make a key for that: logd genkey.",
        )


def _copies(state: TrailState, now_ns: int) -> Iterator[Problem]:
    made_ns = state.backup.ok_ns or state.newest_backup_ns
    make = "Ask the administrator to run logd backup, and to look after its nightly timer."
    if made_ns is None:
        yield Problem(Level.WARNING, "There is no backup that logd knows of.", make)
    elif now_ns - made_ns > BACKUP_NS_MAX:
        yield Problem(
            Level.WARNING, f"The newest backup is of {moment(made_ns)}, more than two days ago.",
            make,
        )  # fmt: skip
    failed: list[tuple[str, Run]] = [
        ("The last backup has failed", state.backup),
        ("Events past their retention could not all be removed", state.prune),
        ("The erasure of a person has not ended", state.erasure),
    ]
    for what, run in failed:
        if run.problem is not None:
            yield Problem(
                Level.WARNING,
                f"{what}: {_ended(run.problem)}",
                "Ask the administrator to mend that, and to run it again.",
            )


def _refused(state: TrailState, summary: Summary | Unavailable) -> Iterator[Problem]:
    refused = state.refused_by_clients
    if refused:
        yield Problem(
            Level.NOTE,  # they were never part of the record
            f"{count(refused, 'event')} {_are(refused, 'was', 'were')} refused by the programs that"
            " should have recorded"
            f" {_are(refused, 'it', 'them')}: malformed, or there was no room.",
            "Their causes are in the journal of the machine: ask the administrator.",
        )
    quarantined = 0 if isinstance(summary, Unavailable) else summary.quarantined
    if quarantined:
        yield Problem(
            Level.NOTE,
            f"{count(quarantined, 'input')} {_are(quarantined, 'was', 'were')} refused by logd, and"
            " put into quarantine.",
            "Reading the excerpts is itself recorded.",
            "trail.quarantine",
        )


def count(number: int, what: str, several: str | None = None) -> str:
    """Formats a number with its noun: "1 event", "1,200 events"."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"


def _ended(text: str) -> str:
    """Ends a message of logd as a sentence."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _are(number: int, one: str = "is", several: str = "are") -> str:
    return one if number == 1 else several
