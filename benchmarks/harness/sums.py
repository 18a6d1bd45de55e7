"""The sums that must hold in every run: every attempted event is accounted for."""

from __future__ import annotations

from dataclasses import dataclass


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
