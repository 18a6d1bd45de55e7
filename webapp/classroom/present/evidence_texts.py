"""Says in words what an evidence sheet shows and what may be missing: never more than is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from webapp.classroom.model.evidence import Gap, Sheet
from webapp.classroom.present.filters import moment, readable

# The gaps that mean that a number is missing, or may be.
MISSING = ("loss", "open_tail", "pending", "more_losses")
# Events that wait for no longer than this are on their way: logd stores them in the next moment.
_ON_THEIR_WAY_NS = 10 * 10**9
_LOSS_LISTED_MAX = 20


@dataclass(frozen=True)
class Completeness:
    """What is missing from a sheet's time, in sentences.

    `complete` is true only if no number is missing. `notes` are about what never had a number, was
    removed, or is not of the trail.
    """

    complete: bool
    first: str
    missing: list[str]
    notes: list[str]
    trail: list[str]

    @property
    def sentences(self) -> list[str]:
        """All sentences, in order."""
        return [self.first, *self.missing, *self.trail, *self.notes]


def completeness(sheet: Sheet) -> Completeness:
    """Returns what the gaps, the last verification and the anchors say about a sheet."""
    gaps = sheet.found_gaps
    missing = [gap for gap in gaps if gap.get("kind") in MISSING and not _is_on_its_way(gap)]
    first = "No number is missing in this range."
    if missing:
        first = (
            "This sheet may not be complete. Events are missing from the log, or may be, and whose"
            " events they are cannot be known."
        )
    return Completeness(
        not missing,
        first,
        list(_missing(missing)),
        [_note(gap) for gap in gaps if gap not in missing],
        [*_trail(sheet)],
    )


def _missing(gaps: list[Gap]) -> Iterator[str]:
    losses = [gap for gap in gaps if gap["kind"] == "loss"]
    for gap in losses[:_LOSS_LISTED_MAX]:
        yield _loss(gap)
    if len(losses) > _LOSS_LISTED_MAX:
        left = losses[_LOSS_LISTED_MAX:]
        known = sum(gap["events"] or 0 for gap in left)
        yield (
            f"{len(left):,} more entries of the loss ledger, with {known:,} known events, are in"
            " the download."
        )
    for gap in gaps:
        match gap["kind"]:
            case "open_tail":
                yield (
                    f"Not known: the last numbers of {_many(gap['producers'], 'program')} that"
                    " keep no copy of what they send. Whether anything that they sent since"
                    f" {moment(gap['from_ns'])} was not received cannot be known."
                )
            case "pending":
                yield (
                    f"Not stored yet on {moment(gap['at_ns'])}: {_many(gap['events'], 'event')},"
                    f" some of them since {moment(gap['from_ns'])}. They wait in memory. Make the"
                    " sheet again once logd stores events."
                )
            case "more_losses":
                yield (
                    f"The loss ledger has more entries since then than the {gap['listed']:,} that"
                    " were looked at. What the others say about this range cannot be known here."
                )


def _loss(gap: Gap) -> str:
    between = f"between {moment(gap['from_ns'])} and {moment(gap['to_ns'])}"
    producer = f"of program {gap['producer']} ({readable(gap['cause'])})"
    if gap["events"] is None:
        return (
            f"From number {gap['first']:,} {producer}, made {between}: how many are missing cannot"
            " be known."
        )
    what = f"number {gap['first']:,}"
    if gap["events"] > 1:
        what = f"numbers {gap['first']:,} to {gap['last']:,}"
    return f"{what.capitalize()} {producer}, made {between}: lost."


def _is_on_its_way(gap: Gap) -> bool:
    if gap["kind"] != "pending":
        return False
    waited_ns: int = gap["at_ns"] - gap["from_ns"]
    return waited_ns <= _ON_THEIR_WAY_NS


def _note(gap: Gap) -> str:
    match gap.get("kind"):
        case "pending":
            return (
                "Being stored when the sheet was made, so that they are on the next one only:"
                f" {_many(gap['events'], 'event')} of the last seconds."
            )
        case "claimed":
            return (
                f"Program {gap['producer']} claims in its own file that more was stored from number"
                f" {gap['first']:,} on. Nothing else shows it."
            )
        case "quarantined":
            when = "in the seven days after this range (they may have waited since)"
            return (
                f"Refused by logd {when if gap['after'] else 'in this range'}:"
                f" {_many(gap['entries'], 'piece')} of input ({_counts(gap['reasons'])}), of which"
                f" {gap['events']:,} had the number of an event. The quarantine has them."
            )
        case "quarantine_cut":
            before = "" if gap["before_ns"] is None else f" before {moment(gap['before_ns'])}"
            return (
                f"No longer kept: {_many(gap['entries'], 'older entry', 'older entries')} of the"
                f" quarantine. What logd refused{before} cannot be known."
            )
        case "refused":
            return (
                f"Programs that ran between {moment(gap['from_ns'])} and {moment(gap['to_ns'])}"
                f" refused to log {_many(gap['events'], 'event')} ({_counts(gap['causes'])}), by"
                " their own count. When, within that time or before it, and whose they were,"
                " cannot be known."
            )
        case "removed":
            return _removed(gap)
        case "removed_others":
            return (
                f"Also removed, as the log records: {_many(gap['events'], 'event')} stored at other"
                " times. What times they were of cannot be known any more."
            )
        case "begins":
            return (
                f"The log begins on {moment(gap['at_ns'])}. What is from before was brought in"
                " later, and what happened then without being brought in is not here."
            )
        case "more_acts":
            return (
                f"More than {gap['listed']:,} acts removed events stored around this range; the"
                " newest are named here."
            )
    return f"logd also reports: {readable(gap)}"


def _removed(gap: Gap) -> str:
    act = f"as event {gap['act']:,} records"
    if gap["at_ns"] is not None:
        act += f" ({moment(gap['at_ns'])})"
    why = {
        "pruned": "Removed because their time of keeping was over",
        "erased": "Erased because a person was forgotten",
    }.get(gap["how"], readable(gap["how"]))
    said = []
    if gap["events"]:
        said.append(f"{_many(gap['events'], 'event')} stored around this range")
    if gap["redacted"]:
        said.append(f"the name of that person in {_many(gap['redacted'], 'more event')}")
    return f"{why}, {act}: {' and '.join(said)}."


def _trail(sheet: Sheet) -> Iterator[str]:
    verified = "" if sheet.verified_ns is None else moment(sheet.verified_ns)
    match sheet.verified:
        case None:
            yield "The log has not been verified yet: ask the administrator to run logd verify."
        case "whole":
            yield (
                f"It was last verified whole on {verified}, with its first"
                f" {sheet.verified_batches or 0:,} batches of {sheet.batches:,}."
            )
        case "not_proven":
            yield (
                f"It was last verified on {verified}: whole in itself, but not proven, since the"
                " heads that were written down before were not found."
            )
        case _:
            yield (
                f"WHEN LAST VERIFIED, ON {verified}, IT WAS NOT WHOLE: stored events were changed,"
                " removed or cut off. Do not rely on this sheet."
            )
    yield f"Its tree head has {sheet.batches:,} batches and the root {_short(sheet.root)}."
    if sheet.anchored_ns is None:
        yield "No head was written to the journal since logd was started."
    else:
        place = "the journal and the file of anchors" if sheet.anchored_in_file else "the journal"
        head, rest = "This head", ""
        if sheet.anchored_root != sheet.root:
            head = f"The head of {sheet.anchored_batches:,} batches, {_short(sheet.anchored_root)},"
            rest = "; the batches since then were not yet"
        yield f"{head} was written to {place} on {moment(sheet.anchored_ns)}{rest}."
    if sheet.unsigned is not None:
        yield (
            f"The head is not signed: {sheet.unsigned}. Then the download proves what is in the log"
            " only to those who know this head from elsewhere."
        )


def _short(root: str) -> str:
    return f"{root[:16]}…"


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{readable(name)}: {count:,}" for name, count in counts.items())


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
