"""The filters of events find what a filter over all events finds, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit.verify import verify
from logd.maintenance.event_removal import Steps
from logd.maintenance.search_index import SearchIndex
from logd.reports import event_counts, event_search, time_order
from logd.reports.parameters import BadParameter
from logd.storage import block_values
from logd.storage.mentions import DEFAULT_KEYS, is_person
from logd.storage.removal_log import ERASED, PRUNED
from logd.storage.rollups import DAY_NS
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.query import Answer
from logd_wire.wire import Event
from tests.logd.naive_search import every, naive
from tests.logd.test_reports import Trail

EVENTS = BLOCK_EVENTS + 3000
RARE_EVERY = 1500
TYPES = ("page_view",) * 12 + ("profile_viewed", "quiz_submitted", "login")
USERS = ("1", "2", "3", "4", None)
SECOND_NS = 10**9

# Properties with every kind of value and place; each is in a few events.
ODD: list[dict[str, Any]] = [
    {"status": 403},
    {"status": "403", "view_args": {"user_id": 4}},
    {"view_args": {"user_id": "4", "deep": [{"user": 17}, {"user": "rare"}]}},
    {"users": [4, "5"], "flag": True, "none": None},
    {"users": {"7": 0.4, "red": ["8"]}, "flag": 1, "x": 1.0},
    {"a.b": {"c=d": "e=f"}, "": "empty", "x": [[1, 2], []]},
    {"student": {"id": 9, "score": 4}, "text": "Straße in ISTANBUL, 300 \u212aelvin"},
    {"message": "\u0130zmir \ufb01nd", "user": 4.0},
    {"line": "two\nlines\0zero", "long": "x" * 300 + "needle" + "y" * 300},
    {"report": "timeline", "params": {"user": "4"}},
    {"KEY_of_interest": [], "m": {}},
    {f"k{number}": number for number in range(40)},
]


def made_up(seed: int = 1) -> Iterator[Event]:
    """Events a second apart, some of another time; each with an id of its own and a measured time,
    some with odd properties.
    """
    rng = random.Random(seed)
    for number in count():
        ts_ns = (10**6 + number + rng.randrange(-50, 50)) * SECOND_NS
        if rng.randrange(500) == 0:
            ts_ns = rng.randrange(10**15)
        props: dict[str, Any] = {"route": rng.choice(["/", "/a", "/b"]), "status": 200}
        if number % 3:
            props |= {"request_id": f"{rng.getrandbits(128):032x}", "ms": rng.random()}
        if rng.randrange(RARE_EVERY) < len(ODD):
            props |= rng.choice(ODD)
        if number % 4000 == 77:
            props |= {f"path{number}_{at}": "some" for at in range(100)}
        yield Event(rng.choice(TYPES), ts_ns, rng.choice(USERS), msgpack.packb(props))


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trail]:
    made = Trail(tmp_path_factory.mktemp("search") / "a.db")
    events = made_up()
    while part := list(islice(events, min(5000, EVENTS - made.producer.taken))):
        put(made, part)
    yield made
    assert verify(made.store.connection).findings == []
    made.store.close()


def put(trail: Trail, events: list[Event]) -> None:
    batch = batch_of(trail, events)
    trail.store.commit(batch, 5)
    batch.mark_committed()


def batch_of(trail: Trail, events: list[Event]) -> Any:
    from logd.batch import Batch

    batch = Batch(10**6, 10**9)
    for event in events:
        trail.producer.taken += 1
        batch.add(trail.producer, trail.producer.taken, event, 1)
    return batch


def index(trail: Trail, steps: int = 10**6) -> None:
    work = SearchIndex(trail.store)
    for _ in range(steps):
        if not work.work():
            return


# -- the slow way


CHOICES: dict[str, list[Any]] = {
    "type": ["page_view", "profile_viewed", "never_seen"],
    "types": [["login", "quiz_submitted"], [], ["page_view"], ["login", "never_seen"]],
    "user": ["1", "4", "u9"],
    "users": [["1", "2", "u9"], [], ["3"]],
    "since_ns": [0, (10**6 + 9000) * SECOND_NS, 12 * DAY_NS],
    "until_ns": [10**15, (10**6 + 20_000) * SECOND_NS, 12 * DAY_NS, 5],
    "about": ["4", "4.0", "5", "7", "8", "9", "17", "rare", "red", "u9", "(erased)"],
    "props": [
        ["status=403"], ["view_args.user_id=4"], ["status=200"], ["users=4"], ["users=5"],
        ["users.7=0.4"], ["flag=true"], ["flag=1"], ["x=1.0"], ["x=1"], ["x=2"], ["none=null"],
        ["a.b.c=d=e=f"], ["=empty"], ["view_args.deep.user=17", "status=200"], ["route=/a"],
        ["params.user=4", "report=timeline"], ["path77_3=some"], ["path4077_99=some"], ["k7=7"],
        ["status=403", "view_args.user_id=4"], ["line=two\nlines\0zero"], ["m="], ["nosuch=1"],
    ],
    "text": [
        "STRASSE", "straße", "istanbul", "kelvin", "i\u0307zmir", "find", "needle", "profile",
        "key_OF", "PATH8077_3", "zero", "\0", "user", "rare", "0", "/B", "never there", "Y" * 255,
    ],
}  # fmt: skip


def filters(rng: random.Random, number: int) -> Iterator[dict[str, Any]]:
    """Each choice alone, then any together."""
    for name, values in CHOICES.items():
        yield from ({name: value} for value in values)
    for _ in range(number):
        names = rng.sample(sorted(CHOICES), rng.choice((2, 2, 3, 4)))
        yield {name: rng.choice(CHOICES[name]) for name in names}


def ask_all(
    trail: Trail, report: str, asked: dict[str, Any], pages_max: int = 10**5
) -> list[tuple[int, int]]:
    """All rows of the pages, each asked for as PROTOCOL.md says."""
    found: list[tuple[int, int]] = []
    place: dict[str, Any] = {}
    for _ in range(pages_max):
        page = trail.ask(report, **asked, **place)
        found += [(row["ts_ns"], row["id"]) for row in page.rows]
        if page.next is None:
            assert page.searched_to_ns is None
            return found
        assert page.searched_to_ns is not None
        assert all(row["ts_ns"] >= page.searched_to_ns for row in page.rows)
        after = {"before_id": page.next, "before_ns": page.searched_to_ns}
        assert after != place, "each page comes further"
        place = after
    assert pages_max < 10**5, "without end"
    return found


def compare(trail: Trail, rng: random.Random, sample: int | None) -> None:
    rows = every(trail)
    chosen = list(filters(rng, 30))
    for asked in chosen if sample is None else rng.sample(chosen, sample):
        wanted = naive(rows, asked)
        report, limit = rng.choice([("events", 200), ("events_export", 1000)])
        found = ask_all(trail, report, {**asked, "limit": limit}, 2)
        assert found == wanted[: 2 * limit], asked


def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (event_search, "PAGE_S"), (event_search, "EXPORT_PAGE_S"), (event_counts, "COUNT_S")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 100.0)


def compare_in_each_state(
    trail: Trail, monkeypatch: pytest.MonkeyPatch, rng: random.Random, sample: int | None
) -> None:
    """Without values of blocks, with some, with all; and after some events went."""
    unhurried(monkeypatch)
    blocks = "SELECT count(*) FROM block_search"
    assert trail.store.connection.execute(blocks).fetchone() == (0,)
    compare(trail, rng, sample)
    index(trail, steps=20)
    assert trail.store.connection.execute(blocks).fetchone() == (1,)
    compare(trail, rng, sample)
    index(trail)
    assert trail.store.connection.execute(blocks).fetchone() == (2,)
    for common in (0, time_order.COMMON_PARTS, 64):
        monkeypatch.setattr(time_order, "COMMON_PARTS", common)
        compare(trail, rng, sample)
    monkeypatch.undo()
    unhurried(monkeypatch)
    remove(trail, rng)
    assert trail.store.connection.execute(blocks).fetchone() < (2,)
    compare(trail, rng, sample)
    index(trail)
    compare(trail, rng, sample)
    put(trail, list(islice(made_up(2), 700)))
    compare(trail, rng, sample)
    assert verify(trail.store.connection).findings == []


def test_filters_find_what_a_filter_over_all_events_finds(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_in_each_state(trail, monkeypatch, random.Random(5), 9)


@pytest.mark.long(minutes=5)
@pytest.mark.parametrize("seed", range(5))
def test_every_filter_finds_what_a_filter_over_all_events_finds(
    directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    trail = Trail(directory / "a.db")
    events = made_up(seed)
    while part := list(islice(events, min(5000, EVENTS - trail.producer.taken))):
        put(trail, part)
    compare_in_each_state(trail, monkeypatch, random.Random(seed), None)
    trail.store.close()


def remove(trail: Trail, rng: random.Random) -> None:
    """Prunes the first events and some others, erases some, and a person from others."""
    connection = trail.store.connection
    gone = [*range(1, 300), *sorted(rng.sample(range(300, BLOCK_EVENTS), 50))]
    steps = Steps(trail.store)
    steps.remove(PRUNED, gone[:320], {}, lambda _: None)
    steps.remove(ERASED, gone[320:], {}, lambda _: None)
    changed = {
        number: new
        for number, props in connection.execute("SELECT id, props FROM event").fetchall()
        if (new := DEFAULT_KEYS.redact(props, is_person("17"))) is not None
    }
    assert changed
    steps.redact(changed, lambda _: None)


@pytest.mark.parametrize("indexed", [False, True])
def test_pages_that_end_early_leave_nothing_out(
    trail: Trail, indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as early as can be."""
    rng = random.Random(7)
    if indexed:
        index(trail)
    else:
        block_values.forget(trail.store.connection, range(10))
    monkeypatch.setattr(event_search, "PAGE_S", 0.0)
    monkeypatch.setattr(time_order, "EXAMINED_MIN", 700)
    rows = every(trail)
    for asked in rng.sample(list(filters(rng, 30)), 5):
        limit = rng.choice((3, 200))
        wanted = naive(rows, asked)
        if len(wanted) < 20 * limit:
            assert ask_all(trail, "events", {**asked, "limit": limit}) == wanted, asked


