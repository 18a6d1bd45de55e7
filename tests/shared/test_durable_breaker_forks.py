"""Durable waits in forked children and beside signal handlers, while the daemon hangs."""

from __future__ import annotations

from tests.shared.client_scene import account, run_child
from tests.shared.hung_daemon import (
    go_on,
    stop,
)
from tests.support.instance import Instance
from tests.support.tally import Tally


def test_a_forked_child_waits_for_itself(instance: Instance, tally: Tally) -> None:
    """Its parent's timeout is not its own; and what opens in the child stays there."""
    instance.start()
    stop(instance)
    got = run_child(
        "import time\n"
        "def hand_in(timeout_s):\n"
        "    begun = time.monotonic()\n"
        "    assert c.emit_durable('quiz_submitted', timeout_s=timeout_s) is Outcome.UNKNOWN\n"
        "    return time.monotonic() - begun\n"
        "hand_in(0.3)\n"
        "assert c.stats()['durable_breaker'] == {'open': True, 'skipped': 0}\n"
        "if os.fork() == 0:\n"
        "    waited = hand_in(0.5)\n"
        "    ok = waited >= 0.5 and c.stats()['durable_breaker'] == {'open': True, 'skipped': 0}\n"
        "    ok = ok and hand_in(1.0) < 0.5 and c.stats()['durable_breaker']['skipped'] == 1\n"
        "    c.close()\n"
        "    os._exit(not ok)\n"
        "code = os.waitstatus_to_exitcode(os.wait()[1])\n"
        "print(json.dumps([code, hand_in(1.0), c.stats()['durable_breaker'], c.stats()]))\n",
        instance,
    )
    code, waited_s, breaker, stats = got
    assert code == 0
    assert waited_s < 0.5 and breaker == {"open": True, "skipped": 1}
    go_on(instance)
    both = {name: stats[name] + extra for name, extra in (("attempted", 4), ("accepted", 4))}
    account(tally, instance, {**both, "refused": 0})


def test_a_child_forked_in_the_middle_of_a_wait_begins_with_a_closed_one(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    stop(instance)
    code, breaker = run_child(
        "child = code = None\n"
        "def fork(*_):\n"
        "    global child, code\n"
        "    child = os.fork()\n"
        "    if child: code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "signal.signal(signal.SIGALRM, fork)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "c.emit_durable('quiz_submitted', timeout_s=0.6)\n"
        "if child == 0:\n"
        "    ok = c.stats()['durable_breaker'] == {'open': False, 'skipped': 0}\n"
        "    os._exit(not ok)\n"
        "print(json.dumps([code, c.stats()['durable_breaker']]))\n",
        instance,
    )
    assert (code, breaker) == (0, {"open": True, "skipped": 0})
    go_on(instance)
    account(tally, instance, {"attempted": 3, "accepted": 3, "refused": 0})


def test_handlers_that_raise_in_a_wait_leave_no_place_taken(
    instance: Instance, tally: Tally
) -> None:
    """Many times, in a breaker with one place: otherwise nobody would wait afterwards."""
    instance.start()
    stop(instance)
    places, open_, waited_s, stats = run_child(
        "import time\n"
        "class Abort(Exception): pass\n"
        "def abort(*_): raise Abort\n"
        "signal.signal(signal.SIGALRM, abort)\n"
        "c = Client(sys.argv[1], durable_waiters=1)\n"
        "for n in range(40):\n"
        # Again after half a second: the client may swallow the first one before it waits.
        "    signal.setitimer(signal.ITIMER_REAL, 0.004 + n * 0.0001, 0.5)\n"
        "    try: c.emit_durable('quiz_submitted', timeout_s=60)\n"
        "    except Abort: pass\n"
        "    finally: signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "places, open_ = len(c._producers.breaker._waiting), c._producers.breaker.is_open\n"
        "begun = time.monotonic()\n"
        "assert c.emit_durable('quiz_submitted', timeout_s=0.4) is Outcome.UNKNOWN\n"
        "print(json.dumps([places, open_, time.monotonic() - begun, c.stats()]))\n",
        instance,
    )
    assert (places, open_) == (0, False), "none of them has timed out"
    assert waited_s >= 0.4
    go_on(instance)
    account(tally, instance, stats)
