"""Records an export in the trail: before its first row goes out, and when it has ended.

The two events have the same `export`, a random name, and the `uid` of the user of the machine who
exports. A `trail_export_started` without a `trail_exported` is an export that was killed: how many
of its events were written is not known.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from logd.config.settings import Config
from logd.errors import LogdError
from logd.maintenance import job_client
from logd.reports.export import Export
from logd.storage.copy_registry import EXPORT, Copy, register_copy, register_export_end
from logd_wire.schema import INT64_MAX

Notify = Callable[[str], None]


class ExportRecord:
    """The record of one export; `end` does nothing if `begin` was not called."""

    def __init__(
        self, config: Config, export: Export, form: str, place: str, expires_after_ns: int
    ) -> None:
        self._config = config
        self._export = export
        made_ns = export.made_ns
        self._copy = Copy(EXPORT, place, made_ns, min(made_ns + expires_after_ns, INT64_MAX))
        self._facts: dict[str, Any] = {
            "export": secrets.token_hex(8),
            "uid": os.getuid(),
            "format": form,
            "filters": export.selection.filters,
            "expires_ns": self._copy.expires_ns,
        }
        self._is_begun = False

    def begin(self) -> None:
        """Returns once the event, which names no person, and the copy are recorded.

        Raises a LogdError; then nothing may be exported.
        """
        job_id = register_copy(self._config, self._copy, self._facts)
        self._is_begun = True
        job_client.complete_record(self._config, job_id)

    def end(self, *, complete: bool, kept: bool, notify: Notify) -> None:
        """Records the number of events exported, whether they are all, and whether the copy exists.

        The export has been recorded at its beginning, so a failure here is only passed to `notify`.
        """
        if not self._is_begun:
            return
        facts = {**self._facts, "events": self._export.events, "complete": complete, "kept": kept}
        try:
            register_export_end(self._config, self._copy, facts, time.time_ns(), kept=kept)
        except LogdError as problem:
            notify(
                "the end of this export could not be recorded, so that the trail shows it as"
                f" interrupted: {problem}"
            )
