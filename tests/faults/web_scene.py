"""A scene with a site: gunicorn's workers and masters are killed too, while requests come."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, ClassVar

from tests.faults.scene import Heard, Scene
from tests.faults.site import Load, Serving, Site
from tests.support.instance import Instance

LOAD_THREADS = 4


class WebScene(Scene):
    """`kinds` may be empty: then the site is the only one to emit."""

    def __init__(
        self,
        instance: Instance,
        seed: int,
        kinds: tuple[str, ...],
        env: dict[str, str] | None = None,
        *,
        serving: Serving,
    ) -> None:
        super().__init__(instance, seed, kinds, env)
        self.site = Site(instance, serving)
        self.load = Load(self.site.path, LOAD_THREADS)

    @property
    def steps(self) -> int:
        return self.load.asked

    def go_on(self, steps_max: int = 60) -> None:
        super().go_on(min(steps_max, 60))  # a request is slower than an emit

    def heard(self) -> Heard:
        begun, accepted, refused = self.site.boots()
        return super().heard() + Heard(
            at_least=self.load.accepted + accepted,
            at_most=self.load.accepted + self.load.unheard_at_most + begun - refused,
            refused=self.load.refused + refused,
        )

    def check_sums_meanwhile(self) -> None:
        """Left to the end: requests under way are in no count yet."""
        assert self.load.failures == [], (self.seed, self.load.failures)

    # -- faults ----------------------------------------------------------------------------------

    def worker_killed(self) -> None:
        self.site.send_worker(self.rng, signal.SIGKILL)
        self.kills["web worker"] += 1

    def worker_aborted(self) -> None:
        """gunicorn's handler for SIGABRT raises SystemExit wherever the worker is."""
        self.site.send_worker(self.rng, signal.SIGABRT)

    def worker_terminated(self) -> None:
        """It finishes the request at hand; the master starts another."""
        self.site.send_worker(self.rng, signal.SIGTERM)

    def worker_stopped(self) -> None:
        pid = self.site.send_worker(self.rng, signal.SIGSTOP)
        if pid:
            self.go_on(10)
            self.site.send(pid, signal.SIGCONT)

    def worker_and_daemon_killed(self) -> None:
        """In the same instant, in either order."""
        if self.rng.random() < 0.5:
            self.site.send_worker(self.rng, signal.SIGKILL)
            self.kill_daemon()
        else:
            self.daemon.popen.send_signal(signal.SIGKILL)
            self.site.send_worker(self.rng, signal.SIGKILL)
            self.kill_daemon()
        self.kills.update({"daemon": 1, "web worker": 1})
        self.together += 1
        self.restart()

    def master_killed(self) -> None:
        """Its workers find themselves orphans and end; the next master's come meanwhile."""
        self.site.master.popen.send_signal(signal.SIGKILL)
        self.kills["web master"] += 1
        self.site.again()

    def site_and_daemon_killed(self) -> None:
        """Master, workers and daemon in the same instant."""
        workers = len(self.site.workers())
        self.site.send_all(signal.SIGKILL)
        self.kill_daemon()
        self.kills.update({"daemon": 1, "web master": 1, "web worker": workers})
        self.together += 1
        if self.rng.random() < 0.5:
            self.site.again()  # the daemon is still away
            self.restart()
        else:
            self.restart()
            self.site.again()

    def site_restarted(self) -> None:
        """SIGTERM to the master, as a deployment does."""
        self.site.stop()
        self.site.again()

    WEB_FAULTS: ClassVar[tuple[Callable[[Any], None], ...]] = (
        *(worker_killed, worker_killed, worker_killed, worker_killed, worker_aborted),
        *(worker_terminated, worker_stopped, master_killed, site_restarted),
        *(worker_and_daemon_killed, worker_and_daemon_killed, site_and_daemon_killed),
        *(Scene.daemon_killed, Scene.daemon_stopped),
    )

    def choose_fault(self) -> Callable[[Any], None]:
        faults = self.WEB_FAULTS + (self.FAULTS if self.kinds else ())
        return self.rng.choice(faults)

    # -- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        self.load.stop()
        self.site.stop()
        self.site.wait_for_orphans()
        super().end()

    def check(self, status: dict[str, Any], events: list[dict[str, Any]]) -> int:
        lost = super().check(status, events)
        self.load.check([event for event in events if event["user"] == "web"])
        boots = sum(event["user"] == "boot" for event in events)
        begun, accepted, refused = self.site.boots()
        assert accepted <= boots <= begun - refused, self.seed
        return lost

    def close(self) -> None:
        self.load.stop()
        self.site.close()
        super().close()
