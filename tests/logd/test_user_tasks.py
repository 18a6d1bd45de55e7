"""Which user's task is next, and for how long: with the test's clock only."""

from __future__ import annotations

from logd.ingest.user_tasks import Task, UserTasks


class Clock:
    """Each task takes a second of it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.done: list[str] = []

    def task(self, name: str, parts: int = 1) -> Task:
        left = [parts]

        def work() -> bool:
            self.now_s += 1.0
            self.done.append(name)
            left[0] -= 1
            return not left[0]

        return work


def test_a_user_with_many_tasks_makes_another_wait_for_one_of_them() -> None:
    clock, tasks = Clock(), UserTasks()
    for number in range(900):
        tasks.add(12345, number, clock.task("hostile"))
    tasks.add(1000, "a", clock.task("good"))
    tasks.run(lambda: clock.now_s, 2.0)
    assert clock.done == ["hostile", "good"]


def test_a_long_task_gives_way_to_others_of_its_own_user() -> None:
    clock, tasks = Clock(), UserTasks()
    tasks.add(1, "long", clock.task("long", parts=3))
    tasks.add(1, "short", clock.task("short"))
    tasks.run(lambda: clock.now_s, 10.0)
    assert clock.done == ["long", "short", "long", "long"]
    assert not tasks


def test_the_time_ends_it_but_one_part_is_always_done() -> None:
    clock, tasks = Clock(), UserTasks()
    for number in range(3):
        tasks.add(1, number, clock.task("task"))
    tasks.run(lambda: clock.now_s, 0.0)
    assert (len(clock.done), tasks.count(1)) == (1, 2)
    tasks.run(lambda: clock.now_s, 2.0)
    assert (len(clock.done), tasks.count(1)) == (3, 0)


def test_a_task_that_waits_already_is_not_added_twice() -> None:
    clock, tasks = Clock(), UserTasks()
    for _ in range(1000):
        tasks.add(1, "same", clock.task("task"))
    assert tasks.count(1) == 1
