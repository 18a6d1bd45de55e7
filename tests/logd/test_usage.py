"""Report usage by user: counted in a bounded table, heaviest user first."""

from __future__ import annotations

from typing import Any

from logd.serve.usage import PUBLISH_INTERVAL_S, USERS_MAX, PublishedUsage, Usage


def test_each_user_has_a_row_and_the_heaviest_comes_first() -> None:
    usage = Usage()
    usage.of(1).questions += 1
    usage.of(2).running_s += 0.12345
    usage.of(2).questions += 2
    usage.of(3).put_off += 3
    assert usage.of(2) is usage.of(2)
    nothing = {"questions": 0, "running_s": 0.0, "let_go": 0, "put_off": 0}
    assert usage.rows() == [
        {**nothing, "uid": 2, "questions": 2, "running_s": 0.123},
        {**nothing, "uid": 3, "put_off": 3},
        {**nothing, "uid": 1, "questions": 1},
    ]


def test_questions_connections_and_refusals_weigh_a_thousandth_of_a_second_each() -> None:
    usage = Usage()
    one = usage.of(1)
    one.running_s, one.questions, one.let_go, one.put_off = 2.0, 10, 200, 3000
    assert one.weight == 2.0 + 3.210


def test_a_further_user_replaces_the_lightest() -> None:
    usage = Usage()
    for uid in range(USERS_MAX):
        usage.of(uid).questions = 10 + (uid - 5) ** 2  # user 5 has the fewest
    assert len(usage.rows()) == USERS_MAX
    usage.of(999)
    assert {row["uid"] for row in usage.rows()} == {*range(USERS_MAX), 999} - {5}


def test_usage_is_published_once_a_second_and_only_when_it_has_changed() -> None:
    published: list[list[dict[str, Any]]] = []
    table = PublishedUsage(published.append, 10.0)
    table.publish_if_due(20.0)
    assert (table.due_s, published) == (None, [])
    table.of(1000).questions += 1
    assert table.due_s == 10.0
    table.publish_if_due(9.9)
    assert published == []
    table.publish_if_due(10.0)
    assert [[row["uid"] for row in rows] for rows in published] == [[1000]]
    assert table.due_s is None
    table.of(1000).questions += 1
    assert table.due_s == 10.0 + PUBLISH_INTERVAL_S
    table.publish_if_due(table.due_s - 0.01)
    assert len(published) == 1
    table.publish_if_due(table.due_s)
    assert [row["questions"] for row in published[1]] == [2]


def test_usage_without_a_reader_is_never_due() -> None:
    table = PublishedUsage(None, 0.0)
    table.of(1000).questions += 1
    table.publish_if_due(100.0)
    assert table.due_s is None
