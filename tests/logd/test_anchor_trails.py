"""Anchors name their trail: a new one, a restored one, and another one are told apart."""

from __future__ import annotations

import re

import pytest

from tests.logd.anchored import (
    batch_id,
    begin_new_trail,
    change,
    look_in_file,
    original,
    restore,
    run_for_a_day,
    trail_id,
)
from tests.logd.rebuilding import cut_and_rebuild
from tests.support.instance import Instance

__all__ = ["original"]  # a fixture


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_new_trail_begun_knowingly_is_known_as_one(stored: Instance, upgraded: bool) -> None:
    if upgraded:  # the first anchors are of a version before ids
        log = stored.directory / "anchors.log"
        log.write_text(re.sub(r" trail=[0-9a-f]{16}( signature=\S+)?", "", log.read_text()))
        run_for_a_day(stored, "d")
    former = begin_new_trail(stored)
    said = look_in_file(stored, 1)
    assert "another database was put in" in said, "begun by whom?"
    assert f'former_trails = ["{former}"]' in said, "what to do if it was on purpose"
    stored.configure(former_trails=[former])
    said = look_in_file(stored, 0)
    assert f"anchors are of the trail {former}" in said and "begun knowingly" in said
    change(stored, lambda c: cut_and_rebuild(c, batch_id(stored)))
    assert "its end was cut off" in look_in_file(stored, 1), "the new one is proven as any other"


def test_a_former_trail_excuses_no_other(stored: Instance) -> None:
    former = begin_new_trail(stored)
    other = begin_new_trail(stored)
    stored.configure(former_trails=[former])
    assert f"is of another trail, {other}, than" in look_in_file(stored, 1)
    stored.configure(former_trails=[former, other])
    look_in_file(stored, 0)


def test_a_trail_with_nothing_but_anchors_of_a_former_one_is_not_proven(stored: Instance) -> None:
    before = (stored.directory / "anchors.log").read_text()
    former = begin_new_trail(stored)
    (stored.directory / "anchors.log").write_text(before)
    stored.configure(former_trails=[former])
    assert "none of the 6 anchors is of a batch" in look_in_file(stored, 75)


def test_a_restore_continues_the_trail_and_accounts_for_another_one(stored: Instance) -> None:
    first = trail_id(stored)
    restore(stored)
    assert trail_id(stored) == first
    run_for_a_day(stored, "d")
    backup = stored.directory / "day4.db"
    stored.cli("backup", str(backup))
    begin_new_trail(stored)
    second = trail_id(stored)
    stored.cli("restore", str(backup), "--yes")
    assert trail_id(stored) == first
    run_for_a_day(stored, "back")
    assert second in (stored.directory / "anchors.log").read_text()
    look_in_file(stored, 0)
