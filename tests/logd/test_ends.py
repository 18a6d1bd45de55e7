"""The end of an outbox: what its producer writes at the last moment is stored or in the ledger."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from logd.ingest.open_outbox import OpenOutbox
from logd_wire.outbox.layout import WORD_WATCHED_UNTIL_NS
from tests.logd.stepped_daemon import SteppedDaemon, Written, look
from tests.support.instance import Instance, check_sums


def append(outbox: Written, count: int) -> None:
    """Appends as the producer does, and keeps the daemon's words of the header."""
    words = bytes(outbox.path.read_bytes()[16 * 8 : 20 * 8])
    outbox.write(count)
    with open(outbox.path, "r+b") as file:
        file.seek(16 * 8)
        file.write(words)


def once(patch: pytest.MonkeyPatch, owner: type, name: str, act: Callable[[], object]) -> None:
    """Has `act` run right before the first call of that method."""
    real, left = getattr(owner, name), [act]

    def call(*arguments: Any) -> Any:
        while left:
            left.pop()()
        return real(*arguments)

    patch.setattr(owner, name, call)


@pytest.mark.parametrize("step", ["resume_wakeups", "retire"])
def test_what_is_written_until_the_end_is_declared_is_read_before_the_file_is_removed(
    instance: Instance,
    daemon: SteppedDaemon,
    outbox: Written,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """The producer's process is alive, and has only lost its lock."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: False)
    outbox.write(3)
    once(monkeypatch, OpenOutbox, step, lambda: append(outbox, 2))
    daemon.start()
    for _ in range(4):
        look(daemon)
    state = instance.status()
    check_sums(state, attempted=5, accepted=5)
    assert (state["stored"], state["lost"]) == (5, 0)
    assert not outbox.path.exists()


def test_wakeup_suppression_is_withdrawn_before_the_end_is_declared(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the producer sends nothing until the suppression has expired."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: False)
    outbox.write(3)
    steps: list[tuple[str, int]] = []

    def noting(name: str) -> None:
        real = getattr(OpenOutbox, name)

        def call(self: OpenOutbox, *arguments: Any) -> Any:
            watched = self.read_at(WORD_WATCHED_UNTIL_NS * 8, 8)
            steps.append((name, int.from_bytes(watched, sys.byteorder)))
            return real(self, *arguments)

        monkeypatch.setattr(OpenOutbox, name, call)

    for name in ("confirm", "resume_wakeups", "retire"):
        noting(name)
    daemon.start()
    look(daemon)
    names = [name for name, _ in steps]
    assert names.index("resume_wakeups") < names.index("retire")
    assert dict(steps)["retire"] == 0


@pytest.fixture
def given_up(
    daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """An outbox of a living producer, read up to 3, which cannot be read any further."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    daemon.start()
    look(daemon)

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def give_up() -> None:
        append(outbox, 1)
        monkeypatch.setattr(OpenOutbox, "refresh", failing)
        monkeypatch.setattr("logd.ingest.salvage.read_records", failing)
        for _ in range(3):
            look(daemon)

    return give_up


def test_what_was_written_into_an_outbox_that_is_given_up_is_in_the_ledger(
    instance: Instance, outbox: Written, given_up: Callable[[], None]
) -> None:
    """That includes what arrived between the commit that gives it up and its removal."""
    assert outbox.confirmed == 3
    given_up()
    state = instance.status()
    check_sums(state, attempted=4, accepted=4)
    assert (state["stored"], state["lost"], state["unknown_extent"]) == (3, 1, 0)
    assert state["losses_by_cause"]["outbox damaged"]["events"] == 1
    assert not outbox.path.exists(), "so that its producer notices"


def test_wakeup_suppression_of_an_outbox_that_is_given_up_is_withdrawn(
    outbox: Written, given_up: Callable[[], None]
) -> None:
    """Its living producer sends again at once, and so finds out."""
    with open(outbox.path, "r+b") as file:
        file.seek(WORD_WATCHED_UNTIL_NS * 8)
        file.write((2**62).to_bytes(8, sys.byteorder))
        file.flush()
        given_up()
        assert os.pread(file.fileno(), 8, WORD_WATCHED_UNTIL_NS * 8) == bytes(8)
    assert not outbox.path.exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EINTR])
def test_the_extent_of_a_loss_that_cannot_be_read_for_a_while_is_read_again(
    instance: Instance, outbox: Written, given_up: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch, number: int,
) -> None:  # fmt: skip
    real, calls = OpenOutbox.written, [0]

    def written(self: OpenOutbox) -> int:
        calls[0] += 1
        if calls[0] == 2:  # the first is the look that finds it ahead
            raise OSError(number, os.strerror(number))
        return real(self)

    monkeypatch.setattr(OpenOutbox, "written", written)
    given_up()
    assert calls[0] >= 3
    state = instance.status()
    check_sums(state, attempted=4, accepted=4)
    assert (state["stored"], state["lost"], state["unknown_extent"]) == (3, 1, 0)
    assert not outbox.path.exists()
