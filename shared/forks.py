"""How often this process has come out of a fork: a number that differs between parent and child.

A signal handler may fork while its thread is anywhere inside this package, and both processes go on
from there. Code that must not be gone on with in the child compares `count` with what it was,
without a call in between: Python runs signal handlers only when a call returns or a loop turns.
"""

from __future__ import annotations

import os

count = 0


class Forked(BaseException):
    """This is a child that was forked in the middle of something which is the parent's to finish.

    Not an Exception: no handler for errors may take it for one.
    """


def _count_fork() -> None:
    global count
    count += 1


os.register_at_fork(after_in_child=_count_fork)
