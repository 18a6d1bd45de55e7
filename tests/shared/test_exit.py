"""What is emitted while a process ends is accepted, or its refusal is counted and reported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from logd_client import Client
from logd_wire.rendezvous import RENDEZVOUS_SUFFIX
from tests.support import client_parts as parts
from tests.support.instance import DEADLINE_S, ROOT, Instance, until

HEAD = "import atexit, logging, multiprocessing, os, sys, threading, time\n"
IMPORT = "from logd_client import Client\nc = Client(sys.argv[1]); c.emit('a_first')\n"

# Each prints what `emit` returned for its one event `b_last`.
ENDS = {
    "exit handler, registered after the client's": IMPORT
    + "atexit.register(lambda: print(c.emit('b_last')))",
    "exit handler, registered before the client's": "atexit.register(lambda: "
    "print(c.emit('b_last')))\n" + IMPORT,
    "exit handler with a client of its own": "def last():\n"
    "    global c\n"
    "    c = Client(sys.argv[1]); print(c.emit('b_last'))\n"
    "atexit.register(last)\n" + IMPORT,
    "destructor": IMPORT + "class D:\n    def __del__(self): print(c.emit('b_last'))\nkept = D()",
    "logging handler at shutdown": IMPORT
    + "class H(logging.Handler):\n    def close(self): print(c.emit('b_last')); super().close()\n"
    "kept = H()",
    "thread that outlives the main one": IMPORT
    + "def last():\n    threading.main_thread().join(); print(c.emit('b_last'))\n"
    "threading.Thread(target=last).start()",
    "exit handler of a forked child": "atexit.register(lambda: pid or print(c.emit('b_last')))\n"
    + IMPORT
    + "pid = os.fork()\nif pid: os.waitpid(pid, 0)",
    "child of multiprocessing": IMPORT + "def last(): print(c.emit('b_last'), flush=True)\n"
    "child = multiprocessing.get_context('fork').Process(target=last)\n"
    "child.start(); child.join()",
    "child that leaves by os._exit": IMPORT
    + "pid = os.fork()\nif not pid: print(c.emit('b_last'), flush=True); os._exit(0)\n"
    "os.waitpid(pid, 0)",
}


def run(program: str, instance: Instance) -> list[str]:
    """What the program prints; it is ended by force when it does not end by itself."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + program, instance.socket],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def check(instance: Instance, *, last: int, refused: int = 0) -> None:
    state: dict[str, Any] = {}

    def is_reported() -> bool:
        state.update(instance.status())
        return bool(state["refused_by_clients"] == refused and state["pending"] == 0)

    until(is_reported, "all is stored and reported")
    assert len(instance.events("--type", "b_last")) == last
    assert (state["lost"], state["quarantined"]) == (0, 0)


def test_whatever_emits_while_a_process_ends_is_accepted(instance: Instance) -> None:
    for name, program in ENDS.items():
        assert run(program, instance) == ["True"], name
    instance.start()
    check(instance, last=len(ENDS))


def test_without_an_outbox_too(instance: Instance) -> None:
    """The farewell at exit has ended the numbers: what follows is another producer's."""
    instance.start()
    Path(instance.socket + RENDEZVOUS_SUFFIX).unlink()
    names = [name for name in ENDS if "registered" in name or "destructor" in name]
    for name in names:
        assert run(ENDS[name], instance) == ["True"], name
    late = "atexit.register(lambda: print(c.emit('b_last', user=1.5)))\n" + IMPORT
    assert run(late, instance) == ["False"]
    assert run(IMPORT + "print(c.emit('a_second', user=1.5))", instance) == ["False"]
    check(instance, last=len(names), refused=2)


@pytest.mark.parametrize("has_outbox", [True, False])
def test_what_a_closed_client_refuses_is_reported_once(
    instance: Instance, has_outbox: bool
) -> None:
    """At once, then at a bounded rate, and the rest at the process's end and after it."""
    instance.start()
    if not has_outbox:
        Path(instance.socket + RENDEZVOUS_SUFFIX).unlink()
    program = """
        atexit.register(lambda: print(c.emit('b_last')))
        from logd_client import Client
        c = Client(sys.argv[1])
        c.emit('a_first'); c.emit('a_second', user=1.5)
        c.close()
        print([c.emit('b_last') for _ in range(5)], c.stats()['refused_by_cause'])
    """
    lines = run(textwrap.dedent(program), instance)
    assert lines == [f"{[False] * 5} {{'malformed': 1, 'closed': 5}}", "False"]
    check(instance, last=0, refused=7)


def test_a_refusal_of_a_closed_client_is_reported_while_its_process_lives(
    instance: Instance,
) -> None:
    instance.start()
    client = Client(instance.socket)
    assert client.emit("page_view")
    client.close()
    assert not client.emit("page_view")
    check(instance, last=0, refused=1)
    assert parts.current(client) is None
    assert [client.emit("page_view") for _ in range(3)] == [False] * 3
    assert parts.refusals(client).unreported(parts.refusals(client).by_cause) == {"closed": 3}
    parts.end_process(client)
    check(instance, last=0, refused=4)


def test_a_report_that_fails_raises_nothing(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(instance.socket)
    client.close()

    def fail() -> None:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(parts.producers(client), "make", fail)
        assert not client.emit("page_view")
    parts.end_process(client)
    assert parts.refusals(client).unreported(parts.refusals(client).by_cause) == {}


def test_a_thread_that_the_end_has_stopped_inside_keeps_no_destructor_waiting(
    instance: Instance,
) -> None:
    """When Python ends, its daemon threads stop wherever they are."""
    program = """
        go = threading.Event()
        atexit.register(lambda: until_inside())
        from logd_client import Client
        c = Client(sys.argv[1]); c.emit('a_first')
        def hold(nested):
            inside.set()
            threading.Event().wait()
        def stay(run=c._guard.run):
            go.wait()
            run(hold)
        inside = threading.Event()
        def until_inside():
            go.set(); inside.wait()
        threading.Thread(target=stay, daemon=True).start()
        class D:
            def __init__(self, client): self.client = client
            def __del__(self, write=os.write): write(1, b'%r' % self.client.emit('b_last'))
        module = type(sys)('another'); module.kept = D(c); sys.modules['another'] = module
        del module, c
    """
    assert run(textwrap.dedent(program), instance) == ["True"]
    instance.start()
    check(instance, last=1)
