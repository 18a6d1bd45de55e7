"""What is wrong with a file that the daemon depends on, and what follows: with files made up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from logd.errors import AlreadyRunning, CannotCreate
from logd.instance_lock import instance_lock, read_runtime_files
from logd.self_repair.repairs import read_state
from logd.self_repair.runtime_files import (
    CHECK_INTERVAL_S,
    OWNED,
    PRESENT,
    PROBLEM_CHARS_MAX,
    PUT_BACK,
    SAME,
    UNCHANGED,
    FileState,
    Item,
    RuntimeFiles,
    observed,
    problem,
)

AS_MADE = FileState("file", device=1, inode=10, uid=990, mode=0o644, changed_ns=5)
GONE = FileState(None)
COPY = replace(AS_MADE, inode=99)
OTHERS = replace(AS_MADE, uid=1000)
OPENED = replace(AS_MADE, mode=0o666)
CHANGED = replace(AS_MADE, changed_ns=6)
LINK = replace(AS_MADE, kind="link")


@pytest.mark.parametrize("compare", [PRESENT, SAME, OWNED, UNCHANGED])
@pytest.mark.parametrize(
    ("found", "says", "from_"),
    [
        (AS_MADE, None, PRESENT),
        (GONE, "not there", PRESENT),
        (FileState("?"), "cannot be read", PRESENT),
        (LINK, "a symbolic link is in its place", PRESENT),
        (replace(AS_MADE, kind="directory"), "a directory is in its place", PRESENT),
        (replace(AS_MADE, kind="other"), "something else is in its place", PRESENT),
        (COPY, "another file has its name", SAME),
        (replace(AS_MADE, device=2), "another file has its name", SAME),
        (OTHERS, "belongs to user 1000, not 990", OWNED),
        (OPENED, "has mode 0666, not 0644", OWNED),
        (CHANGED, "was changed", UNCHANGED),
    ],
)
def test_what_is_wrong_with_a_file_depends_on_how_much_of_it_must_be_as_it_was(
    compare: str, found: FileState, says: str | None, from_: str
) -> None:
    order = [PRESENT, SAME, OWNED, UNCHANGED]
    expected = says if order.index(compare) >= order.index(from_) else None
    assert problem(AS_MADE, found, compare) == expected


class Machine:
    """Files by name, a clock, and what was put back."""

    def __init__(self, **found: FileState) -> None:
        self.found = dict(found)
        self.now_ns = 1000
        self.put_back: list[str] = []

    def look(self, path: str) -> FileState:
        return self.found.get(path, GONE)

    def maker(self, *names: str) -> Callable[[], None]:
        def make() -> None:
            for name in names:
                self.found[name] = replace(AS_MADE, inode=self.found.get(name, AS_MADE).inode + 1)
            self.put_back += names

        return make

    def watch(self, *items: Item) -> RuntimeFiles:
        return RuntimeFiles(items, self.look, lambda: self.now_ns, logging.getLogger("logd"))


def item(name: str, put_back: Callable[[], None] | None = None, compare: str = SAME) -> Item:
    return Item(name, lambda: name, compare, "nothing works", "Do something", put_back)


def test_what_is_gone_is_put_back_counted_and_logged_with_what_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(socket=AS_MADE)
    watched = machine.watch(item("socket", machine.maker("socket")))
    assert watched.check(1.0) is False
    del machine.found["socket"]
    machine.now_ns = 2000
    assert watched.check(2.0) is True
    assert machine.put_back == ["socket"]
    (entry,) = watched.published()
    assert (entry["restored"], entry["restored_ns"], entry["problem"]) == (1, 2000, None)
    assert caplog.messages == ["socket: socket: not there: put back"]
    assert watched.check(3.0) is False, "the new one is its own from now on"
    machine.found["socket"] = COPY
    assert watched.check(4.0) is True
    assert watched.published()[0]["restored"] == 2


def test_files_that_one_act_puts_back_are_put_back_once() -> None:
    machine = Machine(directory=AS_MADE, token=AS_MADE, rendezvous=AS_MADE)
    make = machine.maker("directory", "token", "rendezvous")
    watched = machine.watch(*(item(name, make) for name in ("directory", "token", "rendezvous")))
    machine.found.clear()
    watched.check(1.0)
    assert machine.put_back == ["directory", "token", "rendezvous"]
    assert [entry["restored"] for entry in watched.published()] == [1, 0, 0]


@pytest.mark.parametrize(
    "error", [CannotCreate("the folder is gone."), OSError(30, "Read-only file system")]
)
def test_what_cannot_be_put_back_is_reported_since_when_and_tried_again(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO)
    machine, tries = Machine(socket=AS_MADE), 0

    def make() -> None:
        nonlocal tries
        tries += 1
        raise error

    watched = machine.watch(item("socket", make))
    del machine.found["socket"]
    assert watched.check(1.0) is True
    machine.now_ns = 9000
    assert watched.check(2.0) is False, "nothing new"
    assert tries == 2
    (entry,) = watched.published()
    reason = "the folder is gone." if isinstance(error, CannotCreate) else "Read-only file system"
    assert entry["problem"] == f"not there; cannot be put back: {reason}"
    assert (entry["since_ns"], entry["restored"]) == (1000, 0)
    assert len(caplog.messages) == 1, "at a bounded rate"
    assert caplog.messages[0].endswith(f"{reason}: nothing works. Do something")
    machine.found["socket"] = AS_MADE
    assert watched.check(3.0) is True
    assert watched.published()[0]["problem"] is None
    assert caplog.messages[1:] == ["socket: socket is there again"]


def test_what_cannot_be_restored_is_reported_with_its_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(key=AS_MADE, token=AS_MADE)
    watched = machine.watch(item("key"), item("token", machine.maker("token")))
    machine.found.clear()
    watched.check(1.0)
    assert [entry["remedy"] for entry in watched.published()] == ["Do something", PUT_BACK]
    assert caplog.messages == [
        "key: key: not there: nothing works. Do something",
        "token: token: not there: put back",
    ]


def test_another_daemon_ends_this_one() -> None:
    machine = Machine(lock=AS_MADE)

    def make() -> None:
        raise AlreadyRunning("pid 7 has it")

    watched = machine.watch(item("lock", make))
    machine.found["lock"] = COPY
    with pytest.raises(AlreadyRunning):
        watched.check(1.0)


def test_a_file_that_was_not_there_at_the_start_may_come() -> None:
    machine = Machine()
    anchors = item("anchors")
    anchors.optional = True
    watched = machine.watch(anchors)
    assert watched.check(1.0) is False
    assert [file["problem"] for file in observed(watched.published(), machine.look, 7)] == [None]
    machine.found["anchors"] = AS_MADE
    assert [file["problem"] for file in observed(watched.published(), machine.look, 7)] == [None]
    assert watched.check(2.0) is False
    machine.found["anchors"] = COPY
    assert watched.check(3.0) is True
    assert watched.published()[0]["problem"] == "another file has its name"


def test_a_configuration_that_is_read_again_names_other_files() -> None:
    machine = Machine(lock=AS_MADE, old=AS_MADE, new=COPY)

    def items(anchors: str) -> list[Item]:
        return [item("lock"), Item("anchors", lambda: anchors, SAME, "nothing works")]

    watched = machine.watch(*items("old"))
    machine.found["lock"] = COPY
    assert watched.check(1.0) is True
    watched.replace(items("new"))
    del machine.found["old"]
    assert watched.check(2.0) is False
    lock, anchors = watched.published()
    assert (lock["problem"], anchors["path"], anchors["problem"]) == (
        "another file has its name",
        "new",
        None,
    )


def test_what_goes_during_the_start_is_put_back_too() -> None:
    machine = Machine()
    watched = machine.watch(item("token", machine.maker("token")))
    assert watched.check(1.0) is True
    assert machine.put_back == ["token"]


def test_what_another_version_has_published_is_passed_over() -> None:
    machine = Machine(socket=AS_MADE)
    (entry,) = machine.watch(item("socket")).published()
    without = {name: value for name, value in entry.items() if name != "remedy"}
    strange = entry | {"expected": {"kind": "file", "colour": "red"}}
    assert len(observed([without, strange, entry], machine.look, 7)) == 1


def test_it_is_due_once_in_an_interval() -> None:
    watched = Machine().watch()
    assert watched.is_due(5.0)
    watched.check(5.0)
    assert not watched.is_due(5.0 + CHECK_INTERVAL_S / 2)
    assert watched.is_due(5.0 + CHECK_INTERVAL_S)


def test_others_see_what_is_missing_while_the_daemon_stands_still() -> None:
    machine = Machine(socket=AS_MADE, key=AS_MADE)
    watched = machine.watch(item("socket", machine.maker("socket")), item("key"))
    published = watched.published()
    assert [file["problem"] for file in observed(published, machine.look, 7)] == [None, None]
    machine.found["socket"] = COPY
    seen = observed(published, machine.look, 7)
    assert [file["problem"] for file in seen] == ["another file has its name", None]
    assert [file["since_ns"] for file in seen] == [7, None]
    del machine.found["key"]
    watched.check(1.0)
    seen = observed(watched.published(), machine.look, 7)
    assert [(file["problem"], file["since_ns"]) for file in seen][1] == ("not there", 1000)
    assert (seen[0]["problem"], seen[0]["restored"]) == (None, 1)


def test_the_longest_problems_of_all_files_fit_into_their_pages(tmp_path: Path) -> None:
    path = tmp_path / "activity.db.lock"
    with instance_lock(path) as lock:
        machine = Machine()
        watched = machine.watch(*(item("/x" * 100 + str(n)) for n in range(10)))
        for one in watched.items:
            one.expected = replace(AS_MADE, inode=2**64 - 1, changed_ns=2**63)
            one.problem, one.since_ns = "é" * 1000, 2**62
        size = path.stat().st_size
        lock.publish_files(watched.published())
        assert path.stat().st_size == size
        assert read_runtime_files(path) == [], (
            "of no running daemon: this process's own lock does not show"
        )
        lock.publish_files([{"name": "x" * 10_000}])  # no room: left as it was
        assert path.stat().st_size == size
    assert b'"x' not in path.read_bytes()
    assert len(watched.published()[0]["problem"]) == PROBLEM_CHARS_MAX


def test_a_file_is_looked_at_without_following_a_link(tmp_path: Path) -> None:
    assert read_state(str(tmp_path / "nothing")) == GONE
    (tmp_path / "file").write_text("x")
    found = read_state(str(tmp_path / "file"))
    assert (found.kind, found.inode) == ("file", (tmp_path / "file").stat().st_ino)
    assert read_state(str(tmp_path / "file" / "below")) == GONE
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_state(str(tmp_path / "link")).kind == "link"
    assert read_state(str(tmp_path)).kind == "directory"
