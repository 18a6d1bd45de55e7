"""The lines of each systemd unit, each with the tests that fail without it."""

from __future__ import annotations

Lines = dict[str, tuple[list[str], str]]

# Descriptions and priorities, which protect nothing.
PLAIN = {"Description", "Documentation", "SyslogIdentifier", "Nice", "IOSchedulingClass"}


SANDBOX: Lines = {
    "CapabilityBoundingSet": ([""], "no process of it has, or can get, a capability of root"),
    "AmbientCapabilities": ([""], "nor inherits one"),
    "NoNewPrivileges": (["yes"], "a set-uid program gives it nothing"),
    "ProtectSystem": (["strict"], "it writes to no file system but where a line allows it"),
    "ReadOnlyPaths": (["/run"], "other services' sockets and pid files are not written to"),
    "ProtectHome": (["yes"], "people's files are not seen"),
    "ProtectProc": (["invisible"], "environments and command lines of others are not seen"),
    "PrivateTmp": (["yes"], "no file of it is found in /tmp, and none of others is followed"),
    "PrivateDevices": (["yes"], "no disk is read past its file system"),
    "DevicePolicy": (["closed"], "nor by a device node of its own"),
    "PrivateNetwork": (["yes"], "what it reads leaves the machine by no network"),
    "IPAddressDeny": (["any"], "nor by an inherited socket"),
    "PrivateIPC": (["yes"], "no shared memory with others"),
    "KeyringMode": (["private"], "keys of others in the kernel are not its own"),
    "ProtectClock": (["yes"], "the times of the trail are not its to set"),
    "ProtectHostname": (["yes"], "the host's name in the log is not its to set"),
    "ProtectKernelLogs": (["yes"], "the kernel's log is not read"),
    "ProtectKernelModules": (["yes"], "no code gets into the kernel"),
    "ProtectKernelTunables": (["yes"], "no setting of the kernel is changed"),
    "ProtectControlGroups": (["yes"], "its bounds are not its to lift"),
    "RestrictNamespaces": (["yes"], "nor to escape by a user namespace"),
    "RestrictRealtime": (["yes"], "it cannot take the processor from the machine"),
    "RestrictSUIDSGID": (["yes"], "it leaves no set-uid file behind"),
    "LockPersonality": (["yes"], "no old ABI of the kernel"),
    "MemoryDenyWriteExecute": (["yes"], "what is written into its memory is not run"),
    "SystemCallArchitectures": (["native"], "the filter below holds for every call"),
    "SystemCallFilter": (
        ["@system-service", "~@privileged @resources"],
        "what a service never needs cannot be called",
    ),
    "SystemCallErrorNumber": (["EPERM"], "a refused call is an error that the program reports"),
    "RestrictAddressFamilies": (["AF_UNIX"], "no socket but to this machine"),
    "LimitCORE": (["0"], "no event, password or key gets into a core file"),
    "UMask": (["0077"], "what it creates is for its user alone"),
    "RemoveIPC": (["no"], "the end of its last process removes no outbox in /dev/shm"),
    "InaccessiblePaths": (["-/dev/shm -/var/backups/logd"], "backups and others' memory"),
}


OF_LOGD: Lines = {
    "User": (["logd"], "not root"),
    "Group": (["logd"], "not root's group"),
    "StateDirectory": (["logd"], "the database's place is made, and writable, for it alone"),
    "StateDirectoryMode": (["0700"], "no other user lists or opens the database"),
    "LoadCredential": (["logd.key:/etc/logd/logd.key"], "only systemd reads the key's file"),
}


# Of those that sign heads, or check signatures.
SIGNING: Lines = {
    "LoadCredential": (
        ["logd.key:/etc/logd/logd.key", "logd-signing.key:/etc/logd/logd-signing.key"],
        "only systemd reads the keys' files",
    ),
    "SetCredential": (["logd-signing.key:none"], "an upgraded logd starts without the second one"),
}


