"""Logs where the hash chain ends, so that a later change of the database can be shown."""

from __future__ import annotations

import logging
from collections.abc import Callable

from logd.audit import anchor_file, anchors
from logd.config.settings import Config
from logd.storage.hash_chain import Head

_log = logging.getLogger("logd")


class AnchorLog:
    """Writes an anchor of the trail to the log, and to a file, once in `anchor_interval_s`.

    Whoever has the database's key cannot change what the log has already.
    """

    def __init__(
        self,
        config: Config,
        trail_id: str | None,
        clock_ns: Callable[[], int],
        warn: Callable[..., None],
    ) -> None:
        self._trail_id = trail_id
        self._pace = anchors.AnchorSchedule(config.anchor_interval_s)
        self._path = config.anchor_file
        self._clock_ns = clock_ns
        self._warn = warn

    def apply_config(self, config: Config) -> None:
        """Uses the interval and the file of a reloaded configuration."""
        self._pace.set_interval(config.anchor_interval_s)
        self._path = config.anchor_file

    def write(self, head: Head, now_s: float, *, now: bool = False) -> None:
        """Writes an anchor if one is due: the chain has grown, or the last one is a day old.

        With `now`, one is due whenever the chain has grown.
        """
        due = self._pace.due_head(head, now_s, now=now)
        if due is None:
            return
        _log.info(anchors.format_anchor(due, self._trail_id))
        if self._path is not None:
            try:
                anchor_file.append(self._path, due, self._clock_ns(), self._trail_id)
            except OSError as error:
                self._warn("%s: no anchor could be added: %s", self._path, error.strerror)
