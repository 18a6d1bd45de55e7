"""Every setting of logd.toml: its default, its check, and its comment.

The template that `logd init` writes, the man page logd.toml(5), the checks and the defaults of
`Config` come from this table; a test compares systemd/logd.toml with it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logd.config import values

MIB = 1024 * 1024
KEEP_DAYS_MAX = 36_500
_COMMENT_COLUMN = 34
_TEXT_CHARS = 98


@dataclass(frozen=True)
class Setting:
    """A setting. If its `default` is None, it is off or derived, and `example` is shown instead."""

    name: str
    default: Any
    check: Callable[[object], Any]
    comment: str = ""
    example: Any = None
    is_commented_out: bool = True

    @property
    def shown(self) -> Any:
        """The value that the template and the man page show."""
        return self.default if self.example is None else self.example

    @property
    def expected(self) -> str:
        """The accepted values, as the error message names them."""
        try:
            self.check(object())
        except ValueError as error:
            return str(error)
        raise AssertionError(f"{self.name} accepts anything")

    def line(self, value: Any = None, *, comment: str = "", commented_out: bool = False) -> str:
        """Returns the line that sets it to `value` in logd.toml, by default to the value shown."""
        text = assignment(self.name, self.shown if value is None else value)
        text = f"# {text}" if commented_out else text
        comment = comment or self.comment
        return f"{text:<{_COMMENT_COLUMN - 2}}  # {comment}" if comment else text


@dataclass(frozen=True)
class Section:
    """Settings that belong together, with an introduction of one or more paragraphs."""

    introduction: str
    settings: tuple[Setting, ...]

    def lines(self) -> list[str]:
        """Returns the introduction as comment lines."""
        paragraphs = self.introduction.splitlines()
        return [f"# {line}" for text in paragraphs for line in textwrap.wrap(text, _TEXT_CHARS)]


def assignment(name: str, value: Any) -> str:
    """Returns `name = value` in TOML; a table's entry has a dotted name."""
    if isinstance(value, dict):
        ((key, value),) = value.items()
        name = f"{name}.{key}"
    return f"{name} = {json.dumps(value)}"


