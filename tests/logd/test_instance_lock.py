"""The lock file: one daemon, and a page that reports why nothing can be stored."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from logd import instance_lock as lock
from logd.errors import AlreadyRunning, CannotCreate
from logd.instance_lock import (
    FILE_BYTES,
    PAGE_BYTES,
    TROUBLE_CHARS_MAX,
    Page,
    instance_lock,
    read_lock_page,
    read_runtime_stats,
)
from logd.runtime_stats import COMMIT_BOUNDS_S, IGNORED_SENDERS_MAX, RuntimeStats
from logd.serve import usage
from tests.support.instance import ROOT

KINDS = ("duplicates", "early", "farewells", "skipped", "closings")
SENDER = {"uid": 2**32 - 1, "pid": 2**31 - 1, **dict.fromkeys(KINDS, 2**63)}
HUGE = RuntimeStats(
    *(2**63,) * 4, 1e300, 1 / 3, 2**63, *(1 / 3,) * 3, (2**63,) * (len(COMMIT_BOUNDS_S) + 1),
    2**63, 1 / 3, *(2**63,) * 4, (SENDER,) * IGNORED_SENDERS_MAX, False,
    2**63, 2**63, "f" * 64, False, 2**63,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "activity.db.lock"


def said(path: Path) -> Page:
    """As another process reads it: one that closes the file would let go of its own lock."""
    code = (
        "import sys\nfrom dataclasses import astuple\nfrom pathlib import Path\n"
        "from logd.instance_lock import read_lock_page\n"
        "print(repr(astuple(read_lock_page(Path(sys.argv[1]))[1])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Page(*eval(done.stdout))


HOLDER = """
import sys
from pathlib import Path
from logd.instance_lock import instance_lock
with instance_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def held_by_another(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_trouble_is_known_by_its_beginning_until_it_is_over(path: Path) -> None:
    clock = iter((100, 200, 300))
    with instance_lock(path, lambda: next(clock)) as lock:
        assert said(path) == Page(os.getpid())
        lock.set_trouble("full")
        assert said(path) == Page(os.getpid(), False, "full", 100)
        lock.set_trouble("locked")  # another reason, and still nothing is stored
        assert said(path) == Page(os.getpid(), False, "locked", 100)
        lock.set_trouble(None)
        assert said(path) == Page(os.getpid())
        lock.set_trouble("full")
        assert said(path).since_ns == 200


def test_saying_it_takes_no_block_that_is_not_there_yet(path: Path) -> None:
    with instance_lock(path) as lock:
        before = path.stat()
        lock.publish_stats(HUGE)
        for trouble in ("x", "é\N{GRINNING FACE}\n" * 1000, "y" * 10_000, None):
            lock.set_trouble(trouble)
            after = path.stat()
            assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)
            assert after.st_size == FILE_BYTES
            assert said(path).trouble == (trouble and trouble[:TROUBLE_CHARS_MAX])


@pytest.mark.parametrize("where", [b"{", b"full", b"}\n"])
def test_a_torn_page_reports_nothing_and_prevents_no_start(path: Path, where: bytes) -> None:
    with instance_lock(path) as lock:
        lock.set_trouble("full")
    page = bytearray(path.read_bytes())
    page[page.index(where)] ^= 1
    path.write_bytes(page)
    assert read_lock_page(path) == (None, Page())
    with instance_lock(path):
        assert said(path) == Page(os.getpid())


def test_a_database_once_made_is_remembered_by_later_daemons(path: Path) -> None:
    with instance_lock(path) as lock:
        assert not lock.database_made
        lock.mark_database_made()
    with instance_lock(path) as lock:
        assert lock.database_made
        lock.set_trouble("full")
    assert read_lock_page(path) == (
        None,
        Page(os.getpid(), True, "full", read_lock_page(path)[1].since_ns),
    )


def test_a_second_daemon_reports_the_pid_of_the_first(path: Path) -> None:
    with held_by_another(path) as holder:
        assert read_lock_page(path)[0] == holder.pid
        with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}"), instance_lock(path):
            pass
        assert read_lock_page(path)[0] == holder.pid  # and the page is the first one's still
        assert read_lock_page(path)[1].pid == holder.pid
        holder.communicate()
    assert read_lock_page(path)[0] is None


@pytest.mark.parametrize("left", ["nothing", "a copy"])
def test_a_lock_file_that_was_removed_is_made_again_and_keeps_others_away(
    path: Path, left: str
) -> None:
    with instance_lock(path) as lock:
        lock.mark_database_made()
        lock.set_trouble("full")
        kept = path.read_bytes()[:PAGE_BYTES]
        path.unlink()
        if left == "a copy":
            path.write_bytes(b"torn")
        lock.put_back()
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        ) as second:  # fmt: skip
            assert f"another logd (pid {os.getpid()}) serves" in second.communicate()[1]
        # To read it here closes it, which drops this process's lock: not before.
        assert path.read_bytes()[:PAGE_BYTES] == kept
        lock.set_trouble(None)
        assert read_lock_page(path)[1].trouble is None, "what it says is written there from now on"


