"""`logd run`: everything around the daemon's turns. Lock, key, sockets, report process, signals."""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from logd import systemd
from logd.config import settings as configuration
from logd.config.settings import Config, query_gid
from logd.errors import ConfigError, LogdError, SystemRefused
from logd.ingest.outbox_directory import Outboxes
from logd.ingest.outbox_place import OutboxPlace
from logd.ingest.receiver import Receiver, bind, inherited_sockets, pick, queue_length
from logd.instance_lock import InstanceLock, instance_lock
from logd.log_limit import LimitedLog
from logd.maintenance import rekey as rekeying
from logd.maintenance.outbox_survey import directory_identity
from logd.maintenance.worker import Worker
from logd.self_repair.repairs import SelfRepair
from logd.self_repair.runtime_files import CHECK_INTERVAL_S
from logd.serve.loop import Daemon
from logd.serve.reload import compare
from logd.serve.signals import noted, outlive_others
from logd.status import text as status
from logd.storage import erasure_list, keyfile
from logd.storage.event_types import TypeLimits
from logd.storage.opening import check_database
from logd.storage.store import Store
from logd.storage.trail_clock import TrailClock

# A report process that ends within so long of its start (no key file, say) is started less and
# less often.
REPORTER_SETTLED_S = 10.0
REPORTER_PAUSE_MIN_S = 1.0
REPORTER_PAUSE_MAX_S = 60.0
REPORTER_STOP_TIMEOUT_S = 2.0
QUERY_BACKLOG = socket.SOMAXCONN  # a full one refuses at once who does not wait
DESCRIPTORS_MIN = 40
# Past stop_timeout_s: the report process ends, the log goes into the database.
STOP_MARGIN_S = 60
NEVER_S = float("inf")
GC_THRESHOLD = 200_000  # more objects than a batch of the default size holds

_log = logging.getLogger("logd")


