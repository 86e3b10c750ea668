"""The demo's load without its end."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console

from centinela.datasets.simulator import Drift
from centinela.settings import Settings
from centinela_ingest.bulk.delivery_window import DeliveryIncomplete
from centinela_local.demo.feeder import Feeder
from centinela_local.demo.plan import Plan
from centinela_local.demo.probe import Probe
from centinela_local.demo.run import Demo
from centinela_local.demo.summary import LogCounts
from centinela_local.paths import Paths
from centinela_local.processes.startup import StartupWait
from centinela_local.soak.sampler import Sampler
from centinela_local.soak.samples import SampleFile
from centinela_local.stack import Stack

EVERY_S = 15.0
EPISODE_DAYS, QUIET_DAYS = 150, 150
_TICK_S = 0.25
_NO_PROGRESS_S = 120.0


def attacks(plan: Plan) -> tuple[Drift, ...]:
    """Card testing again and again, so that drift, retraining and swaps go on for as long as the stream does."""
    starts = range(plan.attack_day, plan.last_day, EPISODE_DAYS + QUIET_DAYS)
    return tuple(Drift("card_testing", start, start + EPISODE_DAYS) for start in starts)


class Soak(Demo):
    """History, a first champion, then live days and requests until the time is over.

    Args:
        stack: Up, with *settings* to reach it.
        samples: Where the samples go.
    """

    def __init__(
        self, stack: Stack, settings: Settings, plan: Plan, console: Console, *, paths: Paths, samples: Path
    ) -> None:
        urls = {name: process.url for name, (process, _, _) in stack.states().items()}
        super().__init__(settings, plan, console, urls=urls, paths=paths, activity=stack.activity)
        self._feeder = Feeder(
            settings,
            plan,
            lambda: self._view.figures.lag < plan.lag_limit,
            lambda: plan.day_seconds,
            drifts=attacks(plan),
        )
        self._probe = Probe(f"{urls['gateway']}/predict", lambda: self._feeder.event_time, interval_s=0.1)
        self._client = Probe(
            f"{urls['ingest']}/transactions", lambda: self._feeder.event_time, interval_s=0.5, name="posted"
        )
        self._undelivered: str | None = None
        self._file = SampleFile(samples)
        self._sampler = Sampler(
            stack, settings, {"kafka log": stack.paths.kafka, "mlflow": stack.paths.mlflow, "logs": stack.paths.log}
        )

    def endure(self, minutes: float) -> dict[str, int]:
        """Run for so many minutes of live stream; the lag of each group once nothing more was sent."""
        try:
            self._observer.start()
            with self._view:
                self._load_history()
                self._train_first_champion()
                self._stream(minutes * 60)
                try:
                    self._stop_sending()
                except DeliveryIncomplete as incomplete:
                    self._undelivered = str(incomplete)
            return self._drained()
        finally:
            for probe in (self._probe, self._client):
                probe.stop()
            with contextlib.suppress(DeliveryIncomplete):
                self._feeder.stop()
            self._observer.stop()
            self._sampler.close()

    def count(self) -> LogCounts:
        """The audit of all that went through."""
        return self._count()

    def figures(self) -> dict[str, object]:
        """What happened, in figures."""
        return {
            "transactions": self._feeder.transactions,
            "undelivered": self._undelivered,
            "event_time": str(self._feeder.event_time),
            "retrain_requests": len(self.story.drift_requests),
            "trainings": len(self.story.trainings),
            "promotions": len(self.story.promotions),
            "requests": self._probe.requests,
            "failed_requests": self._probe.failures,
            "posts": self._client.requests,
            "failed_posts": self._client.failures,
        }

    def _stream(self, seconds: float) -> None:
        self._view.figures.phase = "streaming"
        for probe in (self._probe, self._client):
            probe.start()
        self._feeder.start()
        started = due = self._clock.monotonic()
        while self._feeder.alive and (now := self._clock.monotonic()) - started < seconds:
            self._step()
            if now >= due:
                self._file.add(self._sampler.sample(now - started))
                due += EVERY_S
            self._pause.wait(_TICK_S)
        self._client.stop()
        if self._feeder.error is not None:
            raise self._feeder.error

    def _drained(self) -> dict[str, int]:
        lags = self._sampler.lags()
        wait = StartupWait(lambda: tuple(lags.values()), stall_s=_NO_PROGRESS_S, clock=self._clock.monotonic)
        while lags and max(lags.values()) > 100 and wait.problem() is None:
            self._pause.wait(1.0)
            lags = self._sampler.lags()
        return lags
