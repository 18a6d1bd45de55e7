"""Lets one thread at a time into a client, whatever signal handlers do in the middle of it.

A handler runs in the middle of any call, in the same thread: it may use the client, close it, raise
or fork. So the guard names the thread that is inside (`owner`): a nested call changes nothing, and
what must wait is deferred until this thread is out.

A thread enters by one statement that reads `free` and clears it. It makes no call and no jump,
so no other thread, handler, tracer of lines or monitor of branches runs in the middle of it (see
`logd_wire.forks`). A lock would not do: in a child that is forked while another thread holds it, it
stays locked, and a handler may raise as `acquire` returns, before the caller knows of the lock.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from typing import Protocol, TypeVar

from logd_wire import forks
from logd_wire.forks import Forked, Generation

# Seconds between two checks whether another thread is still inside the guard.
PAUSE_S = 0.00005
PATIENCE_S = 0.002
TRACED_S = 1.0
DEFERRED_MAX = 16

T = TypeVar("T")

_log = logging.getLogger("logd.client")


class GuardedPart(Protocol):
    """A part of a client that only the thread inside the guard changes."""

    def reset(self, forked: bool) -> None:
        """Resets this part as in a new client; a closed client stays closed unless `forked`."""


class GuardedProducers(GuardedPart, Protocol):
    """A client's producers, which hold descriptors and mappings; changed only inside the guard."""

    def release_inherited(self) -> None:
        """Closes descriptors and mappings that this process inherited from its parent."""


class Guard:
    """One process's guard of a client; a fork of the process starts with a new one.

    `free`, `owner`, `mark` and `deferred` are used directly by `Emitter.accept`, to save calls.
    """

    def __init__(self, current_generation: Callable[[], Generation] = forks.current) -> None:
        self._current_generation = current_generation
        self._renewing: Generation | None = None
        self._producers: GuardedProducers
        self._parts: tuple[GuardedPart, ...] = ()
        # Calls to run outside the guard: log lines, whose handlers may wait
        # for a thread that waits for the guard; a signal handler's `close`;
        # a pause that lets in a thread that has waited for long.
        self.deferred: list[Callable[[], None]] = []
        self._start(current_generation())

    def protect(self, producers: GuardedProducers, others: Sequence[GuardedPart]) -> None:
        """Registers the parts that are reset after a fork."""
        self._producers = producers
        self._parts = (producers, *others)

    def _start(self, generation: Generation) -> None:
        self.owner = 0  # the thread inside the guard, by `get_ident`; 0: none
        self.free = True
        # The generation is set last: an interrupted reset is done again from its beginning.
        self.generation = generation
        self.mark = generation.mark

    def renew(self) -> bool:
        """Resets the client in a fork of its process; returns whether it is reset.

        It returns False to a signal handler that emits while this very reset runs.
        """
        while True:
            generation = self._current_generation()
            while generation.busy and generation.must_wait():
                pass
            if generation.mark[0]:
                break
        with generation.lock:
            if self.generation is generation:
                return True
            if self._renewing is generation:
                return False
            self._renewing, busy = generation, generation.busy
            generation.busy = True
            try:
                self.deferred = []
                self._reset(generation, forked=True)
            finally:
                self._renewing = None
                generation.busy = busy
        return True

    def _reset(self, generation: Generation, *, forked: bool) -> None:
        self._producers.release_inherited()
        for part in self._parts:
            part.reset(forked)
        self._start(generation)

    def is_nested(self, thread: int) -> bool:
        """Waits until no other thread is inside; returns whether the calling `thread` is.

        If it is, the caller is a signal handler or __del__ that interrupted a call. In a fork of
        the client's process, the client is renewed first.
        """
        impatient_s = time.monotonic() + PATIENCE_S
        while self.mark[0]:
            if self.free:
                return False
            if self.owner == thread:
                return True
            if sys.is_finalizing():
                # At the interpreter's end no other thread continues,
                # so the guard can never be released.
                self._reset(self.generation, forked=False)
            elif time.monotonic() < impatient_s:
                time.sleep(PAUSE_S)
            elif not self.owner:
                # A tracer runs between the two statements by which another thread enters or leaves.
                if time.monotonic() > impatient_s + TRACED_S:
                    return True  # such a tracer may have made this very call
                time.sleep(PAUSE_S)
            else:
                # Other threads enter and leave without a pause,
                # so ask the next one that leaves to pause.
                gate = threading.Lock()
                gate.acquire()
                if len(self.deferred) < DEFERRED_MAX:
                    self.defer(partial(_let_pass, gate))
                gate.acquire(timeout=PATIENCE_S)
        return not self.renew()

    def run(self, act: Callable[[bool], T]) -> T:
        """Runs `act` with no other thread inside; a child forked meanwhile runs it again.

        `act` gets True if the call is nested in another call of this thread. Then it may read the
        client's state, but not change it.
        """
        thread = get_ident()
        while True:
            if self.is_nested(thread):
                return act(True)
            entered = False
            try:
                entered, self.free = self.free, False
                if entered:
                    self.owner = thread
                    return act(False)
            except Forked:
                pass
            finally:
                # In a forked child another guard is in force.
                if entered and self.owner in (0, thread):
                    self.owner = 0
                    self.free = True
                if self.deferred:
                    self.run_deferred()

    def defer(self, act: Callable[[], None]) -> None:
        """Runs `act` after the thread inside has left the guard; an `act` is deferred once."""
        if act not in self.deferred:
            self.deferred.append(act)

    def run_deferred(self) -> None:
        """Runs the deferred calls, unless this thread is in the middle of another call."""
        if self.owner == get_ident():
            return
        while self.deferred:
            # Another thread may have emptied the list;
            # a log handler may raise, and an emit must not.
            with contextlib.suppress(Exception):
                self.deferred.pop(0)()

    def warn(self, message: str, detail: object) -> None:
        """Logs a warning after the thread inside has left the guard."""
        if len(self.deferred) < DEFERRED_MAX:
            self.defer(partial(_log.warning, message, detail))


def _let_pass(gate: threading.Lock) -> None:
    """Lets the thread that waits at the gate enter the guard before this thread does again."""
    with contextlib.suppress(RuntimeError):  # raised if the thread no longer waits
        gate.release()
    time.sleep(PAUSE_S)
