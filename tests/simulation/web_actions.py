"""What web processes do in a run, chosen by its seed: log, fork, close, be interrupted."""

from __future__ import annotations

import contextlib
import random
from typing import Any

from logd_client import Outcome
from logd_wire.forks import Forked
from logd_wire.outbox.writer import OutboxWriter
from tests.simulation.client import SimClient
from tests.simulation.machine import check_is_seen
from tests.simulation.truth import Violation
from tests.simulation.web import Web
from tests.simulation.world import Interrupted, World
from tests.support import client_parts as parts

UIDS = (1000, 1001, 1002)
# What a client may have: one ring of the smallest size, or a larger one to follow it.
OUTBOX_BYTES = (65536, 4 * 65536, 4 * 65536, 16 * 65536)
WEBS_MAX = 5


class WebActions:
    """Makes web processes, and lets them act. `writer` and `client` are types of their parts."""

    def __init__(self, world: World, writer: type[OutboxWriter], client: type[SimClient]) -> None:
        self._world, self._writer, self._client = world, writer, client
        self._rng: random.Random = world.rng
        self.silent = 0  # events that were accepted and not sent, since the daemon watches
        # Rings fill up, and are followed by larger ones or records go around their ends.
        self._texts = world.rng.choice(((10, 10, 4000), (10, 2000, 9000, 20000)))

    def new(self) -> Web:
        """Another web process, with a client."""
        rng = self._rng
        web = self._world.process("web", rng.choice(UIDS), Web)
        web.has_memory = rng.random() >= self._world.odds.without_outbox
        web.outbox_bytes = rng.choice(OUTBOX_BYTES)
        self._ready(web)
        web.client = self._client(web)
        return web

    def _ready(self, web: Web) -> None:
        web.writer_type = self._writer

        def on_signal() -> None:
            if self._rng.random() < 0.5:
                if web.client.emit("from_a_handler"):
                    raise Violation("an emit in the middle of an emit was accepted")
            elif self._rng.random() < 0.5:
                raise Interrupted
            else:
                web.timeouts += 1
                web.timeouts_in_all += 1
                raise TimeoutError("as a handler that ends a request raises")

        web.on_signal = on_signal

    def act(self, web: Web) -> None:
        """One thing that it does."""
        rng = self._rng
        roll = rng.random()
        client = web.client
        if roll < 0.70:
            for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
                self._emit(web)
        elif roll < 0.78:
            self._call_durable(web)
        elif roll < 0.82:
            web.call(lambda: client.emit("Not A Type"))
        elif roll < 0.88:
            web.check_stats()
        elif roll < 0.93:
            self._fork(web)
        elif roll < 0.95 and self._world.odds.strangers:
            self._emit_malformed(web)
        elif roll < 0.98:
            client.close()
            self._world.end(web)

    def _emit(self, web: Web) -> None:
        rng = self._rng
        props: dict[str, Any] = {"n": self._world.truth.calls}
        props["text"] = "x" * rng.choice(self._texts)
        sends = web.sends
        number = self._world.truth.calls
        accepted = web.call(lambda: web.client.emit("page_view", user="u", props=props))
        if accepted:
            web.check_claim(number, "accepted")
        producer = parts.current(web.client)
        # Cut short before its send, it waits for the daemon's next look at all outboxes.
        if accepted and web.sends == sends and producer is not None and not web.timeouts:
            self.silent += 1
            check_is_seen(self._world, (web.uid, producer.id))

    def _call_durable(self, web: Web) -> None:
        number = self._world.truth.calls
        outcome = Outcome.REFUSED

        def call() -> bool:
            nonlocal outcome
            outcome = web.client.emit_durable("quiz_submitted", props={"n": number}, timeout_s=0)
            return outcome is not Outcome.REFUSED

        if web.call(call):
            web.check_claim(number, outcome.value)

    def _fork(self, parent: Web) -> None:
        if len(self._world.processes) >= WEBS_MAX + 1:
            return
        child = self._world.process("web", parent.uid, Web)
        child.has_memory, child.outbox_bytes = parent.has_memory, parent.outbox_bytes
        self._ready(child)
        # A fork that C code makes runs no hooks of Python's.
        child.client = parent.client.forked(child, hooks=self._rng.random() < 0.5)

    def _emit_malformed(self, web: Web) -> None:
        """A client in another language that checks less, in a good stream."""
        producer = parts.current(web.client)
        if producer is not None and producer.outbox is not None:
            on_signal, web.on_signal = web.on_signal, None  # this call is none of the client's
            with contextlib.suppress(Forked):  # a child without hooks still has its parent's
                try:
                    producer.outbox.writer.append(b"\xc1 no msgpack")
                finally:
                    web.excuse_unheard()  # nor does it move what it wrote to a retired outbox
            web.on_signal = on_signal
