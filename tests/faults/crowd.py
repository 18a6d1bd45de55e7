"""Emitters that are killed and replaced; the counts of the killed ones are kept."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import Any

from tests.faults.counters import (
    ACCEPTED,
    ACCEPTED_BY_STATS,
    ATTEMPTED,
    DONE,
    HANDLER_SLOT,
    REFUSED,
    SLOT_WORDS,
    STOP_WORD,
)
from tests.support.counter_file import CounterFile
from tests.support.instance import DEADLINE_S, Instance, Process, until

# Those whose calls end without an outcome also while they live.
CUT_SHORT_KINDS = ("handler_raises", "forks")


class Emitter:
    """A process of tests/faults/emitter.py, with counters that survive it."""

    def __init__(self, instance: Instance, name: str, kind: str, seed: int) -> None:
        self.name, self.kind = name, kind
        self.killed = False
        self._counters = CounterFile()
        self.process = Process(
            *("-m", "tests.faults.emitter", instance.socket, self._counters.path, name),
            *(str(seed), kind),
            start_new_session=True,  # with its forked children it is one group to kill
        )

    def _slots(self, word: int) -> list[int]:
        return self._counters.words()[word : STOP_WORD - SLOT_WORDS + 1 : SLOT_WORDS]

    def _sum(self, word: int) -> int:
        return sum(self._slots(word))

    @property
    def attempted(self) -> int:
        """Calls that began."""
        return self._sum(ATTEMPTED)

    @property
    def accepted(self) -> int:
        """Calls that returned True."""
        return self._sum(ACCEPTED)

    @property
    def refused(self) -> int:
        """Calls that returned False."""
        return self._sum(REFUSED)

    @property
    def cut_short(self) -> int:
        """Calls without a known outcome: cut short by a kill or a raise, or split by a fork."""
        return self.attempted - self.accepted - self.refused

    @property
    def refused_in_handlers(self) -> int:
        """Calls by its signal handler that found an emit under way."""
        return self._slots(REFUSED)[HANDLER_SLOT]

    @property
    def children(self) -> int:
        """Forked children that have emitted."""
        return sum(n > 0 for n in self._slots(ATTEMPTED)[1:HANDLER_SLOT])

    @property
    def accepted_at_least(self) -> int:
        """Accepted events, by the client's own count if the process ended by itself."""
        return self.accepted if self.killed else self._sum(ACCEPTED_BY_STATS)

    @property
    def accepted_at_most(self) -> int:
        """The same, plus calls that were in progress when the process was killed."""
        return self.accepted + self.cut_short if self.killed else self._sum(ACCEPTED_BY_STATS)

    def send(self, number: signal.Signals) -> None:
        """Sends the signal to the process and its forked children."""
        if self.process.popen.poll() is not None:
            return  # its group has ended with it, and the number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.popen.pid, number)

    def kill_unwaited(self) -> None:
        """Sends SIGKILL without waiting."""
        self.killed = True
        self.send(signal.SIGKILL)

    def kill(self) -> None:
        """Sends SIGKILL and waits."""
        self.kill_unwaited()
        self.process.popen.wait(DEADLINE_S)

    def finish(self) -> None:
        """Lets it end by itself, and checks the counts of its client."""
        self._counters.set(STOP_WORD)
        assert self.process.popen.wait(DEADLINE_S) == 0, (self.name, self.kind, self.process.lines)
        assert self._sum(DONE) >= 1
        # What callers heard is what the client counted, but for calls cut short inside it.
        heard = self.accepted
        assert self.cut_short == 0 or self.kind in CUT_SHORT_KINDS, (self.name, self.kind)
        assert heard <= self.accepted_at_least <= heard + self.cut_short, (self.name, self.kind)

    def close(self) -> None:
        """Kills it and its children; the counters can still be read."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        self.process.close()
        self._counters.close()


class Crowd:
    """Emitters of the given kinds; a killed one is replaced."""

    def __init__(self, instance: Instance, rng: random.Random, kinds: tuple[str, ...]) -> None:
        self._instance = instance
        self._rng = rng
        self.running: list[Emitter] = []
        self.gone: list[Emitter] = []
        for kind in kinds:
            self.add(kind)

    def add(self, kind: str) -> None:
        """Starts one more emitter."""
        name = f"e{len(self.running) + len(self.gone)}"
        seed = self._rng.randrange(2**32)
        self.running.append(Emitter(self._instance, name, kind, seed))

    @property
    def everybody(self) -> list[Emitter]:
        """All emitters, running and killed."""
        return self.running + self.gone

    @property
    def attempted(self) -> int:
        """Calls begun so far."""
        return sum(emitter.attempted for emitter in self.everybody)

    @property
    def accepted(self) -> int:
        """Calls that have returned True so far."""
        return sum(emitter.accepted for emitter in self.everybody)

    @property
    def accepted_at_most(self) -> int:
        """The same, plus calls in progress."""
        return sum(emitter.attempted - emitter.refused for emitter in self.everybody)

    def choose(self) -> Emitter:
        """A random running emitter that has an outbox and has begun to emit."""
        eligible = [e for e in self.running if e.kind != "bare"]
        emitter = self._rng.choice(eligible)
        until(lambda: emitter.attempted > 0, f"{emitter.name} has begun")
        return emitter

    def bury(self, *dead: Emitter) -> None:
        """Replaces killed emitters, each by another of its kind."""
        for emitter in dead:
            self.running.remove(emitter)
            self.gone.append(emitter)
            emitter.close()
            self.add(emitter.kind)

    def finish(self) -> None:
        """Lets all end by themselves; those without an outbox last, when the queue is free."""
        for emitter in sorted(self.running, key=lambda e: e.kind == "bare"):
            emitter.finish()
            emitter.close()
            self.gone.append(emitter)
        self.running.clear()

    def close(self) -> None:
        """Kills all."""
        for emitter in self.everybody:
            emitter.close()

    def check(self, events: list[dict[str, Any]]) -> dict[str, int]:
        """Each one's events: all that it heard are accepted, and no more than it attempted.

        Returns what of those without an outbox is not stored, by name.
        """
        stored: dict[str, int] = dict.fromkeys((e.name for e in self.everybody), 0)
        number: dict[tuple[str, str], int] = {}
        for event in events:
            if event["user"] not in stored:
                continue  # somebody else's
            stored[event["user"]] += 1
            if "number" in event["props"]:
                key = (event["user"], event["producer"])
                before, number[key] = number.get(key, 0), event["props"]["number"]
                assert before <= number[key], event
        missing: dict[str, int] = {}
        for emitter in self.everybody:
            kept = stored[emitter.name]
            if emitter.kind == "bare":
                missing[emitter.name] = emitter.accepted_at_most - kept
                assert missing[emitter.name] >= 0
            else:
                assert emitter.accepted_at_least <= kept <= emitter.accepted_at_most, (
                    f"{emitter.name} ({emitter.kind}, killed: {emitter.killed}): {kept} stored,"
                    f" {emitter.accepted_at_least} to {emitter.accepted_at_most} accepted"
                )
        return missing
