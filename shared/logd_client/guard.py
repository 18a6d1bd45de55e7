"""Lets one thread at a time into a client, whatever signal handlers do in the middle of it.

A handler runs in the middle of any call, in the same thread: it may use the client, close it, raise
or fork. So who is inside is known (`_inside`): what a handler calls then changes nothing, and what
must wait is put off until this thread is out.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from logd_wire import forks
from logd_wire.forks import Forked, Generation, is_owned

# Between two looks whether another thread is still inside.
PAUSE_S = 0.00005
PATIENCE_S = 0.002
LATER_MAX = 16

T = TypeVar("T")

_log = logging.getLogger("logd.client")


class Door:
    """One process's guard; begun again in a fork of it."""

    _current_generation = staticmethod(forks.current)

    def __init__(self) -> None:
        self._renewing: Generation | None = None
        # What is done without the guard: log lines, whose handlers may wait for a thread that waits
        # here; a signal handler's `close`; to let a thread pass that has waited for long.
        self._later: list[Callable[[], None]] = []
        self._start(self._current_generation())

    def _start(self, generation: Generation) -> None:
        # Reentrant, so that a signal handler that emits gets in and is refused by `_inside`,
        # where a plain lock would stand still for ever.
        self._guard = threading.RLock()
        self._inside = False
        # Last: until then this is still the parent's client, and begun again.
        self._generation = generation
        self._mark = generation.mark

    def _let_go_of_parents(self) -> None:
        raise NotImplementedError

    def _look_first(self) -> None:
        """After a call that was cut short."""
        raise NotImplementedError

    def _renew(self) -> bool:
        """In a fork of the process that this client was used in: begins as a client of its own.

        False inside itself: a signal handler that emits in the middle of it.
        """
        while True:
            generation = self._current_generation()
            while generation.busy and generation.must_wait():
                pass
            if generation.mark[0]:
                break
        with generation.lock:
            if self._generation is generation:
                return True
            if self._renewing is generation:
                return False
            self._renewing, busy = generation, generation.busy
            generation.busy = True
            try:
                self._later = []
                self._let_go_of_parents()
                self._start(generation)
            finally:
                self._renewing = None
                generation.busy = busy
        return True

    def _begin_again(self) -> None:
        """In place of a client in whose middle a thread has stopped for good."""
        raise NotImplementedError

    def _must_wait(self) -> bool:
        """Waits while another thread is inside; False if that is this very thread, or the parent's.

        The guard is taken when nobody is inside, and so not waited at: a child that a signal
        handler forks in there would wait for a thread that it does not have.
        """
        impatient_s = time.monotonic() + PATIENCE_S
        while self._inside:
            if not self._mark[0] or is_owned(self._guard):
                return False
            if sys.is_finalizing():
                # No other thread runs any more: whoever is inside stopped there for good.
                self._begin_again()
                return False
            if time.monotonic() < impatient_s:
                time.sleep(PAUSE_S)
                continue
            # The others go in and out without a pause: the next that leaves makes one.
            gate = threading.Lock()
            gate.acquire()
            if len(self._later) < LATER_MAX:
                self._put_off(partial(_let_pass, gate))
            gate.acquire(timeout=PATIENCE_S)
        return True

    def _within(self, act: Callable[[bool], T]) -> T:
        """Runs `act` with no other thread inside; again in a child that is forked in the middle.

        `act` is called with whether it is nested: by a signal handler or __del__ in the middle of
        what this very thread does. It may look at things then, and not change them.
        """
        while True:
            while self._inside and self._must_wait():
                pass
            if not self._mark[0] and not self._renew():
                return act(True)
            try:
                with self._guard:
                    if self._inside:
                        return act(True)
                    self._inside = True
                    try:
                        return act(False)
                    except Forked:
                        pass
                    except BaseException:
                        self._look_first()
                        raise
                    finally:
                        self._inside = False
            finally:
                if self._later:
                    self._run_later()

    def _put_off(self, act: Callable[[], None]) -> None:
        """Has it run when the thread that is inside is out; none twice."""
        if act not in self._later:
            self._later.append(act)

    def _run_later(self) -> None:
        if is_owned(self._guard):
            return  # it is for the call in whose middle this one is
        while self._later:
            # Another thread may have emptied it; and a handler may raise, which no emit does.
            with contextlib.suppress(Exception):
                self._later.pop(0)()

    def _warn(self, message: str, detail: object) -> None:
        if len(self._later) < LATER_MAX:
            self._put_off(partial(_log.warning, message, detail))


def _let_pass(gate: threading.Lock) -> None:
    """Lets the thread behind that gate go in before this one is back."""
    with contextlib.suppress(RuntimeError):  # it waits no longer
        gate.release()
    time.sleep(PAUSE_S)
