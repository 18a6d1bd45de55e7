"""Logs the heads of the trail, signed if there is a key, so that a later change can be shown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from logd.audit import anchor_file, anchors
from logd.audit.head_signer import HeadSigner
from logd.config.settings import Config
from logd.storage.tree_head import Head

_log = logging.getLogger("logd")


@dataclass(frozen=True)
class Written:
    """An anchor that was written: its head, when, and whether the file of anchors has it too."""

    head: Head
    at_ns: int
    in_file: bool


class AnchorLog:
    """Writes an anchor of the trail to the log, and to a file, every `anchor_interval_s` seconds.

    Whoever has the database's key cannot change what the log already has. With a `signer` the
    anchors are signed.
    """

    def __init__(
        self,
        config: Config,
        trail_id: str | None,
        clock_ns: Callable[[], int],
        warn: Callable[..., None],
        signer: HeadSigner | None = None,
    ) -> None:
        self._trail_id = trail_id
        self._pace = anchors.AnchorSchedule(config.anchor_interval_s)
        self._path = config.anchor_file
        self._clock_ns = clock_ns
        self._warn = warn
        self._signer = signer
        self.last: Written | None = None

    def apply_config(self, config: Config) -> None:
        """Uses the interval and the file of a reloaded configuration."""
        self._pace.set_interval(config.anchor_interval_s)
        self._path = config.anchor_file

    def write(
        self, head: Head, now_s: float, *, lasting: Head | None = None, now: bool = False
    ) -> None:
        """Writes an anchor if one is due: the tree has grown, or the last one is half a day old.

        With `now`, one is due whenever the tree has grown. `lasting` is the head of the last
        complete tile.
        """
        for due in self._pace.due_heads(head, lasting, now_s, now=now):
            self._write(due)

    def _write(self, head: Head) -> None:
        signature = None if self._signer is None else self._signer.signature(head)
        now_ns, in_file = self._clock_ns(), False
        _log.info(anchors.format_anchor(head, self._trail_id, signature))
        if self._path is not None:
            try:
                anchor_file.append(self._path, head, now_ns, self._trail_id, signature)
                in_file = True
            except OSError as error:
                self._warn("%s: no anchor could be added: %s", self._path, error.strerror)
        self.last = Written(head, now_ns, in_file)
