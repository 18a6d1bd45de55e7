"""The logging handler: a record is an event, whatever is in it."""

from __future__ import annotations

import logging
import logging.config
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from logd_client import Client
from logd_client.logging_handler import LogdHandler
from tests.support.instance import Instance, check_sums


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    """A client whose sums are checked at the end, when all that it accepted is stored."""
    with Client(instance.socket) as made:
        yield made
        stats = made.stats()
    instance.start()
    sums = {name: stats[name] for name in ("attempted", "accepted", "refused")}
    check_sums(instance.settle(), **sums)


@pytest.fixture
def log(client: Client) -> logging.Logger:
    """A logger whose records become events, and go nowhere else: pytest's own handler raises."""
    logger = logging.Logger("school.marks")
    logger.addHandler(LogdHandler(client))
    return logger


def stored(instance: Instance, client: Client) -> list[dict[str, Any]]:
    """The events, once the daemon has stored them."""
    instance.start()
    instance.settle()
    events = instance.events()
    instance.kill()
    assert len(events) == client.stats()["accepted"]
    return events


def test_a_record_is_an_event_of_the_type_that_it_names(
    instance: Instance, client: Client, log: logging.Logger
) -> None:
    log.warning("plain %d", 3)
    try:
        raise LookupError("what must not be stored")
    except LookupError:
        extra = {"logd_type": "mark_lost", "logd_user": 7, "logd_props": {"mark": 2}}
        log.exception("named", extra=extra)
    plain, named = stored(instance, client)
    assert (plain["type"], plain["user"], plain["props"]["message"]) == (
        "log_record", None, "plain 3",
    )  # fmt: skip
    assert (plain["props"]["level"], plain["props"]["logger"]) == ("WARNING", "school.marks")
    assert plain["props"]["place"].startswith("test_logging_handler.py:")
    assert (named["type"], named["user"], named["props"]["mark"]) == ("mark_lost", "7", 2)
    assert named["props"]["exception"] == "LookupError"
    assert "what must not be stored" not in repr(named)


class Odd:
    """An argument whose text cannot be made."""

    def __str__(self) -> str:
        raise LookupError("words")


def test_whatever_a_record_holds_it_is_one_event_and_nothing_is_raised(
    instance: Instance, client: Client, log: logging.Logger
) -> None:
    log.warning("%d of what", "none")
    log.warning("%s", Odd())
    log.warning(Odd())
    log.warning("x" * 10**6)
    log.warning("\udcff" * 10**5)
    log.handlers[0].handle(logging.makeLogRecord({"name": None, "msg": "made by hand"}))
    log.warning("props", extra={"logd_props": 7})
    log.warning("refused", extra={"logd_type": "No Type"})
    log.warning("too large", extra={"logd_props": {"text": "x" * 10**6}})
    assert client.stats()["refused_by_cause"] == {"malformed": 2}
    events = stored(instance, client)
    assert [event["props"].get("message") for event in events[:2]] == ["%d of what", "%s"]
    assert events[2]["props"]["message"].endswith("Odd")
    assert [event["props"]["message_error"] for event in events[:3]] == [
        "TypeError", "LookupError", "LookupError",
    ]  # fmt: skip
    assert len(events[3]["props"]["message"]) == 4096
    assert events[5]["props"] == {"record_error": "TypeError"}
    assert len(events) == 7


def test_a_strict_client_raises_nothing_in_a_log_call(instance: Instance) -> None:
    with Client(instance.socket, strict=True) as client:
        LogdHandler(client, event_type="No Type").handle(logging.makeLogRecord({"name": "n"}))
        stats = client.stats()
    assert (stats["attempted"], stats["accepted"], stats["refused"]) == (1, 0, 1)


def test_lines_of_the_client_itself_do_not_become_events(
    client: Client, log: logging.Logger
) -> None:
    """A refused event logs a line, which would be refused too, and log the next one."""
    handler = log.handlers[0]
    own = logging.getLogger("logd.client")
    lines: list[str] = []
    seen = logging.Handler()
    seen.emit = lambda record: lines.append(record.name)  # type: ignore[method-assign] # a stand-in
    for one in (handler, seen):
        own.addHandler(one)
    try:
        log.warning("refused", extra={"logd_type": "No Type"})
    finally:
        for one in (handler, seen):
            own.removeHandler(one)
    assert lines == ["logd.client"]
    assert client.stats()["attempted"] == 1


def test_an_argument_that_logs_itself_is_two_events_and_no_endless_loop(
    instance: Instance, client: Client, log: logging.Logger
) -> None:
    class Logging:
        def __str__(self) -> str:
            log.warning("in %s", self)
            return "text"

    log.warning("of %s", Logging())
    inner, outer = stored(instance, client)
    assert (inner["props"]["message"], outer["props"]["message"]) == ("in %s", "of text")


def test_no_lock_is_held_while_a_message_is_formatted(client: Client, log: logging.Logger) -> None:
    """Another thread logs in the middle of it; with the lock of `logging.Handler` it would wait."""
    logged: list[bool] = []

    class Waiting:
        def __str__(self) -> str:
            other = threading.Thread(target=log.warning, args=("other",), daemon=True)
            other.start()
            other.join(20)
            logged.append(not other.is_alive())
            return "text"

    log.warning("of %s", Waiting())
    assert logged == [True]
    assert client.stats()["accepted"] == 2


def test_filters_levels_and_a_configuration_work_as_with_any_handler(
    instance: Instance, client: Client
) -> None:
    class Replacing(logging.Filter):
        def filter(self, record: logging.LogRecord) -> Any:
            return "left out" not in record.getMessage()

    handler = LogdHandler(client, level="ERROR", event_type="shop_failed")
    handler.addFilter(Replacing())
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"logd": {"()": lambda: handler}},
            "loggers": {"shop": {"handlers": ["logd"], "level": "INFO"}},
        }
    )
    shop = logging.getLogger("shop")
    try:
        shop.info("below the level")
        shop.error("left out")
        shop.error("stored")
    finally:
        shop.removeHandler(handler)
    (event,) = stored(instance, client)
    assert (event["type"], event["props"]["message"]) == ("shop_failed", "stored")
    handler.acquire()  # as `logging.shutdown` does
    handler.flush()
    handler.close()
    handler.release()
