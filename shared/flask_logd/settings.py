"""The extension's settings: names, defaults and checks."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask_logd.callables import ExtraCallable, FilterCallable
from flask_logd.client import ClientFactory
from flask_logd.durable import CARRY_ON, MESSAGE, TELL_USER, DurablePolicy
from logd_client import Client
from logd_wire.paths import PathTooLong, check_socket_path
from logd_wire.requests import OTHER_REQUESTS, PAGE_VIEW
from logd_wire.schema import Malformed, check_event_type

UserCallable = Callable[[], object]  # the function returns a user in a form that `identity` accepts

_PREFIX = "ACTIVITY_LOG_"
_DEFAULTS: dict[str, Any] = {
    "ACTIVITY_LOG_CLIENT": Client,
    "ACTIVITY_LOG_SOCKET": None,
    "ACTIVITY_LOG_ENABLED": True,
    "ACTIVITY_LOG_EXCLUDE": ("static", "*.static"),
    "ACTIVITY_LOG_METHODS": "all",
    "ACTIVITY_LOG_STATUSES": "all",
    "ACTIVITY_LOG_ANONYMOUS": False,
    "ACTIVITY_LOG_VIEW_ARGS": (),
    "ACTIVITY_LOG_EXTRA": None,
    "ACTIVITY_LOG_FILTER": None,
    "ACTIVITY_LOG_OUTBOX_BYTES": None,
    "ACTIVITY_LOG_OUTBOX_DIRECTORY": None,
    "ACTIVITY_LOG_USER": None,
    "ACTIVITY_LOG_ACTOR": None,
    "ACTIVITY_LOG_REQUEST_ID_HEADER": "X-Request-ID",
    "ACTIVITY_LOG_DURABLE": (),
    "ACTIVITY_LOG_DURABLE_TIMEOUT_S": 5.0,
    "ACTIVITY_LOG_DURABLE_WAITERS": None,
    "ACTIVITY_LOG_DURABLE_UNKNOWN": CARRY_ON,
    "ACTIVITY_LOG_DURABLE_MESSAGE": MESSAGE,
}


ALL = "all"
_STATUS_CLASSES = {f"{n}xx": frozenset(range(n * 100, n * 100 + 100)) for n in range(1, 6)}


class ConfigError(ValueError):
    """A setting is missing, unknown or of the wrong type; the message names it."""


@dataclass(frozen=True)
class RequestChoice:
    """Which requests are logged, and which arguments of their URLs; None stands for all."""

    methods: frozenset[str] | None
    statuses: frozenset[int] | None
    anonymous: bool
    view_args: frozenset[str] | None

    def includes(self, method: str, status: int) -> bool:
        """Whether a request with this method is logged after it was answered with this status."""
        return (self.methods is None or method in self.methods) and (
            self.statuses is None or status in self.statuses
        )


@dataclass(frozen=True)
class Settings:
    """The checked settings of one app; `client_options` are passed to the client unchanged."""

    socket_path: str
    enabled: bool
    exclude: tuple[str, ...]
    user: UserCallable | None
    actor: UserCallable | None
    requests: RequestChoice
    extra: ExtraCallable | None
    keep: FilterCallable | None
    request_id_header: str
    client_factory: ClientFactory
    client_options: dict[str, Any]
    durable: DurablePolicy


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Reads and checks the settings in an app's config. Raises ConfigError, which names the key."""
    for key in config:
        if key.startswith(_PREFIX) and key not in _DEFAULTS:
            near = difflib.get_close_matches(key, _DEFAULTS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown setting {key}; did you mean {near}?")

    def read(key: str, is_valid: Callable[[Any], bool], expected: str) -> Any:
        value = config.get(key, _DEFAULTS[key])
        if not is_valid(value):
            raise ConfigError(f"{key} must be {expected}, not {value!r}")
        return value

    enabled = read("ACTIVITY_LOG_ENABLED", _is_bool, "True or False")
    outbox_bytes = read("ACTIVITY_LOG_OUTBOX_BYTES", _is_size_or_none, "a number of bytes over 0")
    waiters = read("ACTIVITY_LOG_DURABLE_WAITERS", _is_size_or_none, "a number of threads over 0")
    directory = read("ACTIVITY_LOG_OUTBOX_DIRECTORY", _is_path_or_none, "a directory's path")
    # Unset options are left out, since the client has its own defaults.
    options: dict[str, Any] = {}
    if outbox_bytes is not None:
        options["outbox_bytes"] = outbox_bytes
    if waiters is not None:
        options["durable_waiters"] = waiters
    if directory is not None:
        options["outbox_directory"] = os.fspath(directory)
    return Settings(
        socket_path=_read_socket_path(config.get("ACTIVITY_LOG_SOCKET")) if enabled else "",
        enabled=enabled,
        exclude=tuple(read("ACTIVITY_LOG_EXCLUDE", _is_names, "a list of endpoints or blueprints")),
        user=read("ACTIVITY_LOG_USER", _is_callable_or_none, "a callable"),
        actor=read("ACTIVITY_LOG_ACTOR", _is_callable_or_none, "a callable"),
        requests=RequestChoice(
            methods=_methods(read("ACTIVITY_LOG_METHODS", _is_all_or_names, "'all' or a list")),
            statuses=_statuses(
                read("ACTIVITY_LOG_STATUSES", _are_statuses, "'all' or a list as [200, '4xx']")
            ),
            anonymous=read("ACTIVITY_LOG_ANONYMOUS", _is_bool, "True or False"),
            view_args=_names(
                read("ACTIVITY_LOG_VIEW_ARGS", _is_all_or_names, "'all' or a list of names")
            ),
        ),
        extra=read("ACTIVITY_LOG_EXTRA", _is_callable_or_none, "a callable"),
        keep=read("ACTIVITY_LOG_FILTER", _is_callable_or_none, "a callable"),
        request_id_header=read("ACTIVITY_LOG_REQUEST_ID_HEADER", _is_name, "the name of a header"),
        client_factory=read("ACTIVITY_LOG_CLIENT", callable, "a callable"),
        client_options=options,
        durable=DurablePolicy(
            types=frozenset(
                read(
                    "ACTIVITY_LOG_DURABLE",
                    _are_types,
                    "a list of event types, but none of requests such as page_view",
                )
            ),
            timeout_s=read("ACTIVITY_LOG_DURABLE_TIMEOUT_S", _is_duration, "seconds, 0 or more"),
            tell_user=read(
                "ACTIVITY_LOG_DURABLE_UNKNOWN",
                lambda v: v in (CARRY_ON, TELL_USER),
                f"{CARRY_ON!r} or {TELL_USER!r}",
            )
            == TELL_USER,
            message=read("ACTIVITY_LOG_DURABLE_MESSAGE", _is_name, "a text for the user"),
        ),
    )


def _read_socket_path(value: Any) -> str:
    if not value:
        raise ConfigError(
            "ACTIVITY_LOG_SOCKET is not set: give the path of logd's datagram socket, "
            "or set ACTIVITY_LOG_ENABLED = False"
        )
    if not _is_path_or_none(value):
        raise ConfigError(f"ACTIVITY_LOG_SOCKET must be a path, not {value!r}")
    try:
        check_socket_path(value)
    except PathTooLong as error:
        raise ConfigError(f"ACTIVITY_LOG_SOCKET: {error}") from None
    return os.fspath(value)  # type: ignore[no-any-return] # its check is untyped


def _names(value: Any) -> frozenset[str] | None:
    return None if value == ALL else frozenset(value)


def _methods(value: Any) -> frozenset[str] | None:
    return None if value == ALL else frozenset(name.upper() for name in value)


def _statuses(value: Any) -> frozenset[int] | None:
    if value == ALL:
        return None
    return frozenset().union(*(_STATUS_CLASSES.get(item, (item,)) for item in value))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_callable_or_none(value: Any) -> bool:
    return value is None or callable(value)


def _is_all_or_names(value: Any) -> bool:
    return (isinstance(value, str) and value == ALL) or _is_names(value)


def _are_statuses(value: Any) -> bool:
    if isinstance(value, str):
        return value == ALL
    return isinstance(value, (tuple, list, set, frozenset)) and all(
        item in _STATUS_CLASSES
        if isinstance(item, str)
        else isinstance(item, int) and 100 <= item <= 599
        for item in value
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_names(value: Any) -> bool:
    # A single string is refused: as a collection of letters it would silently exclude nothing.
    return isinstance(value, (tuple, list, set, frozenset)) and all(map(_is_name, value))


def _is_path_or_none(value: Any) -> bool:
    return value is None or isinstance(value, (str, os.PathLike))


def _is_size_or_none(value: Any) -> bool:
    return value is None or (type(value) is int and value > 0)


def _are_types(value: Any) -> bool:
    if not _is_names(value):
        return False
    try:
        # A request's own event cannot be durable:
        # it is logged after the view, which cannot wait for it.
        return not ({PAGE_VIEW} | OTHER_REQUESTS) & {check_event_type(name) for name in value}
    except Malformed:
        return False


def _is_duration(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