SECTIONS = (
    Section(
        "logd: paths, permissions and limits of one instance.\n"
        "Paths are relative to this file. An unknown name or an invalid value stops the start "
        "(exit code 78).",
        (),
    ),
    Section(
        "",
        (
            Setting("database", "activity.db", values.path, "encrypted", is_commented_out=False),
            Setting(
                "key_file",
                "logd.key",
                values.path,
                "the key of the database",
                is_commented_out=False,
            ),
            Setting(
                "signing_key_file",
                None,
                values.path,
                "signs the trail's heads; by default beside key_file",
                example="logd-signing.key",
            ),
        ),
    ),
    Section(
        "",
        (
            Setting("socket", "logd.sock", values.path, "receives events", is_commented_out=False),
            Setting(
                "socket_mode",
                "0600",
                values.mode,
                "file permissions: who may send events",
                is_commented_out=False,
            ),
            Setting(
                "query_socket",
                "query.sock",
                values.path,
                "answers reports",
                is_commented_out=False,
            ),
            Setting(
                "query_socket_mode",
                "0600",
                values.mode,
                "who may ask for reports",
                is_commented_out=False,
            ),
            Setting("query_uids", [], values.uids, "more users who may do so", example=[33]),
            Setting(
                "query_group",
                None,
                values.group,
                "and the members of a group",
                example="logd-read",
            ),
            Setting(
                "metrics",
                None,
                values.metrics,
                'for Prometheus: a socket, or "127.0.0.1:9464"; off by default',
                example="metrics.sock",
            ),
            Setting("metrics_socket_mode", "0600", values.mode),
        ),
    ),
    Section(
        "Outboxes hold events in plain text and belong in memory. By default they are in "
        "/dev/shm, under a name derived from the path of the socket. many_users lets processes "
        "of other users have outboxes there (mode 3733).",
        (
            Setting("outbox_directory", None, values.path, example="/run/logd-outboxes"),
            Setting("many_users", False, values.boolean),
        ),
    ),
    Section(
        "Limits of one commit, of its timing, and of what clients may send.",
        (
            Setting("batch_events_max", 20_000, values.whole(1, 1_000_000), "events of a commit"),
            Setting(
                "batch_bytes_max",
                8 * MIB,
                values.whole(64 * 1024, 1024 * MIB),
                "bytes of a commit",
            ),
            Setting(
                "commit_interval_ms",
                50,
                values.whole(0, 1000),
                "between two commits, unless a client waits for one",
            ),
            Setting(
                "look_interval_ms",
                1000,
                values.whole(10, 60_000),
                "between two scans of outboxes, without a wake-up",
            ),
            Setting("stop_timeout_s", 10, values.whole(1, 600), "for a clean stop"),
            Setting(
                "gap_events_max",
                1_000_000,
                values.whole(0, 10**12),
                "a larger jump in a producer's sequence is refused",
            ),
            Setting(
                "quarantine_rows_max",
                10_000,
                values.whole(0, 10_000_000),
                "older rows are removed, but still counted",
            ),
            Setting(
                "event_types_per_user_max",
                500,
                values.whole(1, 1_000_000),
                "new types of one user; more are refused",
            ),
            Setting(
                "event_types_max",
                5000,
                values.whole(1, 1_000_000),
                "of all users; known types are still accepted",
            ),
        ),
    ),
    Section(
        "Outboxes that are open at once, of all users and of one; more have to wait. The memory "
        "of the outboxes is not part of memory_bytes_max: above outboxes_bytes_max, the status "
        "and the log report it.",
        (
            Setting("outboxes_max", 4000, values.whole(1, 1_000_000)),
            Setting("outboxes_per_user_max", 2000, values.whole(1, 1_000_000)),
            Setting("outboxes_bytes_max", 2048 * MIB, values.whole(MIB, 2**60)),
        ),
    ),
    Section(
        "The limit of the daemon's resident memory. The start is refused if batch_events_max, "
        "batch_bytes_max, outboxes_max, event_types_max and cache_bytes_max can need more. "
        "Reports run in another process.",
        (
            Setting(
                "cache_bytes_max",
                16 * MIB,
                values.whole(MIB, 64 * 1024 * MIB),
                "pages of the database",
            ),
            Setting("memory_bytes_max", 128 * MIB, values.whole(16 * MIB, 2**60)),
        ),
    ),
    Section(
        "`logd backup` writes here, into files that only their owner can read, and removes its "
        "own older backups. Use a directory for this instance alone, on another disk if "
        "possible.",
        (
            Setting("backup_directory", "backups", values.path),
            Setting("backup_keep_days", 30, values.whole(0, KEEP_DAYS_MAX), "0: for ever"),
            Setting(
                "backup_keep_min",
                2,
                values.whole(2, 1_000_000),
                "the newest are kept, however old they are",
            ),
        ),
    ),
    Section(
        "How often the log reports the head of the trail, for `logd verify --anchor`; 0: never.",
        (
            Setting("anchor_interval_s", 60, values.whole(0, 86_400)),
            Setting(
                "anchor_file",
                None,
                values.path,
                "a file to which each of these lines is added; off by default",
                example="anchors",
            ),
            Setting(
                "former_trails",
                [],
                values.trail_ids,
                "trails that a new one was begun after, on purpose",
                example=["0123456789abcdef"],
            ),
        ),
    ),
    Section(
        "Which properties of events name persons, for `logd person` and `logd forget`: a value "
        "under one of these keys, at any depth, also under the key with `id` or in the plural "
        "(student: students, student_id). user, login, actor, switched_to and member always do. "
        "shared/PROTOCOL.md has the rules.",
        (
            Setting(
                "person_keys",
                [
                    *("user", "username", "login", "email", "account", "actor", "switched_to"),
                    *("person", "student", "pupil", "teacher", "member", "author", "owner"),
                    *("created_by", "updated_by", "granted_by", "graded_by"),
                ],
                values.person_keys,
            ),
        ),
    ),
    Section(
        "Names of applications that log here, for `logd person --app` and `logd forget --app`: the "
        "user id that its processes run as, or a list of them. (A table [apps] at the end of the "
        "file does the same.)",
        (Setting("apps", {}, values.apps, example={"shop": 1001}),),
    ),
    Section(
        "How long events of a type are kept: a whole number and s, m, h, d, w or y (365 days), "
        "as in the options of commands. `logd prune` removes older events; a type that is not "
        "named is kept for ever, but request_refused and the other types of requests follow "
        "page_view. The age of an event counts from its own time; or from the time "
        "of storing, if its own time is later or more than 7 days earlier, because of a wrong "
        "clock or imported history. (A table [retention] at the end of the file does the same.)",
        (Setting("retention", {}, values.retention, example={"page_view": "90d"}),),
    ),
)

SETTINGS = {setting.name: setting for section in SECTIONS for setting in section.settings}


# The value that `Config` has for each setting that is not in the file.
DEFAULTS: Mapping[str, Any] = {
    name: None if setting.default is None else setting.check(setting.default)
    for name, setting in SETTINGS.items()
}


def template() -> str:
    """Returns the logd.toml that `logd init` writes: every setting, with its default."""
    blocks = []
    for section in SECTIONS:
        lines = section.lines()
        lines += [s.line(commented_out=s.is_commented_out) for s in section.settings]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