def test_work_for_a_page_is_bounded_and_the_page_says_up_to_where(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_values.forget(trail.store.connection, range(10))
    monkeypatch.setattr(event_search, "PAGE_S", 0.0)
    pages: list[Answer] = []
    place: dict[str, Any] = {}
    while not pages or pages[-1].next is not None:
        pages.append(trail.ask("events", props=["nosuch=1"], **place))
        place = {"before_id": pages[-1].next, "before_ns": pages[-1].searched_to_ns}
    assert len(pages) > 5 and not any(page.rows for page in pages)
    times = [page.searched_to_ns or 0 for page in pages[:-1]]
    assert times == sorted(times, reverse=True)
    assert trail.ask("events", limit=7).next, "a question of before always has a whole page"


@pytest.mark.parametrize("by", ["type", "day"])
@pytest.mark.parametrize("hurried", [False, True])
def test_counts_are_those_of_the_events_from_the_time_on_that_they_say(
    trail: Trail, by: str, hurried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_counts, "COUNT_S", 0.002 if hurried else 100.0)
    index(trail)
    rng, rows, partial = random.Random(3), every(trail), 0
    of = {known.row["id"]: known.row for known in rows}
    for asked in rng.sample(list(filters(rng, 40)), 20):
        answer = trail.ask("event_counts", by=by, **asked)
        assert answer.next is None
        assert hurried or answer.searched_to_ns is None
        since_ns = answer.searched_to_ns or 0
        partial += since_ns > 0
        wanted = Counter(
            of[number]["type"] if by == "type" else ts_ns // DAY_NS
            for ts_ns, number in naive(rows, asked)
            if ts_ns >= since_ns
        )
        assert {row[by]: row["events"] for row in answer.rows} == wanted, asked
        if by == "day":
            assert [row["day"] for row in answer.rows] == sorted(wanted, reverse=True)
    assert hurried is (partial > 0)


def test_one_event_by_its_id_and_how_it_was_removed(trail: Trail) -> None:
    connection = trail.store.connection
    if connection.execute("SELECT 1 FROM removed").fetchone() is None:
        remove(trail, random.Random(5))
    there = {number for (number,) in connection.execute("SELECT id FROM event")}
    kinds = {
        number: kind
        for first, last, kind in connection.execute(
            "SELECT r.first, r.last, m.kind FROM removed r JOIN removal m ON m.id = r.removal"
        )
        for number in range(first, last + 1)
    }
    assert set(kinds.values()) == {PRUNED, ERASED}
    for number in (*random.Random(1).sample(sorted(there), 20), max(there)):
        answer = trail.ask("event", id=number)
        assert [row["id"] for row in answer.rows] == [number]
        assert answer.removed is None
        (row,) = answer.rows
        assert row == next(r for r in trail.ask("events", limit=200, before_ns=row["ts_ns"],
                           before_id=number + 1).rows if r["id"] == number)  # fmt: skip
    for number, kind in random.Random(2).sample(sorted(kinds.items()), 50):
        answer = trail.ask("event", id=number)
        assert (answer.rows, answer.removed) == ([], kind)
    for number in (0, max(there) + 1, 2**63 - 1):
        assert trail.ask("event", id=number).removed is None


@pytest.mark.parametrize(
    "bad",
    [
        {"props": ["status"]}, {"props": "status=1"}, {"props": ["a=1"] * 17},
        {"props": ["a=" + "x" * 1000]}, {"text": ""}, {"text": "x" * 256}, {"about": ""},
        {"about": 4}, {"types": "login"}, {"users": [4]}, {"text": 5}, {"limit": 1001},
        {"by": "type"}, {"id": 5},
    ],
)  # fmt: skip
def test_a_filter_of_another_form_is_refused(trail: Trail, bad: dict[str, Any]) -> None:
    with pytest.raises(BadParameter, match=next(iter(bad))):
        trail.ask("events_export", **bad)


def test_counts_by_something_else_are_refused(trail: Trail) -> None:
    with pytest.raises(BadParameter, match="by: expected type or day"):
        trail.ask("event_counts", by="user")


def test_in_every_block_a_wrong_clock_and_no_time_a_page_still_comes_further(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block may have an event of the time at which a page begins."""
    monkeypatch.setattr(event_search, "PAGE_S", 0.0)
    trail = Trail(directory / "a.db")
    rng = random.Random(1)
    props = [msgpack.packb({"n": number}) for number in range(10)]
    for _ in range(3):
        put(trail, [Event("login", rng.randrange(10**6), "1", rng.choice(props))
                    for _ in range(BLOCK_EVENTS)])  # fmt: skip
    rows = every(trail)
    for indexed in (False, True):
        if indexed:
            index(trail)
        for asked in (
            {"props": ["n=3"], "until_ns": 9000},
            {"props": ["n=x"], "since_ns": 990_000},
        ):
            assert ask_all(trail, "events", asked) == naive(rows, asked)
    trail.store.close()


def test_of_a_time_that_is_not_searched_whole_no_event_is_counted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = Trail(directory / "a.db")
    put(trail, [Event("login", 6 if n < 30 else 5, "1", b"\x81\xa1n\x01") for n in range(300)])
    late = iter([False] * 4)
    monkeypatch.setattr(time_order.Search, "_is_late", property(lambda _: next(late, True)))
    answer = trail.ask("event_counts", props=["n=1"])
    assert (answer.rows[0]["events"], answer.searched_to_ns) == (30, 6)
    trail.store.close()


def test_a_property_of_a_path_too_many_is_found(directory: Path) -> None:
    trail = Trail(directory / "a.db")
    put(trail, [Event("login", n, "1", msgpack.packb({f"p{n}": 1})) for n in range(600)])
    index(trail)
    assert trail.store.connection.execute("SELECT more FROM block_search").fetchone() == (1,)
    for number in (3, 299, 450):
        (row,) = trail.ask("events", props=[f"p{number}=1"]).rows
        assert row["ts_ns"] == number
    trail.store.close()
