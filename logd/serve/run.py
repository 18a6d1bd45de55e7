"""`logd run`: sets up lock, key, sockets and report process, and runs the event loop."""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from logd import systemd
from logd.audit.head_signer import HeadSigner, read_private_key
from logd.config import settings as configuration
from logd.config.settings import Config, query_gid
from logd.errors import ConfigError, KeyFileError, LogdError, SystemRefused
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.outbox_place import OutboxPlace
from logd.ingest.receiver import Receiver, bind, inherited_sockets, pick, queue_length
from logd.instance_lock import InstanceLock, instance_lock
from logd.maintenance.outbox_survey import directory_identity
from logd.maintenance.search_index import SearchIndex
from logd.maintenance.worker import Worker
from logd.self_repair.repairs import SelfRepair
from logd.self_repair.runtime_files import CHECK_INTERVAL_S
from logd.serve.loop import EventLoop
from logd.serve.reload import compare
from logd.serve.report_process import ReportProcess
from logd.serve.signals import caught_signals, ignore_other_signals
from logd.status import text as status
from logd.storage import erasure_list, keyfile
from logd.storage.opening import check_database, open_store
from logd.storage.trail_clock import TrailClock

QUERY_BACKLOG = socket.SOMAXCONN  # a full queue refuses non-blocking clients
DESCRIPTORS_MIN = 40
# Seconds beyond stop_timeout_s, for the end of the report process and the last checkpoint.
STOP_MARGIN_S = 60
GC_THRESHOLD = 200_000  # more than the number of objects in a batch of the default size

_log = logging.getLogger("logd")


