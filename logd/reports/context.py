"""What a report knows of the configuration and of the process that asks (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from logd.config.settings import Config
from logd.storage.mentions import DEFAULT_KEYS, PersonKeys


@dataclass(frozen=True)
class Context:
    """The context of a report; `config` is None without an instance.

    `senders` are the uids of the application that asks, where logd.toml names it under apps: what
    other applications log may be about another person with the same id. None for all senders.
    `others` are the uids of those other applications: by the id they mean persons of their own,
    also in what they read.
    """

    person_keys: PersonKeys = DEFAULT_KEYS
    retention: Mapping[str, int] = field(default_factory=dict)
    config: Config | None = None
    senders: tuple[int, ...] | None = None
    others: frozenset[int] = frozenset()


def context_for(config: Config, person_keys: PersonKeys, peer_uid: int) -> Context:
    """Returns the context of a report that a process with that uid requests."""
    context = Context(person_keys, config.retention, config)
    own = {uid for uids in config.apps.values() if peer_uid in uids for uid in uids}
    if not own:
        return context
    others = {uid for uids in config.apps.values() for uid in uids} - own
    return replace(context, senders=tuple(sorted(own)), others=frozenset(others))
