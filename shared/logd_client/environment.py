"""The parts of its process that a client uses: clocks, producers, fork detection.

Tests and simulations pass replacements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from logd_client.clock import SYSTEM_CLOCK, Clock
from logd_client.former_producers import Former
from logd_client.producer import Producer
from logd_wire import forks
from logd_wire.forks import Generation


class ProducerFactory(Protocol):
    """Opens a producer with a socket, and with an outbox of its own if that is possible."""

    def __call__(
        self,
        socket_path: str,
        directory: str | None,
        ring_bytes: int,
        follows: int,
        growth_bytes: int,
        clock: Clock,
        /,
    ) -> Producer: ...


@dataclass(frozen=True)
class Environment:
    """A client's clocks, producer factory and fork detection; by default this process's own."""

    clock: Clock = SYSTEM_CLOCK
    open_producer: ProducerFactory = Producer
    current_generation: Callable[[], Generation] = forks.current
    former_type: type[Former] = Former


SYSTEM_ENVIRONMENT = Environment()