def run(config: Config) -> None:
    """Serves the instance until SIGTERM or SIGINT. Raises LogdError kinds."""
    outlive_others()
    os.umask(0o077)  # the database and its log are nobody else's
    _, descriptors_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors_max < DESCRIPTORS_MIN:
        # It would run, confirm nothing to anybody, and let the outboxes fill up.
        raise SystemRefused(
            f"only {descriptors_max} open files are allowed, which leaves none for outboxes. Allow "
            f"{DESCRIPTORS_MIN} and one for each process that logs (ulimit -Hn, LimitNOFILE=)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors_max, descriptors_max))
    with instance_lock(config.lock_file) as lock:
        try:
            _serve(config, lock)
        except LogdError as error:
            lock.tell(str(error))  # `status` shows why it ended, until the next start
            raise
        except OSError as error:
            problem = SystemRefused(
                f"the operating system refused what logd needs: {error.strerror}"
                f"{f' ({error.filename})' if error.filename else ''}. Nothing of it is confirmed."
            )
            lock.tell(str(problem))
            raise problem from error


def _serve(config: Config, lock: InstanceLock) -> None:
    key = keyfile.read(config.key_file)
    query_gid(config)  # a group that is not there is said now, not by the report process
    inherited = inherited_sockets()
    rekeying.finish(config, key)
    check_database(config, lock.database_made)
    store = Store(
        config.database,
        key,
        time.time_ns(),
        config.quarantine_rows_max,
        config.cache_bytes_max,
        TypeLimits(config.event_types_max, config.event_types_per_user_max),
    )
    lock.note_database()
    outboxes = Outboxes(config.outbox_directory, many_users=config.many_users)
    outboxes.prepare(str(config.socket))
    store.forgotten.boundaries.outboxes = directory_identity(outboxes.directory)
    events = pick(inherited, socket.SOCK_DGRAM)
    if events is not None:
        receiver = Receiver(events)
    else:
        made = bind(config.socket, socket.SOCK_DGRAM, config.socket_mode)
        receiver = Receiver(made, queue_length())
    listening = pick(inherited, socket.SOCK_STREAM)
    if listening is not None:
        listener = listening
    else:
        listener = bind(config.query_socket, socket.SOCK_STREAM, config.query_socket_mode)
        listener.listen(QUERY_BACKLOG)
    reporter = ReporterProcess(config, listener)
    clock = TrailClock(store)
    with noted() as signals:
        worker = Worker(
            store,
            erasure_list.file_beside(config.database),
            clock,
            meanwhile=lambda: signals.received is None,
            may_take=systemd.may_take,
            outboxes=outboxes.directory,
        )
        daemon = Daemon(
            config, store, receiver, outboxes, clock.now_ns, tell=lock.tell, worker=worker
        )
        teller = _Teller(daemon, lock)
        daemon.wake_on(signals.fd)
        daemon.start()
        reporter.start()
        place = OutboxPlace(
            outboxes, str(config.socket), lambda: daemon.open_names, daemon.follow_directory
        )
        repair = SelfRepair(
            config,
            lock,
            place,
            replace_socket=None if events else daemon.replace_socket,
            replace_listener=reporter.replace_listener if listening is None else None,
            also=(store.check_files, daemon.watch_again),
        )
        daemon.turn_every(CHECK_INTERVAL_S)
        where = "systemd's socket" if inherited else config.socket
        _log.info("ready, pid %d, events at %s", os.getpid(), where)
        # Whatever is here stays, and nothing that a batch makes and drops has cycles: looking
        # for them took 7 % of the time.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        systemd.send("READY=1", wait=True)
        while signals.received is None:
            daemon.turn()
            repair.run(time.monotonic())
            reporter.keep_running()
            teller.turned()
            if signals.take_reload():
                config = _reload(config, daemon, reporter, outboxes.directory)
                repair.use(config)
        deadline_s = time.monotonic() + config.stop_timeout_s
        systemd.send("STOPPING=1\nSTATUS=storing what has arrived, then stopping", wait=True)
        systemd.extend_timeout(config.stop_timeout_s + STOP_MARGIN_S)
        _log.info("%s: storing what has arrived, then stopping", signals.received)
        reporter.stop()
        daemon.stop(deadline_s)
        daemon.close()
    if not inherited:
        for path in (config.socket, config.query_socket):
            path.unlink(missing_ok=True)
    if daemon.stalled is not None:
        raise daemon.stalled  # stopped as asked, but what has arrived waits for the next start
    _log.info("stopped")


def _reload(
    config: Config, daemon: Daemon, reporter: ReporterProcess, outboxes: str | Path
) -> Config:
    """Reads logd.toml again, and returns the configuration that is in use from now on."""
    try:
        read = configuration.load(config.path)
        query_gid(read)
    except (ConfigError, OSError) as error:
        _log.error("SIGHUP: not reloaded, and nothing has changed: %s", error)
        return config
    reload = compare(config, read, Path(outboxes))
    daemon.use(reload.config)
    if reload.reports:
        reporter.restart(reload.config)
    parts = list(reload.parts()) or ["nothing has changed"]
    level = logging.WARNING if reload.restart else logging.INFO
    _log.log(level, "SIGHUP: read %s again: %s", config.path, "; ".join(parts))
    return reload.config


class _Teller:
    """Says once a turn that the daemon is alive, and once a second how it goes."""

    def __init__(self, daemon: Daemon, lock: InstanceLock) -> None:
        self._daemon = daemon
        self._lock = lock
        self._notifier = systemd.Notifier()
        if self._notifier.interval_s is not None:
            daemon.turn_every(self._notifier.interval_s)

    def turned(self) -> None:
        now_s = time.monotonic()
        self._notifier.turned(now_s)
        figures = self._daemon.figures()
        if figures is not None:
            self._lock.publish(figures)
            page = self._lock.page
            text = status.status_line(figures, page.trouble, page.since_ns)
            self._notifier.status(text, now_s)


def restart_pause_s(pause_s: float, lived_s: float) -> float:
    """How long after its last start a process that lived so long is started again."""
    if lived_s >= REPORTER_SETTLED_S:
        return REPORTER_PAUSE_MIN_S
    return min(max(2 * pause_s, REPORTER_PAUSE_MIN_S), REPORTER_PAUSE_MAX_S)


class ReporterProcess:
    """The child that answers reports, restarted when it dies, at a bounded rate."""

    def __init__(self, config: Config, listener: socket.socket) -> None:
        self._config = config
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._pause_s = 0.0  # from one start to the next
        self._ending_s = NEVER_S  # when it was asked to end, so that another takes its place
        self._limited_log = LimitedLog(_log)

    def start(self) -> None:
        """Starts it with the listening socket, and its standard input as the lifeline."""
        fd = self._listener.fileno()
        command = [
            sys.executable,
            "-m",
            "logd.serve.report_server",
            str(fd),
            str(self._config.path),
        ]
        self._started_s = time.monotonic()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                command,
                stdin=subprocess.PIPE,
                pass_fds=(fd,),
                # The terminal's Ctrl-C is the daemon's to act on. Not a session of its own: where
                # the kernel groups processes by session, niceness counts only within one.
                process_group=0,
            )
        except OSError as error:
            self._process = None
            self._limited_log.warning(self._started_s, "no report process now: %s", error.strerror)

    def replace_listener(self, listener: socket.socket) -> None:
        """Has another process answer, at another socket: the present one's name is gone."""
        self._listener.close()
        self._listener = listener
        self._end_present()

    def keep_running(self) -> None:
        """Starts it again if it has died, or could not be started."""
        now_s = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            if now_s - self._ending_s >= REPORTER_STOP_TIMEOUT_S:
                self._process.kill()
            return
        if self._ending_s != NEVER_S:
            self._ending_s = NEVER_S
            self.start()
            return
        if self._process is not None:  # it has just ended
            self._pause_s = restart_pause_s(self._pause_s, now_s - self._started_s)
            self._process = None
            self._limited_log.warning(
                now_s, "the report process has ended: starting it again in %.0f s", self._pause_s
            )
        if now_s - self._started_s >= max(self._pause_s, REPORTER_PAUSE_MIN_S):
            self.start()

    def restart(self, config: Config) -> None:
        """Has it end, and `keep_running` start it with these settings; waits for neither."""
        self._config = config
        self._end_present()

    def _end_present(self) -> None:
        """Closes the lifeline: `keep_running` starts another when the present process has ended."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._ending_s = time.monotonic()

    def stop(self) -> None:
        """Closes the lifeline; what does not end by itself is killed."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(REPORTER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
