"""The parsers of a stranger's bytes, fuzzed: `fuzzing.py` says what must hold of each.

The kept inputs are replayed, then hypothesis makes some; `make test-long` looks further, guided by
coverage. An input that found something goes into `KEPT`, or into a file under corpus/TARGET/.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logd.config.table import SETTINGS
from logd.reports.registry import REPORTS
from logd_wire.outbox.reader import find_record
from logd_wire.schema import PAYLOAD_BYTES_MAX
from logd_wire.wire import check_whole, decode_record, encode_record
from tests.faults import fuzzing
from tests.faults.fuzzing import SEED, TARGETS, begin_with
from tests.support.instance import ROOT
from tests.support.progress import Progress
from tests.support.tally import Tally

CORPUS = Path(__file__).parent / "corpus"
FUZZ_S = 120


def _sealed(*payloads: bytes) -> bytes:
    return b"".join(struct.pack("<HQ", len(p), n) + p for n, p in enumerate(payloads, start=1))


def _event(props: object) -> bytes:
    return bytes(msgpack.packb(["page_view", 1, None, msgpack.packb(props)]))


# What has found something, with what it found.
KEPT: list[tuple[str, str, bytes]] = [
    ("payload", "68 MiB and 0.1 s for one event", b"\xdc\x7f\xff" * 10_000),
    (
        "payload",
        "the same inside props",
        _event({"a": 1})[:-8] + b"\xc5\x27\x10" + b"\xdc" * 10_000,
    ),
    ("frame", "512 MiB for one request", b"\0\0\xff\x00" + b"\xdc\xff\xff" * 21_760),
    (
        "sealed",
        "a reason of 24 KiB",
        _sealed(_event({"k" * 8000: {"l" * 8000: {"m" * 8000: b""}}})),
    ),
    (
        "sealed",
        "a quarantine row for each record of a datagram whose numbers jump",
        b"".join(struct.pack("<HQ", 0, n) for n in (1, 2**62, 2**62 + 1, 2**62 + 2)),
    ),
    ("configuration", "RecursionError", b"database = " + b"[" * 3000),
    ("configuration", "ValueError", b"batch_events_max = " + b"1" * 5000),
    ("configuration", "ValueError in the message", b"batch_events_max = 0x" + b"f" * 5000),
    ("configuration", "a message of 100 KiB", b'many_users = "' + b"a" * 100_000 + b'"'),
    ("configuration", "a message of 100 KiB", b"a" * 100_000 + b" = 1"),
]


def _kept_files() -> Iterator[tuple[str, str, bytes]]:
    for path in sorted(CORPUS.glob("*/*")):
        yield path.parent.name, path.name, path.read_bytes()


@pytest.fixture(autouse=True, scope="module")
def clean_up() -> Iterator[None]:
    """The database that queries are asked of is made once, and goes at the end."""
    yield
    if fuzzing._reporter.cache_info().currsize:
        shutil.rmtree(fuzzing.reporter_directory())
        fuzzing._reporter.cache_clear()


@pytest.mark.parametrize(
    ("target", "data"),
    [pytest.param(t, data, id=f"{t}: {found}") for t, found, data in (*KEPT, *_kept_files())],
)
def test_what_once_found_something_finds_nothing_any_more(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_begins_with_holds(target: str) -> None:
    for data in begin_with(target):
        TARGETS[target](data)


bounded = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False
)

_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20)
    | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@bounded
@given(st.lists(_values, max_size=6), st.binary(max_size=30), st.integers(0, 200))
def test_a_payload_is_an_event_that_packs_to_itself_or_malformed(
    fields: list[object], tail: bytes, cut: int
) -> None:
    fields[:2] = [f if i % 2 else "page_view" for i, f in enumerate(fields[:2])]
    packed = msgpack.packb(fields) + tail
    for data in (packed, packed[:cut], packed[: -1 - len(tail)]):
        fuzzing.payload(data)


@bounded
@given(st.dictionaries(st.text(max_size=5), _values, max_size=5), st.integers(0, 2**64 - 1))
def test_props_of_any_shape_are_stored_or_quarantined(
    props: dict[str, object], sequence: int
) -> None:
    packed = msgpack.packb(["page_view", sequence % 2**63, None, msgpack.packb(props)])
    fuzzing.payload(packed)
    fuzzing.sealed(struct.pack("<HQ", len(packed), sequence) + packed)


_numbers = st.sampled_from([0, 1, 2, 3, 1001, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1])


@bounded
@given(st.lists(st.tuples(_numbers, st.binary(max_size=40)), max_size=8), st.binary(max_size=20))
def test_a_datagram_costs_one_refusal_at_most_and_no_neighbour(
    records: list[tuple[int, bytes]], noise: bytes
) -> None:
    fuzzing.sealed(b"".join(struct.pack("<HQ", len(p), n) + p for n, p in records))
    for data in begin_with("datagram"):
        for at in range(0, len(data), 7):
            fuzzing.datagram(data[:at] + noise + data[at + len(noise) :])
    fuzzing.record(encode_record(SEED, 1, noise) + noise)


_counts = st.integers(-1, 2**64 - 1) | st.sampled_from([None, True, 1.5, "1", [1], {"a": 1}])


@bounded
@given(st.dictionaries(st.text(max_size=34), _counts, max_size=18))
def test_a_farewell_says_the_same_again_or_is_damaged(refused: dict[str, object]) -> None:
    fuzzing.farewell(msgpack.packb(refused))


_words = st.sampled_from([0, 1, 2, 3, 4, 8, 9, 16, 17, 24, 25])
_patches = st.one_of(
    st.tuples(_words.map(lambda word: word * 8), _numbers.map(lambda n: n.to_bytes(8, "little"))),
    st.tuples(
        _words.map(lambda word: word * 8),
        st.integers(0, 200).map(lambda n: n.to_bytes(8, "little")),
    ),
    st.tuples(st.integers(4096, 4096 + 65535), st.binary(max_size=40)),
)


@settings(bounded, max_examples=25)
@given(st.integers(0, 255), st.lists(_patches, max_size=6))
def test_an_outbox_is_read_within_bounds_whatever_is_written_into_it(
    watermark: int, patches: list[tuple[int, bytes]]
) -> None:
    fuzzing.outbox(
        bytes([watermark])
        + b"".join(at.to_bytes(3, "little") + bytes([len(patch)]) + patch for at, patch in patches)
    )


@settings(bounded, max_examples=25)
@given(
    st.sampled_from([*REPORTS, "none"]),
    st.dictionaries(
        st.sampled_from(
            ["type", "user", "users", "limit", "before_id", "since_ns", "since_day", "until_day"]
            + ["subjects", "after", "buckets", "subject", "more"]
        ),
        _values,
        max_size=4,
    ),
    _values,
)
def test_a_query_of_any_shape_is_answered_by_one_frame(
    report: str, params: dict[str, object], asked_by: object
) -> None:
    asked = {"v": 1, "report": report, "params": params, "asked_by": asked_by}
    body = msgpack.packb(asked)
    fuzzing.frame(len(body).to_bytes(4, "big") + body + b"\0\0")


_settings = st.sampled_from([*SETTINGS, "[table]", "x", ""])
_toml = st.one_of(
    st.integers(-5, 2**64).map(str), st.sampled_from(["true", "[1, 2]", "[]", "{}", "1e3", "nan"]),
    st.text(max_size=200).map(lambda text: f'"{text}"'), st.text(max_size=10),
)  # fmt: skip


@bounded
@given(st.lists(st.tuples(_settings, _toml), max_size=5), st.binary(max_size=40))
def test_a_configuration_is_usable_or_a_config_error(
    lines: list[tuple[str, str]], noise: bytes
) -> None:
    text = "\n".join(f"{name} = {value}" for name, value in lines)
    fuzzing.configuration(text.encode("utf-8", "replace"))
    fuzzing.configuration(text.encode("utf-8", "replace") + noise)


def test_nothing_packed_takes_memory_that_it_does_not_fill() -> None:
    """Arrays in arrays, each of which claims more items than there are bytes."""
    for opening in (b"\xdc\x7f\xff", b"\xdd\0\0\x7f\xff", b"\x91\xdc\x7f\xf0", b"\x93\xdc\x00\xff"):
        for size in (500, 5000, PAYLOAD_BYTES_MAX):
            data = (opening * size)[:size]
            tracemalloc.start()
            fuzzing.payload(data)
            # The same one level further in, where the payload around it is sound.
            fuzzing.payload(msgpack.packb(("page_view", 1, None, data)))
            fuzzing.frame(len(data).to_bytes(4, "big") + data)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert most < 2_000_000, (opening, size)
    check_whole(msgpack.packb([[1, 2, 3] * 200, {"a": [None] * 300}]))  # what is whole passes


RING_BYTES = 8 * 1024 * 1024


def test_a_search_looks_at_a_bounded_part_of_a_ring_full_of_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A million words, each of which looks like the head of a short record."""
    checks = 0

    def counted(data: bytes, offset: int, seed: int) -> tuple[int, bytes, int]:
        nonlocal checks
        checks += 1
        return decode_record(data, offset, seed)

    monkeypatch.setattr("logd_wire.outbox.reader.decode_record", counted)
    head = (5).to_bytes(8, "little")
    assert find_record(lambda _, length: head * (length // 8), RING_BYTES, SEED, 1, 100) is None
    assert 0 < checks <= 4 * RING_BYTES // 1024


def test_a_search_takes_memory_for_a_piece_of_the_ring_only() -> None:
    read = 0

    def read_at(_offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return bytes(length)

    tracemalloc.start()
    assert find_record(read_at, RING_BYTES, SEED, 1, 100) is None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert RING_BYTES <= read <= 1.1 * RING_BYTES
    assert most < RING_BYTES


@pytest.mark.long(minutes=FUZZ_S / 60)
@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_guided_by_coverage_finds_nothing(
    target: str, directory: Path, tally: Tally, progress: Progress
) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs the package `atheris` in the environment: pip install atheris")
    corpus = directory / "corpus"
    corpus.mkdir()
    for number, (_, _, data) in enumerate(k for k in (*KEPT, *_kept_files()) if k[0] == target):
        (corpus / f"kept-{number}").write_bytes(data)
    command = [sys.executable, "-m", "tests.faults.fuzzing", target, str(corpus)]
    command += [f"-max_total_time={FUZZ_S}", "-max_len=40000", f"-artifact_prefix={directory}/"]
    with open(directory / "log", "w+") as log:
        fuzzer = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            for _ in progress(range(FUZZ_S), f"fuzzing {target}, seconds"):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    fuzzer.wait(1)
                    break
            fuzzer.wait(FUZZ_S)
        finally:
            fuzzer.kill()
            fuzzer.wait()
        log.seek(0)
        said = log.read()
    found = [(path.name, path.read_bytes().hex()) for path in directory.glob("crash-*")]
    assert (fuzzer.returncode, found) == (0, []), said[-3000:]
    runs = re.findall(r"Done (\d+) runs", said)
    tally.say(f"fuzzing {target}: {int(runs[0]):,} inputs, nothing found")


logging.getLogger("logd.reports").setLevel(logging.ERROR)