def job(command: str) -> Lines:
    return OF_LOGD | {
        "After": (["logd.service time-sync.target"], "not with a clock that is not set yet"),
        "Type": (["oneshot"], "systemd knows how it ended"),
        "ExecStart": (
            [f"/usr/local/lib/logd/bin/python -I -m logd {command}"],
            "isolated: nothing of a directory or environment is imported",
        ),
        "TimeoutStartSec": (["6h"], "a job that hangs ends"),
    }


def timer(at: str) -> Lines:
    return {
        "PartOf": (["logd.target"], "stopped with the rest"),
        "After": (["time-sync.target"], "not with a clock that is not set yet"),
        "OnCalendar": ([f"*-*-* {at}"], "once in every night"),
        "RandomizedDelaySec": (["15min"], "not on all machines at once"),
        "Persistent": (["yes"], "a night that the machine slept through is made up for"),
        "WantedBy": (["logd.target"], "started with the rest"),
    }


# Lines besides the sandbox, or that differ from it; None: the unit does not have that line.
OWN: dict[str, dict[str, tuple[list[str], str] | None]] = {
    "logd.service": {
        **OF_LOGD,
        **SIGNING,
        "Requires": (
            ["logd.socket logd-query.socket"],
            "no event arrives at a socket that it does not read",
        ),
        "RequiresMountsFor": (["/run/logd/writers/outboxes"], "outboxes never fill /run itself"),
        "PartOf": (["logd.target"], "stopped with the target, and the sockets are not"),
        "StartLimitIntervalSec": (["0"], "it is restarted for ever"),
        "Type": (["notify"], "ready when what was accepted before is read"),
        "NotifyAccess": (["main"], "no other process can report it alive"),
        "Sockets": (["logd.socket logd-query.socket"], "what is queued outlives it"),
        "ExecReload": (["/bin/sh -c 'kill -HUP $MAINPID'"], "a reload restarts nothing"),
        "ExecStart": (
            ["/usr/local/lib/logd/bin/python -I -m logd run"],
            "isolated: nothing of a directory or environment is imported",
        ),
        "Restart": (["always"], "restarted after a kill"),
        "RestartSec": (["100ms"], "at once"),
        "RestartPreventExitStatus": (
            ["2 65 69 71 73 77 78 243"],
            "an error that a restart cannot fix is reported once",
        ),
        "ExecStopPost": (
            ["""/bin/sh -c 'case "$EXIT_STATUS" in 1|70|74|75) sleep 5 ;; esac'"""],
            "a failing disk is not retried without a pause",
        ),
        "WatchdogSec": (["30s"], "killed and restarted when it hangs"),
        "TimeoutStartSec": (["90s"], "a start that hangs ends"),
        "TimeoutStopSec": (["30s"], "what was accepted is stored before the kill"),
        "KillMode": (["mixed"], "only the daemon gets SIGTERM, and no report process stays"),
        "OOMPolicy": (
            ["continue"],
            "a report that is killed for lack of memory does not end the daemon",
        ),
        "LimitNOFILE": (["8192"], "a descriptor for each outbox that it may hold open"),
        "TasksMax": (["128"], "its threads are bounded"),
        "ReadWritePaths": (["/run/logd"], "all that it writes besides the database"),
        "SystemCallFilter": (
            ["@system-service", "~@privileged @resources", "setpriority"],
            "the report process may lower its own priority only",
        ),
        "WantedBy": (["multi-user.target"], "started at boot"),
    },
    "logd-hold.service": {
        "After": (["logd.socket logd-query.socket"], "they start it"),
        "PartOf": (["logd.socket logd-query.socket"], "and goes with them"),
        "Type": (["oneshot"], "done at once"),
        "RemainAfterExit": (["yes"], "the sockets are not started again without end"),
        "ExecStart": (["/bin/true"], "it does nothing"),
        "DynamicUser": (["yes"], "a user that owns nothing"),
        "RestrictAddressFamilies": (["none"], "it opens no socket"),
        "RemoveIPC": None,
    },
    "logd-backup.service": {
        **job("backup"),
        "ReadWritePaths": (["/var/backups/logd"], "all that it writes besides the database"),
        "InaccessiblePaths": (["-/dev/shm"], "others' memory; backups are its work"),
    },
    "logd-prune.service": {
        **job("prune"),
        "ReadWritePaths": (["/run/logd"], "where the daemon is asked"),
    },
    "logd-verify.service": {
        **job("verify --anchor --incremental"),
        **SIGNING,
        "SupplementaryGroups": (["systemd-journal"], "reads the anchors, which logd cannot change"),
    },
    "classroom.service": {
        "Requires": (["classroom.socket"], "no port of its own"),
        "Wants": (["run-logd-writers-outboxes.mount"], "its outboxes are in memory"),
        "After": (["logd.service run-logd-writers-outboxes.mount"], "and there before it"),
        "StartLimitIntervalSec": (["0"], "it is restarted for ever"),
        "Type": (["notify"], "ready when it answers"),
        "NotifyAccess": (["main"], "no worker can report it ready"),
        "ExecStartPre": (
            ["/usr/local/lib/logd/bin/python -I -m flask --app webapp seed"],
            "isolated: nothing of a directory or environment is imported",
        ),
        "ExecStart": (
            [
                "/usr/local/lib/logd/bin/python -I -m gunicorn --config"
                " python:webapp.classroom.gunicorn_conf webapp.classroom.wsgi:application()"
            ],
            "isolated, and no option that writes a log of requests",
        ),
        "User": (["classroom"], "neither root nor logd"),
        "Group": (["classroom"], "neither root's group nor logd's"),
        "SupplementaryGroups": (["logd-write logd-read"], "it may log and ask, not read the key"),
        "InaccessiblePaths": (
            ["-/etc/logd -/var/lib/logd -/var/backups/logd"],
            "key, database and backups, whatever their modes are",
        ),
        "Environment": (
            [
                "CLASSROOM_DIR=/var/lib/classroom",
                "ACTIVITY_LOG_SOCKET=/run/logd/logd.sock",
                "ACTIVITY_QUERY_SOCKET=/run/logd/query.sock",
            ],
            "no CLASSROOM_INSECURE_HTTP: cookies travel by HTTPS only",
        ),
        "EnvironmentFile": (["-/etc/classroom/classroom.env"], "settings are root's to change"),
        "Restart": (["on-failure"], "restarted after a kill"),
        "RestartSec": (["1s"], "soon"),
        "RestartPreventExitStatus": (["1 4"], "an error is reported once"),
        "ExecStopPost": (
            ["""/bin/sh -c 'case "$EXIT_STATUS" in 1|4) sleep 5 ;; esac'"""],
            "a visitor who waits restarts it after a pause only",
        ),
        "TimeoutStartSec": (["60s"], "a start that hangs ends"),
        "TimeoutStopSec": (["15s"], "requests are answered before the kill"),
        "KillMode": (["mixed"], "no worker stays"),
        "LimitNOFILE": (["4096"], "connections are bounded"),
        "TasksMax": (["256"], "its threads are bounded"),
        "StateDirectory": (["classroom"], "its database's place"),
        "StateDirectoryMode": (["0700"], "no other user lists or opens the database"),
        "ReadWritePaths": (["-/run/logd/writers/outboxes"], "its outboxes"),
        "TemporaryFileSystem": (["/dev/shm:mode=1777,size=1M"], "no memory shared with others"),
        "WantedBy": (["multi-user.target"], "started at boot"),
        "Also": (["classroom.socket classroom-reconcile.timer"], "with its socket and its timer"),
    },
    "classroom-reconcile.service": {
        "Wants": (["run-logd-writers-outboxes.mount"], "its outbox is in memory"),
        "After": (
            ["logd.service run-logd-writers-outboxes.mount time-sync.target"],
            "and there before it; not with a clock that is not set yet",
        ),
        "Type": (["oneshot"], "systemd knows how it ended"),
        "ExecStart": (
            ["/usr/local/lib/logd/bin/python -I -m flask --app webapp reconcile"],
            "isolated: nothing of a directory or environment is imported",
        ),
        "User": (["classroom"], "neither root nor logd"),
        "Group": (["classroom"], "neither root's group nor logd's"),
        "SupplementaryGroups": (["logd-write logd-read"], "it may log and ask, not read the key"),
        "InaccessiblePaths": (
            ["-/etc/logd -/var/lib/logd -/var/backups/logd"],
            "key, database and backups, whatever their modes are",
        ),
        "Environment": (
            [
                "CLASSROOM_DIR=/var/lib/classroom",
                "ACTIVITY_LOG_SOCKET=/run/logd/logd.sock",
                "ACTIVITY_QUERY_SOCKET=/run/logd/query.sock",
            ],
            "the site's own instance",
        ),
        "EnvironmentFile": (["-/etc/classroom/classroom.env"], "settings are root's to change"),
        "TimeoutStartSec": (["1h"], "a job that hangs ends"),
        "TasksMax": (["64"], "its threads are bounded"),
        "StateDirectory": (["classroom"], "its database's place"),
        "StateDirectoryMode": (["0700"], "no other user lists or opens the database"),
        "ReadWritePaths": (["-/run/logd/writers/outboxes"], "its outbox"),
        "TemporaryFileSystem": (["/dev/shm:mode=1777,size=1M"], "no memory shared with others"),
    },
    "classroom-reconcile.timer": {
        **timer("05:00"),
        "PartOf": (["classroom.service"], "stopped with the site"),
        "WantedBy": (["classroom.service"], "started with the site"),
    },
    "logd.socket": {
        "ListenDatagram": (["/run/logd/logd.sock"], "one datagram is one sender's"),
        "SocketUser": (["logd"], "not root's"),
        "SocketGroup": (["logd-write"], "who may log"),
        "SocketMode": (["0660"], "no other user"),
        "PassCredentials": (["yes"], "what is queued before the daemon starts has its sender"),
        "Service": (["logd-hold.service"], "arriving events start a unit that cannot fail"),
    },
    "logd-query.socket": {
        "ListenStream": (["/run/logd/query.sock"], "the kernel reports the peer's user"),
        "SocketUser": (["logd"], "not root's"),
        "SocketGroup": (["logd-read"], "who may ask"),
        "SocketMode": (["0660"], "no other user"),
        "Backlog": (["64"], "connections that wait are bounded"),
        "Service": (["logd-hold.service"], "arriving requests start a unit that cannot fail"),
    },
    "classroom.socket": {
        "ListenStream": (["127.0.0.1:8000"], "not reached past the web server that speaks HTTPS"),
        "WantedBy": (["sockets.target"], "there from the boot on"),
    },
    "logd-backup.timer": {**timer("04:30")},
    "logd-prune.timer": {**timer("05:30")},
    "logd-verify.timer": {**timer("06:30")},
    "logd.target": {
        "Wants": (
            [
                "logd.socket logd-query.socket logd.service",
                "logd-backup.timer logd-prune.timer logd-verify.timer",
            ],
            "backup, retention and verification are on with the rest",
        ),
        "WantedBy": (["multi-user.target"], "started at boot"),
    },
    "run-logd-writers-outboxes.mount": {
        "DefaultDependencies": (["no"], "its owner exists before it"),
        "After": (
            ["systemd-sysusers.service systemd-tmpfiles-setup.service swap.target"],
            "its owner and its folder exist before it",
        ),
        "Conflicts": (["umount.target"], "unmounted at shutdown"),
        "Before": (["umount.target"], "unmounted at shutdown"),
        "What": (["tmpfs"], "events in plain text lie in memory only"),
        "Where": (["/run/logd/writers/outboxes"], "behind a folder for the group alone"),
        "Type": (["tmpfs"], "events in plain text lie in memory only"),
        "Options": ([], "see the test of its own"),
    },
}
