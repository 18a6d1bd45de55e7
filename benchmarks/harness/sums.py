"""The sums that must hold in every run: every attempted event is accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CALLS = ("attempted", "accepted", "refused")
OUTCOMES = ("stored", "quarantined", "pending", "lost")


@dataclass(frozen=True)
class Sums:
    """Event counts of one run, taken from the client or from the database."""

    attempted: int
    accepted: int
    refused: int
    stored: int
    quarantined: int = 0
    pending: int = 0
    lost: int = 0

    @staticmethod
    def of(calls: Mapping[str, int], status: Mapping[str, int]) -> Sums:
        """Combine a client's counts with a daemon's status, or with the change of it."""
        return Sums(
            **{key: calls.get(key, 0) for key in CALLS}, **{key: status[key] for key in OUTCOMES}
        )

    def problems(self) -> list[str]:
        """Return every sum that is wrong."""
        found = []
        if self.attempted != self.accepted + self.refused:
            found.append(
                f"attempted {self.attempted:,} != accepted {self.accepted:,}"
                f" + refused {self.refused:,}"
            )
        if self.accepted != self.stored + self.quarantined + self.pending + self.lost:
            found.append(
                f"accepted {self.accepted:,} != stored {self.stored:,} + quarantined"
                f" {self.quarantined:,} + pending {self.pending:,} + lost {self.lost:,}"
            )
        return found


def change(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return the events that were stored, quarantined, left pending and lost in between."""
    return {key: after[key] - before[key] for key in OUTCOMES}
