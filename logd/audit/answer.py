"""The three answers of `logd verify`: whole, not whole, not proven; each with its exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from logd.audit import kept_heads
from logd.audit.anchor_comparison import compare
from logd.audit.anchors import Anchor
from logd.audit.head_signer import AnchorSignatures, read_private_key
from logd.audit.kept_heads import KeptHead
from logd.audit.verifier import in_one_moment
from logd.config.settings import Config
from logd.errors import EXIT_NOT_WHOLE, EXIT_OK, EXIT_TEMPORARY, KeyFileError, LogdError
from logd.storage.database import Connection, DatabaseError, damage
from logd.storage.last_verification import NOT_PROVEN, NOT_WHOLE, WHOLE

ANCHORS, HEADS = "the anchors", "the kept heads"
_ADVICE = {
    ANCHORS: (
        " Keep the journal for longer, or set anchor_file in logd.toml (--anchors FILE compares"
        " with it)"
    ),
    HEADS: " Compare with a later head, or one of a multiple of 256 batches",
}


@dataclass(frozen=True)
class Anchored:
    """The result of comparing a trail with `source`, kept outside it; the defaults stand for none.

    `not_proven` says why nothing is proven; if the source could not be read, `unreadable` has the
    error.
    """

    mismatches: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_proven: str | None = None
    unreadable: LogdError | None = None
    source: str = ANCHORS

    def and_also(self, other: Anchored) -> Anchored:
        """Returns both comparisons as one, which proves only what both prove."""
        worse = self if self.mismatches or (self.not_proven and not other.mismatches) else other
        return Anchored(
            self.mismatches + other.mismatches,
            self.notes + other.notes,
            worse.not_proven,
            worse.unreadable,
            worse.source,
        )


def compare_anchors(
    connection: Connection, config: Config, logged: Iterable[Anchor], since_ns: int | None
) -> Anchored:
    """Compares the trail with the anchors logged at `since_ns` or later. Raises NotChecked."""
    notes: list[str] = []
    signatures = None
    try:
        private_key = read_private_key(config)
        signatures = AnchorSignatures(private_key) if private_key is not None else None
    except KeyFileError as error:
        notes.append(f"the signatures of anchors are not checked: {error}")
    try:
        found = compare(connection, logged, config.former_trails, since_ns, signatures)
        notes += found.describe()
    except DatabaseError as error:
        return Anchored([f"anchors: cannot be compared: {damage(error)}"])
    return Anchored(found.findings, notes, found.not_proven, found.unreadable)


def compare_heads(connection: Connection, config: Config, heads: Sequence[KeptHead]) -> Anchored:
    """Compares the trail with heads that were kept in files. Raises NotChecked."""
    try:
        with in_one_moment(connection):
            found = kept_heads.compare_heads(connection, heads, config.former_trails)
    except DatabaseError as error:
        return Anchored([f"heads: cannot be compared: {damage(error)}"], source=HEADS)
    except (TypeError, ValueError, OverflowError) as error:  # a value that the daemon never writes
        return Anchored([f"heads: cannot be compared: a row was changed: {error}"], source=HEADS)
    return Anchored(found.mismatches, found.notes, found.not_proven, source=HEADS)


@dataclass(frozen=True)
class Answer:
    """The answer of `logd verify`: the findings in the trail, and the comparison with anchors."""

    whole: bool
    anchored: Anchored

    @property
    def name(self) -> str:
        """The name of the answer: WHOLE, NOT_WHOLE or NOT_PROVEN."""
        if not self.whole or self.anchored.mismatches:
            return NOT_WHOLE
        return NOT_PROVEN if self.anchored.not_proven else WHOLE

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.name == NOT_PROVEN:
            unreadable = self.anchored.unreadable
            return EXIT_TEMPORARY if unreadable is None else unreadable.exit_code
        return EXIT_NOT_WHOLE if self.name == NOT_WHOLE else EXIT_OK

    @property
    def problem(self) -> str | None:
        """Returns what is wrong in one line; None if nothing is wrong."""
        if not self.whole:
            return "the trail is not whole"
        if self.anchored.mismatches:
            return f"the trail is whole, but it does not match {self.anchored.source}"
        if self.anchored.unreadable is not None:
            return f"not proven: {self.anchored.not_proven}"
        if self.anchored.not_proven:
            return (
                f"not proven: {self.anchored.not_proven}. That is no sign of a change, and no"
                " reason to restore a backup: the trail is whole in itself."
                f"{_ADVICE[self.anchored.source]}"
            )
        return None
