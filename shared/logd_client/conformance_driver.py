"""The driver of the Python client for `logd conformance`; an example for drivers of other clients.

    logd conformance python3 -m logd_client.conformance_driver

Reads commands from standard input, one a line, and answers each with one line: PROTOCOL.md,
"Conformance".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import msgpack

from logd_client import Client
from logd_wire.schema import Malformed, check_event_type, check_props, check_ts_ns, check_user
from logd_wire.wire import (
    datagram_head,
    encode_record,
    pack_payload,
    producer_seed,
)

_DESCRIPTORS_MAX = 256
_DECOYS = 16


class Unsupported(Exception):
    """A command that this client cannot carry out."""


class ConformanceDriver:
    """Runs one client for `logd conformance`, with a method for each command."""

    def __init__(self) -> None:
        self.client: Client | None = None

    @property
    def opened(self) -> Client:
        """Returns the client. Raises Unsupported before `open`."""
        if self.client is None:
            raise Unsupported
        return self.client

    def do_open(self, socket: str, ring_bytes: str) -> str:
        """Creates the client."""
        self.client = Client(socket, outbox_bytes=int(ring_bytes))
        return "ok"

    def do_emit(self, event_type: str, user: str, number: str, pad: str) -> str:
        """Logs an event with the given number, and a padding of the given length."""
        props = {"n": int(number)} | ({"pad": "x" * int(pad)} if int(pad) else {})
        accepted = self.opened.emit(event_type, user=text_or_nil(user), props=props)
        return "accepted" if accepted else "refused"

    def do_event(self, event_type: str, user: str, props: str) -> str:
        """Logs an event whose type, user and packed props are given in hexadecimal."""
        accepted = self.opened.emit(
            decode(event_type), user=None if user == "-" else decode(user), props=native(props)
        )
        return "accepted" if accepted else "refused"

    def do_durable(self, event_type: str, user: str, number: str, timeout_ms: str) -> str:
        """Logs an event and waits for the disk."""
        outcome = self.opened.emit_durable(
            event_type,
            user=text_or_nil(user),
            props={"n": int(number)},
            timeout_s=int(timeout_ms) / 1000,
        )
        return outcome.value

    def do_outbox(self) -> str:
        """Answers whether the client has an outbox now."""
        has = self.opened.stats()["producer"] and not self.opened.stats()["outbox"]["reason"]
        return "yes" if has else "no"

    def do_stats(self) -> str:
        """Answers with the client's counts."""
        stats = self.opened.stats()
        return f"{stats['attempted']} {stats['accepted']} {stats['refused']}"

    def do_flush(self, timeout_ms: str) -> str:
        """Answers whether all events are on disk within the given time."""
        return "yes" if self.opened.flush(int(timeout_ms) / 1000) else "no"

    def do_fork(self, number: str) -> str:
        """Forks a child, which logs an event with the given number, if it is not 0, and ends."""
        pid = os.fork()
        if not pid:
            code = 1
            try:
                if (
                    number == "0"
                    or self.do_emit("conformance_tried", "7", number, "0") == "accepted"
                ):
                    self.opened.close()
                    code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if number == "0":
            return "ok" if code == 0 else f"error the child ended with {code}"
        return "accepted" if code == 0 else "refused"

    def do_closefds(self, file: str) -> str:
        """Closes every descriptor, as daemonizers do, and opens a file under their numbers."""
        os.closerange(3, _DESCRIPTORS_MAX)
        for _ in range(_DECOYS):
            os.open(file, os.O_RDWR)
        return "ok"

    def do_close(self) -> str:
        """Closes the client."""
        self.opened.close()
        return "ok"

    def do_payload(self, event_type: str, user: str, ts_ns: str, props: str) -> str:
        """Packs an event's payload."""
        given = native(props)
        try:
            payload = pack_payload(
                msgpack.Packer(),
                check_event_type(decode(event_type)),
                check_ts_ns(int(ts_ns)),
                None if user == "-" else check_user(decode(user)),
                given,
            )
            check_props(given)
        except Malformed:
            return "refused"
        return payload.hex()

    def do_record(self, producer: str, sequence: str, payload: str) -> str:
        """Encodes a record of the given producer."""
        seed = producer_seed(int(producer, 16))
        return encode_record(seed, int(sequence), unhex(payload)).hex()

    def do_datagram(self, producer: str, kind: str, sequence: str, payload: str) -> str:
        """Encodes a datagram of one record."""
        head = datagram_head(int(producer, 16), int(kind))
        return (head + bytes.fromhex(self.do_record(producer, sequence, payload))).hex()


def unhex(word: str) -> bytes:
    """Decodes the bytes that a word of hexadecimal stands for; `.` stands for none."""
    return b"" if word == "." else bytes.fromhex(word)


def decode(word: str) -> str:
    """Decodes hexadecimal UTF-8. Raises Unsupported if the bytes are not valid UTF-8."""
    try:
        return unhex(word).decode()
    except UnicodeDecodeError:
        raise Unsupported from None


def text_or_nil(word: str) -> str | None:
    """Returns a word as text, and None for `-`."""
    return None if word == "-" else word


def native(props: str) -> dict[str, object]:
    """Decodes packed props to Python's values. Raises Unsupported if they have none."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise Unsupported
        return made

    try:
        found = msgpack.unpackb(unhex(props), object_pairs_hook=unique)
    except (ValueError, TypeError):
        raise Unsupported from None
    if type(found) is not dict:
        raise Unsupported
    return found


def main() -> None:
    """Answers commands until standard input ends."""
    driver = ConformanceDriver()
    for line in sys.stdin:
        name, *words = line.split()
        command: Callable[..., str] | None = getattr(driver, f"do_{name}", None)
        try:
            answer = command(*words) if command is not None else "unsupported"
        except Unsupported:
            answer = "unsupported"
        except Exception as error:  # noqa: BLE001 - the runner shows it
            answer = f"error {error!r}".replace("\n", " ")
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
    if driver.client is not None:
        driver.client.close()


if __name__ == "__main__":
    main()
