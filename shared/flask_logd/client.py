"""The client as the extension uses it, and the client of an app whose logging is disabled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from logd_client import Outcome


class ActivityClient(Protocol):
    """The methods of `logd_client.Client` that the extension calls; a test may supply its own.

    `emit_durable` is called for durable events, `emit` for all others; `ts_ns` is given only where
    the app names the event's time.
    """

    def emit(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        durable: bool = False,
        timeout_s: float = 5.0,
    ) -> bool: ...

    def emit_durable(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        timeout_s: float = 5.0,
        tell_user: bool = False,
    ) -> Outcome: ...

    def flush(self, timeout_s: float) -> bool: ...

    def stats(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


# A client is created with the arguments of `logd_client.Client`: the socket's path,
# `strict=` (raise on a malformed event), and where set `outbox_bytes=`, `outbox_directory=` and
# `durable_waiters=`.
ClientFactory = Callable[..., ActivityClient]


class DisabledClient:
    """The client of an app whose logging is disabled: it refuses and counts every event."""

    def __init__(self) -> None:
        self._attempted = 0

    def emit(self, *_: Any, **__: Any) -> bool:
        self._attempted += 1
        return False

    def emit_durable(self, *_: Any, **__: Any) -> Outcome:
        self._attempted += 1
        return Outcome.REFUSED

    def flush(self, *_: Any, **__: Any) -> bool:
        return True

    def stats(self) -> dict[str, Any]:
        refused = self._attempted
        return {
            "attempted": refused,
            "accepted": 0,
            "refused": refused,
            "refused_by_cause": {"disabled": refused} if refused else {},
            "pending": 0,
        }

    def close(self) -> None:
        pass
