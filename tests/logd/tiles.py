"""Makes the tiles of the Merkle tree small, so that some ten batches have nodes of many levels."""

from __future__ import annotations

import pytest

from logd.audit import verify_tree
from logd.maintenance import collapse
from logd.storage import tree


def set_tile_level(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    """Has every `level`th level of nodes kept, in place of every eighth."""
    for module in (tree, verify_tree, collapse):
        monkeypatch.setattr(module, "TILE_LEVEL", level)
        monkeypatch.setattr(module, "TILE_BATCHES", 1 << level)
    monkeypatch.setattr(verify_tree, "LEVELS", range(level, 64, level))
