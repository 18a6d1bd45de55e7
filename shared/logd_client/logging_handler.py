"""A logging handler whose records become events.

    logging.getLogger("shop").addHandler(LogdHandler(client, level=logging.WARNING))
    log.error("payment failed", extra={"logd_type": "payment_failed", "logd_user": 7})

A record that names no type is a `log_record`. `logd_props` in a record's `extra` adds properties.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from logd_client.client import Client
from logd_wire.schema import type_name

LOG_RECORD = "log_record"
# An event has room for 32 KiB, and a character takes at most six bytes.
MESSAGE_CHARS_MAX = 4096
NAME_CHARS_MAX = 256
_OWN_LOGGERS = "logd."

# Whether a message is being formatted, in this thread, task or greenlet.
_formatting: ContextVar[bool] = ContextVar("logd_handler_formatting", default=False)


class LogdHandler(logging.Handler):
    """Emits an event for each record: without waiting, without a lock, and without raising.

    The event has the message (cut to 4,096 characters), the level, the logger's name, the place in
    the code and, of an exception, its type: no traceback. Records of the client's own loggers,
    `logd.*`, are left out: an event that is refused would log the next one.
    """

    def __init__(
        self, client: Client, level: int | str = logging.NOTSET, *, event_type: str = LOG_RECORD
    ) -> None:
        super().__init__(level)
        self._client = client
        self._event_type = event_type

    def createLock(self) -> None:
        """Makes no lock: formatting a message runs the application's code, which may wait."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Emits the record unless a filter holds it back; without a lock."""
        passed: Any = self.filter(record)
        if passed:  # from Python 3.12 on a filter may return another record
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Emits one event; what the client refuses is in `client.stats()`."""
        name = record.name
        if type(name) is str and name.startswith(_OWN_LOGGERS):
            return
        given = record.__dict__
        try:
            event: dict[str, Any] = {"props": _props(record), "ts_ns": int(record.created * 1e9)}
        except Exception as error:  # noqa: BLE001 - made by hand, or by a filter
            event = {"props": {"record_error": type_name(type(error))}}
        with contextlib.suppress(Exception):  # a strict client raises, and has counted it
            self._client.emit(
                given.get("logd_type", self._event_type), user=given.get("logd_user"), **event
            )


def _props(record: logging.LogRecord) -> dict[str, Any]:
    props: dict[str, Any] = {
        "level": record.levelname,
        "logger": record.name[:NAME_CHARS_MAX],
        "place": f"{record.filename}:{record.lineno}"[:NAME_CHARS_MAX],
    }
    props["message"] = _message(record, props)[:MESSAGE_CHARS_MAX]
    if record.exc_info and record.exc_info[0] is not None:
        props["exception"] = type_name(record.exc_info[0])
    added = record.__dict__.get("logd_props")
    return {**props, **added} if isinstance(added, Mapping) else props


def _message(record: logging.LogRecord, props: dict[str, Any]) -> str:
    """Returns the message; without its arguments if they cannot be formatted."""
    try:
        # An argument whose text logs a line would be formatted for that line again, without end.
        if not _formatting.get():
            token = _formatting.set(True)
            try:
                return str(record.getMessage())
            finally:
                _formatting.reset(token)
    except Exception as error:  # noqa: BLE001 - of the application's own text
        props["message_error"] = type_name(type(error))
    return record.msg if type(record.msg) is str else type_name(type(record.msg))
