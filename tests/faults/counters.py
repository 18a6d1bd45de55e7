"""The layout of an emitter's counters in the page of memory that it shares with the test.

Slots of eight words: the first the process's own, then one for each of its forked children, the
last but one for its signal handler. The page's last word tells it to stop.
"""

from __future__ import annotations

SLOT_WORDS = 8
ATTEMPTED = 0
ACCEPTED = 1
REFUSED = 2
ACCEPTED_BY_STATS = 3  # what the client itself counts, once it has ended
DONE = 4  # 1: it has ended by itself

CHILDREN_MAX = 40
HANDLER_SLOT = 62
STOP_WORD = 511
