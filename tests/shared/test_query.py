"""The query protocol: frames with limits, and a client that reports why there is no answer."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logd_wire import query
from logd_wire.paths import SOCKET_PATH_BYTES_MAX, PathTooLong
from logd_wire.query import (
    REQUEST_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    Answer,
    FrameError,
    QueryClient,
    QueryError,
    Unavailable,
    encode_frame,
    read_frame,
    text_parts,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
messages = st.dictionaries(st.text(max_size=10), plain, max_size=5)


class Stream:
    """A stream that gives at most so many bytes at once, and counts what was asked for."""

    def __init__(self, data: bytes, at_once: int = 10**9) -> None:
        self.data = data
        self.at_once = at_once
        self.most_asked = 0

    def read(self, length: int) -> bytes:
        self.most_asked = max(self.most_asked, length)
        length = min(length, self.at_once)
        part, self.data = self.data[:length], self.data[length:]
        return part


# -- frames --------------------------------------------------------------------------------------


@given(st.lists(messages, max_size=4), st.integers(1, 7))
def test_frames_come_out_of_a_stream_as_they_went_in_however_it_is_cut(
    given_messages: list[dict[str, Any]], at_once: int
) -> None:
    stream = Stream(b"".join(map(encode_frame, given_messages)), at_once)
    found = []
    while (message := read_frame(stream.read, REQUEST_BYTES_MAX)) is not None:
        found.append(message)
    assert found == given_messages


@given(st.binary(max_size=100), st.booleans())
@example(b"\xdd\xff\xff\xff\xff", True)
@example(b"\x91" * 90, True)
def test_arbitrary_bytes_are_a_map_or_no_frame(data: bytes, with_length: bool) -> None:
    stream = Stream(struct.pack("!I", len(data)) + data if with_length else data)
    with contextlib.suppress(FrameError):
        assert isinstance(read_frame(stream.read, REQUEST_BYTES_MAX), dict | None)


def test_a_frame_over_the_limit_is_refused_before_any_of_it_is_read() -> None:
    stream = Stream(struct.pack("!I", REQUEST_BYTES_MAX + 1) + bytes(100))
    with pytest.raises(FrameError, match="over the limit of 65536"):
        read_frame(stream.read, REQUEST_BYTES_MAX)
    assert stream.most_asked == 4


def test_a_frame_of_exactly_the_limit_is_read() -> None:
    overhead = len(msgpack.packb({"a": "x" * 60_000})) - 60_000
    message = {"a": "x" * (REQUEST_BYTES_MAX - overhead)}
    frame = encode_frame(message)
    assert len(frame) == 4 + REQUEST_BYTES_MAX
    assert read_frame(Stream(frame).read, REQUEST_BYTES_MAX) == message


def test_an_answer_over_the_limit_is_refused_by_its_sender() -> None:
    with pytest.raises(FrameError, match="over the limit"):
        encode_frame({"rows": "x" * RESPONSE_BYTES_MAX})


def test_a_stream_that_ends_between_frames_has_just_ended() -> None:
    assert read_frame(Stream(b"").read, REQUEST_BYTES_MAX) is None


# -- the client ----------------------------------------------------------------------------------


class Asker(int, enum.Enum):
    """A number whose text is not its decimal digits."""

    TWO = 2


class Server:
    """A report process that answers with given bytes, and keeps what it was asked."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.path = str(path)
        self.asked: list[dict[str, Any] | None] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            self.asked.append(read_frame(peer.recv, REQUEST_BYTES_MAX))
            if self._answer is not None:
                peer.sendall(self._answer)
            else:
                peer.recv(1)  # until the client has given up

    def close(self) -> None:
        with contextlib.suppress(OSError):  # ends accept() if no client has connected
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(self.path)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def serve(directory: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(answer: bytes | None) -> Server:
        servers.append(Server(directory / "q.sock", answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_question_carries_its_version_its_asker_and_only_given_parameters(serve: Any) -> None:
    server = serve(encode_frame({"ok": True, "rows": [{"a": 1}], "next": 7}))
    answer = QueryClient(server.path).ask("timeline", asked_by="2", user="7", before_id=None)
    assert answer == Answer([{"a": 1}], 7)
    assert server.asked == [
        {"v": 1, "report": "timeline", "asked_by": "2", "params": {"user": "7"}}
    ]


@pytest.mark.parametrize(("asked_by", "named"), [("2", "2"), (2, "2"), (Asker.TWO, "2")])
def test_asked_by_is_checked_as_users_of_events_are(serve: Any, asked_by: Any, named: str) -> None:
    server = serve(encode_frame({"ok": True, "rows": []}))
    QueryClient(server.path).ask("summary", asked_by=asked_by)
    assert server.asked[0]["asked_by"] == named


@pytest.mark.parametrize(
    "asked_by", [object(), b"2", 2.0, True, "", 2**63, "\ud800"], ids=lambda value: repr(value)[:9]
)
def test_an_invalid_asked_by_is_refused_before_anything_is_sent(
    directory: Path, asked_by: Any
) -> None:
    with pytest.raises(QueryError, match="asked_by") as refused:
        QueryClient(str(directory / "q.sock")).ask("summary", asked_by=asked_by)
    assert refused.value.code == "bad_parameter"


def test_a_refusal_is_raised_with_its_code(serve: Any) -> None:
    server = serve(encode_frame({"ok": False, "error": "forbidden", "message": "not you"}))
    with pytest.raises(QueryError, match="not you") as refused:
        QueryClient(server.path).ask("summary")
    assert refused.value.code == "forbidden"
    assert not isinstance(refused.value, Unavailable)


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0\0", struct.pack("!I", RESPONSE_BYTES_MAX + 1), b"\0\0\0\1\xc1", b"\0\0\0\1\x90"],
    ids=["closed", "cut", "too long", "no msgpack", "no map"],
)
def test_an_invalid_answer_makes_the_report_unavailable(serve: Any, answer: bytes) -> None:
    server = serve(answer)
    with pytest.raises(Unavailable):
        QueryClient(server.path).ask("summary")


def test_a_daemon_that_does_not_answer_is_unavailable_after_the_timeout(serve: Any) -> None:
    server = serve(None)
    before_s = time.monotonic()
    with pytest.raises(Unavailable, match="timed out"):
        QueryClient(server.path, timeout_s=0.02).ask("summary")
    assert time.monotonic() - before_s < 1


def test_an_answer_that_trickles_in_is_unavailable_after_the_timeout(directory: Path) -> None:
    """One timeout for all of it: each byte comes well within it."""
    gone = threading.Event()
    frame = encode_frame({"ok": True, "rows": [{"text": "x" * 300}], "next": None})

    def trickle(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            for byte in frame:
                peer.send(bytes([byte]))
                gone.wait(0.01)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / "q.sock"))
        listener.listen()
        serving = threading.Thread(target=lambda: trickle(listener.accept()[0]))
        serving.start()
        try:
            with pytest.raises(Unavailable, match="timed out"):
                QueryClient(str(directory / "q.sock"), timeout_s=0.1).ask("summary")
        finally:
            gone.set()
            serving.join()


def test_a_full_queue_of_connections_is_waited_for_in_order(directory: Path) -> None:
    """The kernel refuses at once a peer that does not wait: silent peers would keep others out."""
    path = str(directory / "q.sock")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(path)
        listener.listen(0)
        silent = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        silent.connect(path)
        with pytest.raises(Unavailable, match="too many others in front"):
            QueryClient(path, timeout_s=0.05).ask("summary")
        answers: list[Answer] = []
        asking = threading.Thread(
            target=lambda: answers.append(QueryClient(path, timeout_s=20).ask("summary"))
        )
        asking.start()
        asking.join(0.1)
        assert asking.is_alive(), "it waits, and is not refused"
        listener.accept()[0].close()  # the silent one
        peer, _ = listener.accept()
        with peer:
            read_frame(peer.recv, REQUEST_BYTES_MAX)
            peer.sendall(encode_frame({"ok": True, "rows": [], "next": None}))
        asking.join()
        assert answers == [Answer()]


def test_a_refusal_before_the_query_is_received_all_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`busy` to one that has not asked yet: its question then has nowhere to go."""
    path = str(directory / "q.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        connect = query._connect

        def connect_and_be_refused(sock: socket.socket, path: str, timeout_s: float) -> None:
            connect(sock, path, timeout_s)
            peer, _ = listener.accept()
            with peer:
                peer.sendall(encode_frame({"ok": False, "error": "busy", "message": "later"}))

        monkeypatch.setattr(query, "_connect", connect_and_be_refused)
        with pytest.raises(QueryError, match="later") as refused:
            QueryClient(path).ask("summary")
        assert refused.value.code == "busy"


def test_a_daemon_that_is_away_is_unavailable_at_once(directory: Path) -> None:
    with pytest.raises(Unavailable, match="Is it running"):
        QueryClient(str(directory / "q.sock")).ask("summary")


def test_a_path_too_long_for_a_socket_is_a_clear_error() -> None:
    QueryClient("/" + "x" * (SOCKET_PATH_BYTES_MAX - 1))
    with pytest.raises(PathTooLong, match="108 bytes; a Unix socket's path has at most 107"):
        QueryClient("/" + "x" * SOCKET_PATH_BYTES_MAX)


# -- lists that are longer than a request may hold -----------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 1002, 3000, 20_011])
@pytest.mark.parametrize("characters", [1, 255])
def test_a_list_is_asked_about_in_parts_that_fit_and_have_each_text_once(
    count: int, characters: int
) -> None:
    texts = [f"{number}".rjust(characters, "x") for number in range(count)]
    parts = text_parts([*texts, *texts[:5]])
    assert [text for part in parts for text in part] == texts
    sizes = {len(part) for part in parts}
    assert max(sizes) <= query.TEXTS_MAX
    assert max(sizes) - min(sizes) <= 1, "no part is so small that it singles out persons"
    request = {"v": 1, "report": "completions", "params": {"users": parts[0], "subjects": parts[0]}}
    encode_frame(request, REQUEST_BYTES_MAX)
    assert parts[0] or count == 0


def test_a_list_of_1000_short_texts_is_one_part() -> None:
    assert len(text_parts(map(str, range(1000)))) == 1
    assert len(text_parts(map(str, range(1001)))) == 2
    assert len(text_parts(["x" * 100_000, "y"])) == 2, "one that is too long is refused by itself"
