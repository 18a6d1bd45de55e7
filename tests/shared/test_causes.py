"""A refusal, a missing outbox and an unanswered question name their true cause."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logd_client import Client
from logd_client.producer import Producer
from logd_wire.causes import why_no_answer, why_no_outbox, why_not_sent
from logd_wire.query import QueryClient, Unavailable

NOWHERE = "/run/logd.sock"


class Refusing:
    """A socket whose connect or send fails with that number."""

    def __init__(self, code: int, at: str) -> None:
        self._code, self._at = code, at

    def _fail_at(self, at: str) -> None:
        if at == self._at:
            raise OSError(self._code, os.strerror(self._code))

    def connect(self, _path: str) -> None:
        self._fail_at("connect")

    def send(self, datagram: bytes, _flags: int) -> int:
        self._fail_at("send")
        return len(datagram)

    def fileno(self) -> int:
        return 0

    def setblocking(self, _flag: bool) -> None:
        pass

    def close(self) -> None:
        pass

    def detach(self) -> int:
        return -1


def use(monkeypatch: pytest.MonkeyPatch, refusing: Refusing) -> None:
    """Has producers, and nothing else, get that for their socket."""
    names = {name: getattr(socket, name) for name in ("AF_UNIX", "SOCK_DGRAM", "MSG_DONTWAIT")}
    module = SimpleNamespace(**names, socket=lambda *_: refusing)
    monkeypatch.setattr("logd_client.producer.socket", module)


@pytest.mark.parametrize("at", ["connect", "send"])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "no socket"),
        (errno.ECONNREFUSED, "not running"),
        (errno.EAGAIN, "queue .* is full"),
        (errno.EACCES, "may not write .* socket_mode"),
        (errno.EPERM, "policy"),
        (errno.EMSGSIZE, "larger than the kernel sends"),
        (errno.EPROTOTYPE, "not a datagram socket"),
        (errno.ENOTDIR, "not a directory"),
        (errno.ELOOP, "a loop"),
        (errno.EAFNOSUPPORT, "RestrictAddressFamilies"),
        (errno.EMFILE, "limit of open files"),
        (errno.ENOBUFS, "no memory"),
        (errno.ENOMEM, "no memory"),
        (errno.EIO, "Input/output error"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_a_refusal_without_an_outbox_names_the_kernels_error_and_what_to_mend(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    words: str,
    at: str,
) -> None:
    use(monkeypatch, Refusing(code, at))
    with caplog.at_level(logging.WARNING, "logd.client"), Client(NOWHERE) as client:
        assert not client.emit("page_view")
        # The second comes before another try to connect: it has no cause of its own.
        assert not client.emit("page_view")
        stats = client.stats()
    assert stats["refused_by_cause"] == {"undelivered": 2}
    line = caplog.messages[-1]
    _matches(words, line)
    _matches(words, stats["send_error"])
    assert "there is no outbox: /run/logd.sock.outboxes: no such file" in line


def _matches(words: str, text: Any) -> None:
    assert re.search(words, str(text)), text


def test_once_the_kernel_takes_an_event_there_is_no_error_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing = Refusing(errno.EAGAIN, "send")
    use(monkeypatch, refusing)
    with Client(NOWHERE) as client:
        assert not client.emit("page_view")
        refusing._code, refusing._at = 0, ""
        assert client.emit("page_view")
        assert client.stats()["send_error"] is None


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "query.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
        sock.listen()
        yield path


def test_the_socket_for_reports_is_not_taken_for_an_absent_daemon(listening: str) -> None:
    with Client(listening) as client:
        assert not client.emit("page_view")
        assert "is not a datagram socket" in client.stats()["send_error"]


def test_a_socket_left_in_a_mount_is_distinguished_from_an_absent_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "logd.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
    assert "logd is not running" in why_not_sent(errno.ECONNREFUSED, path)
    gone = os.stat_result((0o140600, 1, 1, 0, *([0] * 6)))  # as of a mounted file that is removed
    monkeypatch.setattr(Path, "stat", lambda _path: gone)
    assert "mount its directory" in why_not_sent(errno.ECONNREFUSED, path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "logd is behind or does not store"),
        (errno.EAGAIN, "logd is behind or does not store"),
        (errno.ECONNREFUSED, "logd is not running"),
        (errno.ENOENT, "logd is not running, or the path is wrong"),
        (errno.EACCES, "whether logd runs is not known: user"),
    ],
)
def test_a_full_outbox_names_whether_the_daemon_is_absent_or_behind(
    instance: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(Producer, "send_errno", code)
    monkeypatch.setattr(Producer, "send", lambda *_: False)
    with (
        caplog.at_level(logging.WARNING, "logd.client"),
        Client(instance.socket, outbox_bytes=65536) as client,
    ):
        while client.emit("page_view", props={"text": "x" * 10_000}):
            pass
        assert client.stats()["refused_by_cause"] == {"outbox_full": 1}
    assert "no room in the outbox: " in caplog.messages[-1]
    _matches(words, caplog.messages[-1])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "has no permission"),
        (errno.ENOSPC, "memory for outboxes is full"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOMEM, "out of memory"),
        (errno.ELOOP, "not followed"),
        (errno.EIO, "^Input/output error$"),
    ],
)
def test_a_missing_outbox_names_what_to_mend(code: int, words: str) -> None:
    _matches(words, why_no_outbox(OSError(code, os.strerror(code))))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "may not connect .* query_socket_mode"),
        (errno.EPROTOTYPE, "not a stream socket"),
        (errno.EMFILE, "limit of open files"),
        (errno.ELOOP, "a loop"),
        (errno.ENOENT, "Is it running"),
        (errno.ECONNREFUSED, "Is it running"),
        (errno.EAGAIN, "Is it running"),
        (errno.EIO, "Is it running"),
    ],
)
def test_an_unanswered_question_names_its_cause(code: int, words: str) -> None:
    _matches(words, why_no_answer(OSError(code, os.strerror(code)), NOWHERE))


def test_a_query_to_the_socket_for_events_gets_a_clear_error(tmp_path: Path) -> None:
    path = str(tmp_path / "logd.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        with pytest.raises(Unavailable, match="not a stream socket"):
            QueryClient(path).ask("summary")
