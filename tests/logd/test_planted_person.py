"""A person planted in every shape is gone from every page after a forget, and nobody else is."""

from __future__ import annotations

import json
import struct
import time
import unicodedata
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from logd.batch import Batch
from logd.storage import keyfile
from logd.storage.mentions import ERASED
from logd_wire.schema import REPORT_READ
from logd_wire.wire import Event
from tests.logd.forgetting_clients import UID
from tests.logd.forgetting_scene import KEY, Scene
from tests.support import pages
from tests.support.instance import Instance

SHOP, SCHOOL, LOGD = 1001, 1002, 0  # uids
NOW_NS = time.time_ns()
FUTURE_NS = NOW_NS + 10 * 365 * 86_400 * 10**9

# Ids whose every spelling is recognised among the bytes of a page.
NUMBER, NAME = 867_530_942_117, "Zo\u00eb-\u00c5ngstr\u00f6m-4711"
NFC, NFD = (unicodedata.normalize(form, NAME) for form in ("NFC", "NFD"))
MIXED = NFD[:4] + NFC[3:]
FORMS = {
    str(NUMBER): [str(NUMBER).encode(), struct.pack(">Q", NUMBER), struct.pack(">d", NUMBER)],
    NAME: [NFC.encode(), NFD.encode(), MIXED.encode()],
}
# The user of an event, in all spellings that a client can send.
USERS = {str(NUMBER): [str(NUMBER), f"{NUMBER}.0"], NAME: [NFC, NFD, MIXED]}
# The id in properties.
VALUES: dict[str, list[Any]] = {
    str(NUMBER): [str(NUMBER), NUMBER, float(NUMBER), f"{NUMBER}.0"],
    NAME: [NFC, NFD, MIXED],
}


def naming(person: str) -> list[bytes]:
    """Packed properties of events of others that name the person."""
    shapes: list[dict[str, Any]] = []
    for value in VALUES[person]:
        shapes += [
            {"user": value},
            {"users": ["8", value, 9]},
            {"a": {"b": [{"studentId": value}]}, "n": 1},
            {"report": "timeline", "params": {"user": value}},
            {"teacher": {"id": value, "room": 4}},
            {"Teacher": {"Id": value, "Room": 4}},
            {"STUDENT_ID": value},
            {"members": [[value], {"id": value}]},
            {"pad": "x" * 5000, "owner": value},  # on pages of its own
        ]
        if isinstance(value, str):
            shapes += [
                {"users": {"8": 0.5, value: 0.25}},
                {"student": {value: {"score": 1}}},
                {"students": {"red": ["8", value]}},
            ]
    packed = [msgpack.packb(shape) for shape in shapes]
    packb = msgpack.packb
    twice = b"\x82" + packb("user") + packb(VALUES[person][0]) + packb("user") + packb("8")
    return [*packed, twice, b"\x81" + packb("deep") + b"\x91" + twice]


def figures(person: str) -> list[bytes]:
    """Packed properties in which the same number or text is no person."""
    value = VALUES[person][-1]
    number = NUMBER if person == str(NUMBER) else 7
    shapes: list[dict[str, Any]] = [
        {"user": {"score": number, "note": value}},
        {"user": {"id": "8", "points": [number, value]}},
        {"users": {"8": number}},
        {"users": number},
        {"task": value, "n": number},
        {"user": f"{value}1", "login": f"x{value}"},
    ]
    return [msgpack.packb(shape) for shape in shapes]