def run(config: Config) -> None:
    """Serves the instance until SIGTERM or SIGINT. Raises a LogdError."""
    ignore_other_signals()
    os.umask(0o077)  # no other user may read the database or its WAL
    _, descriptors_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors_max < DESCRIPTORS_MIN:
        # The daemon could not open any outbox, and all outboxes would fill up.
        raise SystemRefused(
            f"only {descriptors_max} open files are allowed, which leaves none for outboxes. Allow "
            f"{DESCRIPTORS_MIN} and one for each process that logs (ulimit -Hn, LimitNOFILE=)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors_max, descriptors_max))
    with instance_lock(config.lock_file) as lock:
        try:
            _serve(config, lock)
        except LogdError as error:
            lock.set_trouble(str(error))  # `status` shows this reason until the next start
            raise
        except OSError as error:
            problem = SystemRefused(
                f"the operating system refused what logd needs: {error.strerror}"
                f"{f' ({error.filename})' if error.filename else ''}. Nothing of it is confirmed."
            )
            lock.set_trouble(str(problem))
            raise problem from error


def _serve(config: Config, lock: InstanceLock) -> None:
    key = keyfile.read(config.key_file)
    query_gid(config)  # a missing group raises here, not in the report process
    inherited = inherited_sockets()
    if config.rekeyed_file.exists():
        # The module is imported here, since it imports
        # all of `verify`, a tenth of the start's time.
        from logd.maintenance.rekey import complete_rekey

        complete_rekey(config, key)
    check_database(config, lock.database_made)
    store = open_store(config, key, time.time_ns())
    lock.mark_database_made()
    outboxes = OutboxDirectory(config.outbox_directory, many_users=config.many_users)
    outboxes.prepare(str(config.socket), claim=True)
    store.erasure_list.boundaries.outboxes = directory_identity(outboxes.path)
    sockets = _open_sockets(config, inherited)
    receiver = sockets.receiver
    clock = TrailClock(store)
    with caught_signals() as signals:
        worker = Worker(
            store,
            erasure_list.file_beside(config.database),
            clock,
            keep_going=lambda: signals.received is None,
            may_take=systemd.extend_watchdog,
            outboxes=outboxes.path,
        )
        loop = EventLoop(
            config,
            store,
            receiver,
            outboxes,
            clock.now_ns,
            set_trouble=lock.set_trouble,
            worker=worker,
            signer=_signer(config, store.trail_id),
            index=SearchIndex(store, clock.now_ns),
        )
        reporter = ReportProcess(config, sockets.listener, loop.access)
        publisher = StatusPublisher(loop, lock)
        loop.wake_on(signals.fd)
        loop.start()
        reporter.start()
        place = OutboxPlace(
            outboxes, str(config.socket), loop.delivery.open_names, loop.use_new_directory
        )
        repair = SelfRepair(
            config,
            lock,
            place,
            replace_socket=loop.replace_socket if sockets.events_bound else None,
            replace_listener=reporter.replace_listener if sockets.queries_bound else None,
            also=(store.check_files, loop.closed_files.retry),
        )
        loop.limit_wait(CHECK_INTERVAL_S)
        where = "systemd's socket" if inherited else config.socket
        _log.info("ready, pid %d, events at %s", os.getpid(), where)
        # The garbage collector ignores present objects, which stay, and runs seldom:
        # a batch's objects have no cycles, and the search for them took 7 % of the time.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        systemd.send("READY=1", wait=True)
        while signals.received is None:
            loop.run_once()
            repair.run(time.monotonic())
            reporter.keep_running()
            publisher.publish()
            if signals.take_reload():
                config = _reload(config, loop, reporter, outboxes.path)
                repair.apply_config(config)
        deadline_s = time.monotonic() + config.stop_timeout_s
        systemd.send("STOPPING=1\nSTATUS=storing what has arrived, then stopping", wait=True)
        systemd.extend_timeout(config.stop_timeout_s + STOP_MARGIN_S)
        _log.info("%s: storing what has arrived, then stopping", signals.received)
        reporter.stop()
        loop.stop(deadline_s)
        loop.close()
    if not inherited:
        for path in (config.socket, config.query_socket):
            path.unlink(missing_ok=True)
    if loop.stalled is not None:
        raise loop.stalled  # events that have arrived are stored at the next start
    _log.info("stopped")


def _signer(config: Config, trail_id: str | None) -> HeadSigner | None:
    """Returns the signer of heads; None without a key: events are stored all the same."""
    try:
        private_key = read_private_key(config)
    except KeyFileError as error:
        _log.warning("the heads of the trail are not signed: %s", error)
        return None
    if private_key is None or trail_id is None:
        _log.info("the heads of the trail are not signed: `logd genkey` makes a key for that")
        return None
    return HeadSigner(trail_id, private_key)


@dataclass(frozen=True)
class _Sockets:
    """The sockets for events and reports, and whether this process has bound each."""

    receiver: Receiver
    listener: socket.socket
    events_bound: bool
    queries_bound: bool


def _open_sockets(config: Config, inherited: dict[str, socket.socket]) -> _Sockets:
    """Returns the sockets that the service manager has passed, or new ones bound here."""
    events = pick(inherited, socket.SOCK_DGRAM)
    if events is not None:
        receiver = Receiver(events)
    else:
        bound = bind(config.socket, socket.SOCK_DGRAM, config.socket_mode)
        receiver = Receiver(bound, queue_length())
    queries = pick(inherited, socket.SOCK_STREAM)
    listener = queries
    if listener is None:
        listener = bind(config.query_socket, socket.SOCK_STREAM, config.query_socket_mode)
        listener.listen(QUERY_BACKLOG)
    return _Sockets(receiver, listener, events is None, queries is None)


def _reload(
    config: Config, loop: EventLoop, reporter: ReportProcess, outboxes: str | Path
) -> Config:
    """Reads logd.toml again; returns the configuration to use from now on."""
    try:
        read = configuration.load(config.path)
        query_gid(read)
    except (ConfigError, OSError) as error:
        _log.error("SIGHUP: not reloaded, nothing has changed: %s", error)
        return config
    reload = compare(config, read, Path(outboxes))
    loop.apply_config(reload.config)
    if reload.reports:
        reporter.restart(reload.config)
    parts = list(reload.parts()) or ["nothing has changed"]
    level = logging.WARNING if reload.restart else logging.INFO
    _log.log(level, "SIGHUP: read %s again: %s", config.path, "; ".join(parts))
    return reload.config


class StatusPublisher:
    """Notifies the watchdog at each step, and publishes the daemon's statistics once a second."""

    def __init__(self, loop: EventLoop, lock: InstanceLock) -> None:
        self._loop = loop
        self._lock = lock
        self._notifier = systemd.Notifier()
        if self._notifier.interval_s is not None:
            loop.limit_wait(self._notifier.interval_s)

    def publish(self) -> None:
        now_s = time.monotonic()
        self._notifier.feed_watchdog(now_s)
        stats = self._loop.sample_stats()
        if stats is not None:
            self._lock.publish_stats(stats)
            page = self._lock.page
            text = status.status_line(stats, page.trouble, page.since_ns)
            self._notifier.set_status(text, now_s)
