"""Marks in the kernel's queue: committed once all that was queued before them is."""

from __future__ import annotations

from logd.ingest.queue_marks import QueueMarks


def test_a_mark_is_committed_when_as_many_as_the_queue_holds_were_taken_and_stored() -> None:
    marks = QueueMarks()
    is_committed = marks.add(10)
    marks.record_taken(9, emptied=False)
    marks.record_commit(batch_empty=True)
    assert not is_committed(), "one of them may be unread"
    marks.record_taken(1, emptied=False)
    marks.record_commit(batch_empty=False)
    assert not is_committed(), "it is in the batch"
    marks.record_commit(batch_empty=True)
    assert is_committed()


def test_a_queue_that_was_empty_ends_every_wait() -> None:
    marks = QueueMarks()
    assert marks.start.unread > 0
    is_committed = marks.add(10)
    marks.record_taken(0, emptied=True)
    marks.record_commit(batch_empty=True)
    assert is_committed() and marks.start.committed
    assert not marks, "nothing is left to watch"