class Planted:
    """An instance without a daemon, and what was stored in it: by event, sender and properties."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.expected: dict[int, tuple[str | None, bytes]] = {}  # what no forget may change
        self.emitted = self.refused = 0

    def commit(
        self,
        uid: int,
        events: Sequence[tuple[str | None, bytes]],
        *,
        stays: bool,
        ts_ns: int = NOW_NS,
        kind: str = "group_graded",
        number: int = 7,
    ) -> None:
        """Stores events of a sender; with `stays` they must be the same bytes in the end."""
        store = self.instance.open_store()
        producer = store.producer(uid, number)
        producer.ended = True
        batch = Batch(10**6, 10**9)
        first = store.next_event
        for user, props in events:
            producer.taken += 1
            batch.add(producer, producer.taken, Event(kind, ts_ns, user, props), 1)
        store.commit(batch, NOW_NS)
        store.close()
        self.emitted += len(events)
        if stays:
            self.expected |= dict(enumerate(events, start=first))

    def quarantine(self, uid: int, text: str) -> None:
        store = self.instance.open_store()
        batch = Batch(100, 10**6)
        batch.add_quarantine(uid, 2, f"malformed: user {text}", f"...{text}".encode())
        store.commit(batch, NOW_NS)
        store.close()
        self.refused += 1

    def plant(self, person: str, uid: int, *, stays: bool, reading: bool = True) -> None:
        """Stores the person in every shape, as logged by one application."""
        plain = msgpack.packb({"task": 1, "pad": "y" * 3000})
        own = [(user, plain) for user in USERS[person]]
        self.commit(uid, own, stays=stays)
        self.commit(uid, own, stays=stays, kind="task_completed")
        self.commit(uid, own, stays=stays, ts_ns=FUTURE_NS)
        others = [("8", props) for props in naming(person)]
        self.commit(uid, others, stays=stays)
        self.commit(uid, [(None, props) for props in naming(person)], stays=stays, ts_ns=FUTURE_NS)
        if reading:
            read = {"report": "timeline", "params": {"user": USERS[person][0]}, "peer_uid": uid}
            asked = [
                ("8", msgpack.packb(read)),
                (USERS[person][0], msgpack.packb({**read, "params": {}})),
            ]
            self.commit(LOGD, asked, stays=stays, kind=REPORT_READ)
        self.quarantine(uid, USERS[person][0])

    def rows(self) -> dict[int, tuple[str | None, bytes]]:
        with self.instance.database(read_only=True) as connection:
            rows = connection.execute("SELECT id, user, props FROM event").fetchall()
        return {number: (user, bytes(props)) for number, user, props in rows}

    def others(self) -> dict[int, tuple[str | None, bytes]]:
        """Of `expected`, what is stored now."""
        return {number: row for number, row in self.rows().items() if number in self.expected}

    def check_sums(self) -> dict[str, int]:
        self.instance.cli("verify")
        with self.instance.database(read_only=True) as connection:
            counted = dict(connection.execute("SELECT name, value FROM counter").fetchall())
            left = connection.execute("SELECT count(*) FROM event").fetchone()[0]
        assert counted["stored"] - counted.get("own", 0) == self.emitted
        assert counted.get("quarantined", 0) == self.refused
        assert counted.get("lost", 0) == 0
        assert left == counted["stored"] - counted.get("erased", 0)
        return counted

    def found(self, values: list[bytes], but: list[bytes]) -> list[str]:
        """Where a value is in the pages, other than in these properties."""
        key = keyfile.read(self.instance.config.key_file)
        places = []
        for where, content in pages.pages(self.instance.config.database, key):
            for props in but:
                content = content.replace(props, b"")
            places += [f"{where}: {value!r}" for value in values if value in content]
        return places


@pytest.fixture
def planted(instance: Instance) -> Planted:
    with open(instance.config.path, "a") as file:
        file.write(f"apps.shop = {SHOP}\napps.school = [{SCHOOL}]\n")
        file.write(f"apps.both = [{SHOP}, {SCHOOL}]\n")
    return Planted(instance)


@pytest.mark.parametrize("person", [str(NUMBER), NAME])
def test_a_person_in_every_shape_is_in_no_page_and_others_are_as_they_were(
    planted: Planted, person: str
) -> None:
    planted.plant(person, SHOP, stays=False)
    planted.plant(person, SCHOOL, stays=False)
    same = figures(person)
    planted.commit(SHOP, [("8", props) for props in same], stays=True)
    (other,) = set(USERS) - {person}
    planted.plant(other, SHOP, stays=True)
    assert len(planted.found(FORMS[person], same)) > 20
    would = json.loads(planted.instance.cli("forget", person, "--dry-run", "--json"))
    erased = json.loads(planted.instance.cli("forget", USERS[person][-1], "--yes", "--json"))
    named = ("events", "redacted", "quarantine")
    assert [would[name] for name in named] == [erased[name] for name in named]
    assert erased["events"] == 2 * (3 * len(USERS[person]) + 1)
    assert erased["redacted"] == 2 * (2 * len(naming(person)) + 1)
    assert planted.found(FORMS[person], same) == []
    assert planted.others() == planted.expected
    # Late: made before, and of any claimed time up to the forget.
    planted.commit(SHOP, [("8", props) for props in naming(person)], stays=False, number=8)
    planted.commit(SHOP, [(user, b"\x80") for user in USERS[person]], stays=False, number=8)
    planted.commit(SHOP, [("8", props) for props in same], stays=True, number=8)
    assert planted.found(FORMS[person], same) == []
    assert planted.others() == planted.expected
    counted = planted.check_sums()
    assert counted["erased"] == erased["events"] + len(USERS[person])
    left = planted.instance.cli("person", person, "--format", "jsonl").splitlines()
    end = json.loads(left[-1])
    assert (end["event"], end["mention"], end["day"], end["subject"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("person", [str(NUMBER), NAME])
@pytest.mark.parametrize("app", ["shop", str(SHOP)])
def test_a_person_of_one_application_is_erased_and_that_of_another_is_not(
    planted: Planted, person: str, app: str
) -> None:
    instance = planted.instance
    planted.plant(person, SCHOOL, stays=True)
    planted.plant(person, SHOP, stays=False)
    ids = set(planted.rows()) - set(planted.expected)
    lines = instance.cli("person", person, "--app", app, "--format", "jsonl").splitlines()
    shown = [json.loads(line) for line in lines]
    assert {item["id"] for item in shown if item["kind"] in ("event", "mention")} == ids
    assert "Roll-ups" not in instance.cli("person", person, "--app", app)
    backup = instance.directory / "backup.db"
    instance.cli("backup", str(backup))
    erased = json.loads(instance.cli("forget", person, "--app", app, "--yes", "--json"))
    assert (erased["events"], erased["redacted"], erased["quarantine"]) == (
        3 * len(USERS[person]) + 1, 2 * len(naming(person)) + 1, 1,
    )  # fmt: skip
    check_shop_is_gone(planted, person)
    # Late, from both.
    late = [*((user, b"\x80") for user in USERS[person]), *(("8", p) for p in naming(person))]
    planted.commit(SHOP, late, stays=False, number=8)
    planted.commit(SCHOOL, late, stays=True, number=8)
    check_shop_is_gone(planted, person)
    assert planted.check_sums()["erased"] == erased["events"] + len(USERS[person])
    # A backup that is restored: the list has no names, and knows the application.
    for number in [n for n in planted.expected if n > max(ids)]:
        del planted.expected[number]
    instance.cli("restore", str(backup), "--yes")
    check_shop_is_gone(planted, person)


def test_an_application_may_run_as_several_users(planted: Planted) -> None:
    person = str(NUMBER)
    planted.plant(person, SHOP, stays=False)
    planted.plant(person, SCHOOL, stays=False)
    planted.commit(SCHOOL + 1, [(person, b"\x80"), ("8", naming(person)[0])], stays=True)
    planted.instance.cli("forget", person, "--app", "both", "--yes")
    assert planted.others() == planted.expected
    shown = planted.instance.cli("person", person, "--format", "jsonl").splitlines()[-1]
    assert (json.loads(shown)["event"], json.loads(shown)["mention"]) == (1, 1)
    planted.check_sums()


def check_shop_is_gone(planted: Planted, person: str) -> None:
    """Checks that nothing of the shop's is that person, and all of the school's is as it was."""
    assert planted.others() == planted.expected
    shown = planted.instance.cli("person", person, "--app", "shop", "--format", "jsonl")
    end = json.loads(shown.splitlines()[-1])
    assert (end["event"], end["mention"]) == (0, 0)
    rest = [row for number, row in planted.rows().items() if number not in planted.expected]
    for user, props in rest:
        if b"logd person" in props:
            continue  # recorded of this test's own commands
        assert user not in USERS[person]
        assert not any(form in props for form in FORMS[person]), props
    with planted.instance.database(read_only=True) as connection:
        kept = connection.execute("SELECT uid, excerpt <> x'' FROM quarantine").fetchall()
    assert sorted(kept) == [(SHOP, 0), (SCHOOL, 1)]
    planted.instance.cli("verify")


def test_a_person_is_named_by_a_file_and_an_unknown_application_is_refused(
    planted: Planted,
) -> None:
    user = "--x\0y\nz\\"
    planted.commit(SHOP, [(user, b"\x80"), ("8", msgpack.packb({"user": user}))], stays=False)
    file = planted.instance.directory / "user"
    cli = planted.instance.cli
    for content, options in (
        (user + "\n", ()),
        ("\ufeff" + user + "\r\n", ()),
        (r"--x\0y\nz\\".replace(r"\0", r"\x00"), ("--escaped",)),
    ):
        file.write_bytes(content.encode())
        end = cli("person", "--user-file", str(file), *options, "--format", "jsonl").splitlines()[
            -1
        ]
        assert (json.loads(end)["event"], json.loads(end)["mention"]) == (1, 1)
    assert "USER or by --user-file" in cli("person", code=2)
    assert "USER or by --user-file" in cli("forget", "7", "--user-file", str(file), code=2)
    file.write_bytes(b"\xff")
    assert "not valid text" in cli("forget", "--yes", "--user-file", str(file), code=2)
    file.write_bytes(b"x" * 10_000)
    assert "too long" in cli("forget", "--yes", "--user-file", str(file), code=2)
    file.write_bytes(b"")
    assert "empty" in cli("forget", "--yes", "--user-file", str(file), code=2)
    for app in ("root", "0"):  # a user of this machine, and its uid
        shown = cli("person", "7", "--app", app, "--format", "jsonl").splitlines()[0]
        assert json.loads(shown)["senders"] == [0]
    said = cli("forget", "7", "--yes", "--app", "nobody-of-that-name", code=2)
    assert "neither a name of apps" in said and "both, school, shop" in said
    file.write_bytes(user.encode())
    erased = json.loads(cli("forget", "--yes", "--json", "--user-file", str(file)))
    # One event names the person, and one for each time that `logd person` was asked.
    assert (erased["events"], erased["redacted"]) == (1, 1 + 3)
    planted.check_sums()


def test_what_is_refused_late_leaves_no_excerpt_and_what_is_refused_later_does(
    scene: Scene,
) -> None:
    """In an outbox at the forget: events, a refused one among them, of clocks that are ahead."""
    source = scene.new_source(outbox=True)
    scene.start()
    scene.step_all()
    refused = msgpack.packb(["Not A Type", FUTURE_NS, "anna-of-quarantine", b"\x80"])

    def write() -> None:
        assert source.writer is not None
        good = msgpack.packb(["login", FUTURE_NS, "anna", b"\x80"])
        named = msgpack.packb(["login", FUTURE_NS, "8", msgpack.packb({"students": {"anna": 1}})])
        for payload in (good, refused, named):
            assert source.writer.append(payload) is not None

    scene.end()
    write()
    scene.ask()
    while scene.forgets[-1].ended is None or scene.store is not None:
        scene.work_offline()
    write()
    scene.settle()
    rows = scene.connection.execute(
        "SELECT sequence, reason, length(excerpt) > 0 FROM quarantine ORDER BY id"
    ).fetchall()
    assert [(sequence, ":" in reason, excerpt) for sequence, reason, excerpt in rows] == [
        (2, False, 0), (5, True, 1),
    ]  # fmt: skip
    events = scene.connection.execute(
        "SELECT sequence, user, props FROM event WHERE producer ="
        " (SELECT id FROM producer WHERE uid = ? AND key = ?) ORDER BY id",
        (UID, f"{source.id:016x}"),
    ).fetchall()
    assert [(sequence, user, msgpack.unpackb(props)) for sequence, user, props in events] == [
        (3, "8", {"students": {ERASED: 1}}), (4, "anna", {}), (6, "8", {"students": {"anna": 1}}),
    ]  # fmt: skip
    counted = scene.counters()
    assert counted["stored"] - counted["own"] + counted["quarantined"] == 6
    assert (counted["erased"], counted.get("lost", 0)) == (1, 0)
    assert pages.found(scene.config.database, KEY, [b"anna-of-quarantine"]), "of the later one"
