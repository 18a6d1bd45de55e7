"""Says in words what an evidence sheet shows and what may be missing: never more than is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from webapp.classroom.model.evidence import Caveat, Sheet
from webapp.classroom.present.filters import moment, readable

# The caveats that mean that a number is missing, or may be.
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
    """Returns what the caveats, the last verification and the anchors say about a sheet."""
    caveats = sheet.found_caveats
    missing = [one for one in caveats if one.get("kind") in MISSING and not _is_on_its_way(one)]
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
        [_note(one) for one in caveats if one not in missing],
        [*_trail(sheet)],
    )


def _missing(caveats: list[Caveat]) -> Iterator[str]:
    losses = [one for one in caveats if one["kind"] == "loss"]
    for one in losses[:_LOSS_LISTED_MAX]:
        yield _loss(one)
    if len(losses) > _LOSS_LISTED_MAX:
        left = losses[_LOSS_LISTED_MAX:]
        known = sum(one["events"] or 0 for one in left)
        yield (
            f"{len(left):,} more entries of the loss ledger, with {known:,} known events, are in"
            " the download."
        )
    for one in caveats:
        match one["kind"]:
            case "open_tail":
                yield (
                    f"Not known: the last numbers of {_many(one['producers'], 'program')} that"
                    " keep no copy of what they send. Whether anything that they sent since"
                    f" {moment(one['from_ns'])} was not received cannot be known."
                )
            case "pending":
                yield (
                    f"Not stored yet on {moment(one['at_ns'])}: {_many(one['events'], 'event')},"
                    f" some of them since {moment(one['from_ns'])}. They wait in memory. Make the"
                    " sheet again once logd stores events."
                )
            case "more_losses":
                yield (
                    f"The loss ledger has more entries since then than the {one['listed']:,} that"
                    " were looked at. What the others say about this range cannot be known here."
                )


def _loss(one: Caveat) -> str:
    between = f"between {moment(one['from_ns'])} and {moment(one['to_ns'])}"
    producer = f"of program {one['producer']} ({readable(one['cause'])})"
    if one["events"] is None:
        return (
            f"From number {one['first']:,} {producer}, made {between}: how many are missing cannot"
            " be known."
        )
    what = f"number {one['first']:,}"
    if one["events"] > 1:
        what = f"numbers {one['first']:,} to {one['last']:,}"
    return f"{what.capitalize()} {producer}, made {between}: lost."


def _is_on_its_way(one: Caveat) -> bool:
    if one["kind"] != "pending":
        return False
    waited_ns: int = one["at_ns"] - one["from_ns"]
    return waited_ns <= _ON_THEIR_WAY_NS


def _note(one: Caveat) -> str:
    match one.get("kind"):
        case "pending":
            return (
                "Being stored when the sheet was made, so that they are on the next one only:"
                f" {_many(one['events'], 'event')} of the last seconds."
            )
        case "claimed":
            return (
                f"Program {one['producer']} claims in its own file that more was stored from number"
                f" {one['first']:,} on. Nothing else shows it."
            )
        case "quarantined":
            when = "in the seven days after this range (they may have waited since)"
            return (
                f"Refused by logd {when if one['after'] else 'in this range'}:"
                f" {_many(one['entries'], 'piece')} of input ({_counts(one['reasons'])}), of which"
                f" {one['events']:,} had the number of an event. The quarantine has them."
            )
        case "quarantine_cut":
            before = "" if one["before_ns"] is None else f" before {moment(one['before_ns'])}"
            return (
                f"No longer kept: {_many(one['entries'], 'older entry', 'older entries')} of the"
                f" quarantine. What logd refused{before} cannot be known."
            )
        case "refused":
            return (
                f"Programs that ran between {moment(one['from_ns'])} and {moment(one['to_ns'])}"
                f" refused to log {_many(one['events'], 'event')} ({_counts(one['causes'])}), by"
                " their own count. When, within that time or before it, and whose they were,"
                " cannot be known."
            )
        case "removed":
            return _removed(one)
        case "removed_others":
            return (
                f"Also removed, as the log records: {_many(one['events'], 'event')} stored at other"
                " times, or at times no longer known. What times they were of cannot be known."
            )
        case "begins":
            return (
                f"The log begins on {moment(one['at_ns'])}. What is from before was brought in"
                " later, and what happened then without being brought in is not here."
            )
    return f"logd also reports: {readable(one)}"


def _removed(one: Caveat) -> str:
    act = f"as event {one['first_act']:,} records"
    if one["acts"] > 1:
        act = f"as events from {one['first_act']:,} to {one['last_act']:,} record"
    if one["from_ns"] is not None:
        act += f" ({moment(one['from_ns'])}"
        act += ")" if one["acts"] == 1 else f" to {moment(one['to_ns'])})"
    why = {
        "pruned": "Removed because their time of keeping was over",
        "erased": "Erased because a person was forgotten",
    }.get(one["how"], readable(one["how"]))
    said = []
    if one["events"]:
        said.append(f"{_many(one['events'], 'event')} stored around this range")
    if one["redacted"]:
        said.append(f"the name of that person in {_many(one['redacted'], 'more event')}")
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