def test_a_lock_file_that_is_moved_back_before_it_is_made_again_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close either descriptor of it drops this process's lock."""
    path = tmp_path / "activity.db.lock"

    def check_is_locked() -> None:
        with pytest.raises(AssertionError):
            held_by_another(path).communicate()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with instance_lock(path) as lock:
        lock.put_back()
        check_is_locked()
        monkeypatch.setattr(lock, "_lay_out", refuse)
        with pytest.raises(OSError):
            lock.put_back()
        check_is_locked()


def test_a_daemon_whose_lock_file_another_has_by_now_ends(path: Path) -> None:
    with instance_lock(path) as lock:
        path.unlink()
        with held_by_another(path) as other:
            with pytest.raises(AlreadyRunning, match=f"pid {other.pid}"):
                lock.put_back()
            other.communicate()


def test_without_a_file_no_daemon_runs_and_nothing_is_reported(path: Path) -> None:
    assert read_lock_page(path) == (None, Page())


def test_figures_are_there_for_others_while_it_runs_and_when_it_is_gone(path: Path) -> None:
    assert read_runtime_stats(path) is None
    with instance_lock(path) as lock:
        lock.publish_stats(HUGE)
        lock.set_trouble("full")
        lock.publish_stats(RuntimeStats(events=7, room_s=2.5))
    assert read_runtime_stats(path) == RuntimeStats(events=7, room_s=2.5)
    with instance_lock(path):
        pass  # ended before it had any
    assert read_runtime_stats(path) == RuntimeStats(events=7, room_s=2.5)
    assert read_lock_page(path)[1].trouble is None


def test_the_largest_figures_fit_into_their_page(path: Path) -> None:
    with instance_lock(path) as lock:
        lock.publish_stats(HUGE)
    assert path.stat().st_size == FILE_BYTES
    assert read_runtime_stats(path) == HUGE


def test_figures_of_a_daemon_that_counted_no_senders_are_read(path: Path) -> None:
    """An upgrade: the last daemon wrote its page before there were any."""
    from logd.instance_lock import _encode

    fields = asdict(RuntimeStats(events=7))
    del fields["ignored"]
    with instance_lock(path) as lock:
        lock.publish_stats(RuntimeStats())
    with path.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(_encode(fields))
    assert read_runtime_stats(path) == RuntimeStats(events=7)


@pytest.mark.parametrize("page", [b"", b"{}", b"[]\n", b"\xff" * 100, b'{"from": "tomorrow"}'])
def test_figures_that_are_torn_or_of_another_version_are_ignored(path: Path, page: bytes) -> None:
    from logd.instance_lock import _encode

    with instance_lock(path) as lock:
        lock.publish_stats(RuntimeStats(events=7))
    with path.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(_encode({"from": "tomorrow"}) if b"tomorrow" in page else page.ljust(PAGE_BYTES))
    assert read_runtime_stats(path) is None


def test_report_usage_has_a_page_of_its_own_that_holds_a_full_table(
    path: Path,
) -> None:
    table = usage.Usage()
    for uid in range(2**32 - usage.USERS_MAX, 2**32):
        user = table.of(uid)
        user.questions = user.let_go = user.put_off = 2**63
        user.running_s = 1e12 / 3
    with instance_lock(path):
        pass
    assert lock.read_report_usage(path) == [], "nobody yet"
    size = path.stat().st_size
    lock.publish_readers(path, table.rows())
    assert (len(lock.read_report_usage(path)), path.stat().st_size) == (usage.USERS_MAX, size)
    assert lock.read_report_usage(path) == table.rows()
    with instance_lock(path):
        pass
    assert lock.read_report_usage(path) == [], "not an earlier daemon's"


def test_the_table_of_report_usage_is_bounded_and_keeps_the_heaviest_user() -> None:
    table = usage.Usage()
    table.of(1).running_s = 5
    for uid in range(2, 1000):
        table.of(uid).questions = 1
    assert len(table.rows()) == usage.USERS_MAX
    assert table.rows()[0]["uid"] == 1


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_in_its_place_reads_as_a_missing_one(
    path: Path, make: Callable[[Path], None]
) -> None:
    """And nobody waits for the writer of a FIFO."""
    make(path)
    assert read_lock_page(path) == (None, Page())
    assert read_runtime_stats(path) is None
    assert lock.read_runtime_files(path) == [] and lock.read_report_usage(path) == []
    with pytest.raises(CannotCreate, match=r"activity\.db\.lock"), instance_lock(path):
        pass
