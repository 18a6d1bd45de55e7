"""Forks at any moment: each process is a producer of its own, whoever made it."""

from __future__ import annotations

import json
import os
import secrets

import pytest

from logd_client import Client
from logd_wire import forks
from tests.shared.client_scene import run_child
from tests.support.instance import Instance, check_streams, check_sums


def test_a_mark_is_true_in_its_own_process_and_false_in_each_child() -> None:
    mark, seen = forks.current().mark, os.pipe()
    if os.fork() == 0:
        grandchild = forks.current().mark
        first = (mark[0], grandchild[0])
        if (pid := os.fork()) == 0:
            os.write(seen[1], json.dumps([first, mark[0], grandchild[0]]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os._exit(0)
    os.wait()
    text = os.read(seen[0], 100)
    for fd in seen:
        os.close(fd)
    assert json.loads(text) == [[0, 1], 0, 0]
    assert mark[0] == 1
    assert forks.current() is forks.current()


def test_threads_of_a_child_agree_on_its_generation_also_one_fork_further() -> None:
    """A child forked in the middle of finding out is not taken for its parent."""
    parent = forks.Generation()
    parent.mark = [0]  # as it reads in a child
    child = parent.child()
    assert parent.child() is child
    child.mark = [0]  # and in a grandchild
    before, forks._current = forks._current, parent
    try:
        found = forks.current()
    finally:
        forks._current = before
    assert found not in (parent, child)
    assert found.mark[0] == 1


def test_where_the_kernel_wipes_no_page_the_process_id_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "_MADV_WIPEONFORK", 99_999)
    mark, (read, write) = forks._new_mark(), os.pipe()
    if os.fork() == 0:
        os.write(write, bytes([mark[0]]))
        os._exit(0)
    os.wait()
    assert (mark[0], os.read(read, 1)) == (1, b"\0")
    os.close(read)
    os.close(write)


def test_processes_that_c_code_forks_are_producers_of_their_own(instance: Instance) -> None:
    """uWSGI forks its workers without Python's hooks, after the application has logged an event."""
    instance.start()
    results = run_child(
        "assert c.emit('app_started') and c.flush(30)\n"
        "read, write = os.pipe()\n"
        "kids = []\n"
        "for number in range(3):\n"
        "    pid = libc.fork()\n"
        "    if pid == 0:\n"
        "        assert c.stats()['accepted'] == 0 and c.flush(0)\n"
        "        n = sum(c.emit('page_view', user=str(number)) for _ in range(500))\n"
        "        line = [n, c.stats()['accepted'], c.flush(30)]\n"
        "        os.write(write, (json.dumps(line) + '\\n').encode())\n"
        "        os._exit(0)\n"
        "    kids.append(pid)\n"
        "mine = sum(c.emit('page_view', user='master') for _ in range(500))\n"
        "for pid in kids: assert os.waitpid(pid, 0)[1] == 0\n"
        "os.close(write)\n"
        "lines = [json.loads(line) for line in os.fdopen(read)]\n"
        "print(json.dumps([mine, c.stats()['accepted'], c.flush(30), lines]))\n",
        instance,
    )
    assert results == [500, 501, True, [[500, 500, True]] * 3]
    status = instance.settle()
    assert sorted(check_streams(instance.events()).values()) == [500, 500, 500, 501]
    check_sums(status, attempted=2001, accepted=2001)
    assert status["lost"] == 0


def test_a_guard_that_a_parent_s_thread_holds_does_not_stop_a_child(instance: Instance) -> None:
    """The thread that would let go of it is not in the child."""
    results = run_child(
        "assert c.emit('app_started')\n"
        "held, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    c._guard.run(lambda nested: (held.set(), done.wait()))\n"
        "threading.Thread(target=hold, daemon=True).start(); held.wait()\n"
        "pid = libc.fork()\n"
        "if pid == 0:\n"
        "    os._exit(0 if c.emit('page_view') and c.stats()['accepted'] == 1 else 1)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]); done.set()\n"
        "print(json.dumps(code))\n",
        instance,
    )
    assert results == 0
    assert instance.status()["pending"] == 2


def test_a_wait_that_c_code_forks_in_claims_nothing_in_the_child(instance: Instance) -> None:
    results = run_child(
        "child = code = None\n"
        "def fork(*_):\n"
        "    global child, code\n"
        "    child = libc.fork()\n"
        "    if child: code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "signal.signal(signal.SIGALRM, fork)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "outcome = c.emit_durable('quiz_submitted', timeout_s=0.5)\n"
        "if child == 0:\n"
        "    ok = outcome.value == 'unknown' and c.stats()['unsettled'] == 0\n"
        "    c.close(); os._exit(0 if ok else 1)\n"
        "print(json.dumps([outcome.value, code, c.stats()['accepted']]))\n",
        instance,
    )
    assert results == ["unknown", 0, 2]
    instance.start()
    assert instance.settle()["stored"] == 3  # the event, and that it is unknown, by each of the two
    producers = [e["props"].get("producer") for e in instance.events() if e["props"]]
    assert len(set(producers)) == 1


def test_an_outbox_s_name_that_is_taken_has_another_id_drawn(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child forked by a signal handler right after the id was drawn may have made it first."""
    ids = iter([5, 5, 6, 7])
    with Client(instance.socket) as first, Client(instance.socket) as second:
        monkeypatch.setattr(secrets, "randbits", lambda _: next(ids))
        assert first.emit("page_view") and second.emit("page_view")
        reasons = [client.stats()["outbox"]["reason"] for client in (first, second)]
        assert (reasons, next(ids)) == ([None, None], 7)


@pytest.mark.parametrize("call", ["c.emit('page_view')", "c.flush(0.01)", "c.stats()", "c.close()"])
@pytest.mark.parametrize("fork", ["os.fork", "libc.fork"])
def test_a_child_forked_while_its_parent_waits_for_another_thread_does_not_wait(
    instance: Instance, call: str, fork: str
) -> None:
    """A signal handler forks in the thread that waits; the other one is not in the child."""
    results = run_child(
        "inside, leave, children = threading.Event(), threading.Event(), []\n"
        "write = c._session.write\n"
        "def slow(*args):\n"
        "    c._session.write = write; inside.set(); leave.wait(); return write(*args)\n"
        "c._session.write = slow\n"
        "def handler(*_):\n"
        f"    children.append({fork}())\n"
        "    leave.set()\n"
        "    if not children[0]: signal.signal(signal.SIGALRM, signal.SIG_DFL); signal.alarm(20)\n"
        "signal.signal(signal.SIGALRM, handler)\n"
        "thread = threading.Thread(target=lambda: c.emit('page_view'))\n"
        "thread.start(); inside.wait()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        f"{call}\n"
        "if children == [0]: os._exit(0)\n"
        "thread.join()\n"
        "print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])))\n",
        instance,
    )
    assert results == 0


def test_a_child_forked_while_its_parent_is_begun_again_begins_its_own(instance: Instance) -> None:
    results = run_child(
        "assert c.emit('page_view')\n"
        "if (pid := libc.fork()) == 0:\n"
        "    closing, go_on = threading.Event(), threading.Event()\n"
        "    close = c._producers.current.close\n"
        "    c._producers.current.close = lambda: (closing.set(), go_on.wait(), close())\n"
        "    thread = threading.Thread(target=lambda: c.emit('page_view'))\n"
        "    thread.start(); closing.wait()\n"
        "    if (other := libc.fork()) == 0:\n"
        "        go_on.set(); os._exit(0 if c.emit('page_view') else 1)\n"
        "    go_on.set(); thread.join()\n"
        "    os._exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))\n"
        "print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))\n",
        instance,
    )
    assert results == 0


def test_a_fork_in_the_middle_of_an_emit_splits_into_two_clean_producers(
    instance: Instance,
) -> None:
    """A signal handler forks while the main thread is anywhere inside emit, a hundred times."""
    instance.start()
    accepted = run_child(
        "c = Client(sys.argv[1], outbox_bytes=3 * 65536)\n"  # of one ring, so of one producer
        "children = []\n"
        "def handler(*_):\n"
        "    if in_child: return\n"  # forked just before the loop sets the timer, it sets one too
        "    pid = os.fork()\n"
        "    if pid: children.append(pid)\n"
        "    else: globals()['in_child'] = True\n"
        "in_child = False\nsignal.signal(signal.SIGALRM, handler)\n"
        "total = 0\n"
        "while len(children) < 100 and not in_child:\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.0002)\n"
        "    for _ in range(100):\n"
        "        total += c.emit('page_view', user='parent')\n"
        "        if in_child: break\n"
        "if in_child:\n"
        "    assert c.emit('page_view', user='child')\n"
        "    assert c.stats()['accepted'] <= 2, c.stats()\n"
        "    os._exit(0)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "codes = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in children]\n"
        "assert codes == [0] * len(codes), codes\n"
        "assert c.flush(30)\nprint(json.dumps([total, c.stats()['accepted'], len(children)]))\n",
        instance,
    )
    total, by_stats, children = accepted
    assert total == by_stats
    status = instance.settle()
    streams = check_streams(instance.events())
    assert status["lost"] == 0
    assert max(streams.values()) == total
    assert status["stored"] == sum(streams.values())
    # A child that was forked inside an emit may have that one refused, and emits one of its own.
    assert all(1 <= n <= 2 for n in streams.values() if n != total)
    assert len(streams) == children + 1


def test_a_child_that_never_emits_touches_nothing(instance: Instance) -> None:
    files = run_child(
        "c.emit('page_view')\npid = os.fork()\n"
        "if pid == 0: sys.exit(0)\n"
        "os.waitpid(pid, 0)\nassert c.emit('page_view')\n"
        f"print(json.dumps(os.listdir({str(instance.config.outbox_directory)!r})))\n",
        instance,
    )
    assert len(files) == 2  # the token, and one outbox
    assert instance.status()["pending"] == 2


def test_a_child_that_python_did_not_fork_writes_no_farewell_for_its_parent(
    instance: Instance,
) -> None:
    """A C library may fork past Python's hooks; its child still runs what Python runs at exit."""
    farewells = run_child(
        "import logd_client.client\nfrom logd_wire.outbox.layout import WORD_FAREWELL\n"
        "c.emit('page_view')\npid = ctypes.CDLL(None).fork()\n"
        "if pid == 0:\n    logd_client.client._end_clients()\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nwords = c._producers.current.outbox.writer._words\n"
        "before = words[WORD_FAREWELL]\nassert c.emit('page_view')\n"
        "print(json.dumps(before))\n",
        instance,
    )
    assert farewells == 0
    assert instance.status()["pending"] == 2
