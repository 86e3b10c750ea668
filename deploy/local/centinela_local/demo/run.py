"""The demo, from an empty folder to a closed loop."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable

from rich.console import Console

from centinela.clock import Clock, SystemClock
from centinela.errors import CentinelaError
from centinela.kafka.connect import consumer
from centinela.operations.reconcile import LogAudit, Reconciliation
from centinela.settings import Settings
from centinela_local.demo.feeder import Feeder
from centinela_local.demo.figures import Meter
from centinela_local.demo.observer import Observer
from centinela_local.demo.picture import draw
from centinela_local.demo.plan import Plan
from centinela_local.demo.probe import Probe
from centinela_local.demo.story import Story
from centinela_local.demo.summary import LogCounts, SkewCounts, Summary, summarize
from centinela_local.demo.view import LiveView
from centinela_local.paths import Paths
from centinela_local.processes.startup import StartupWait
from centinela_local.readiness.checks import ask
from centinela_trainer.archive.bootstrap import await_archive
from centinela_trainer.commands.retrain import publish, request_for
from centinela_trainer.params import SkewParams
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.skew.check import SkewCheck

_TICK_S = 0.25
_NO_VERDICT_S = 60.0
_AFTER_CLOSING_S = 4.0
_IDLE_S = 15.0


class DemoStuck(CentinelaError):
    """A step of the demo did not end in time; the message says which, and what it waited for."""


class Demo:
    """Runs against a stack that is up.

    Args:
        settings: Reach the stack.
        urls: Addresses of the processes by name.
        activity: Changes while the stack makes progress; a step that takes long is waited for while it does.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        console: Console,
        *,
        urls: dict[str, str],
        paths: Paths,
        activity: Callable[[], Hashable],
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._console = console
        self._urls = urls
        self._paths = paths
        self._activity = activity
        self._clock = clock or SystemClock()
        self.story = Story(plan.attack_at)
        self._view = LiveView(console, self.story)
        self._meter = Meter(urls["stream"])
        self._observer = Observer(settings)
        self._feeder = Feeder(
            settings,
            plan,
            lambda: self._view.figures.lag < plan.lag_limit,
            lambda: max(plan.day_seconds, plan.answering_day_seconds if self.story.answering else 0.0),
        )
        self._probe = Probe(f"{urls['gateway']}/predict", lambda: self._feeder.event_time)
        self._idle_since: float | None = None
        self._started = self._clock.monotonic()
        self._pause = threading.Event()

    def run(self) -> Summary:
        """Play the whole story; the summary says whether the loop closed."""
        try:
            self._observer.start()
            with self._view:
                self._load_history()
                self._train_first_champion()
                self._stream_until_closed()
                self._stop_sending()
        finally:
            self._probe.stop()
            self._feeder.stop()
            self._observer.stop()
        return self._conclude()

    def _load_history(self) -> None:
        figures = self._view.figures

        def sent(days: int, of: int) -> None:
            figures.phase = f"loading labelled history, day {days} of {of}"
            self._step()

        self._tell("history starts", f"{self._plan.history_days} days, labelled")
        self._feeder.load_history(sent)
        figures.phase = "history: features and archive"
        self._wait_until(self._caught_up, "the stream to take in the history")
        self._tell("history loaded", f"{self._feeder.transactions:,} transactions")

    def _train_first_champion(self) -> None:
        self._view.figures.phase = "training the first champion"
        trainer = TrainerSettings(kafka_bootstrap_servers=self._settings.kafka_bootstrap_servers)
        publish(
            trainer,
            request_for(
                self._settings.model_name, self._plan.live_from, "the first champion, from labelled history", None
            ),
        )
        self._wait_until(lambda: bool(self.story.trainings), "the first training")
        if self.story.trainings[0].outcome != "promoted":
            raise DemoStuck(
                f"the first training was {self.story.trainings[0].outcome}: {self.story.trainings[0].reason}"
            )
        self._wait_until(self._models_serve, "the predictors to load the first champion")

    def _stream_until_closed(self) -> None:
        self._view.figures.phase = "streaming"
        self._probe.start()
        self._feeder.start()
        closed_at: float | None = None
        while self._feeder.alive:
            self._step()
            self._pause.wait(_TICK_S)
            self._view.figures.phase = "streaming, retraining" if self.story.answering else "streaming"
            event_time = self._feeder.event_time
            if event_time is not None and self.story.hopeless(event_time):
                break
            if self.story.closed:
                closed_at = closed_at or self._clock.monotonic()
                if self._clock.monotonic() - closed_at > _AFTER_CLOSING_S:
                    break
        if self._feeder.error is not None:
            raise self._feeder.error

    def _stop_sending(self) -> None:
        self._view.figures.phase = "finishing"
        self._probe.stop()
        self._feeder.stop()
        self._step()

    def _conclude(self) -> Summary:
        self._console.print("counting every record ...", style="dim")
        summary = summarize(
            self.story,
            self._count(),
            self._skew(),
            requests=self._probe.requests,
            failed_requests=len(self._probe.failures),
            seconds=self._clock.monotonic() - self._started,
        )
        self._paths.demo.mkdir(parents=True, exist_ok=True)
        draw(self.story, self._feeder.event_time or self._plan.attack_at, self._paths.demo / "loop.png")
        (self._paths.demo / "summary.json").write_text(json.dumps(summary.as_dict(), indent=1) + "\n")
        for failure in self._probe.failures[:5]:
            self._console.print(f"failed request: {failure}", style="red", markup=False)
        return summary

    def _count(self) -> LogCounts:
        reader = consumer(self._settings, group=None)
        try:
            audit = _reconciled(LogAudit(reader))
        finally:
            reader.close()
        return LogCounts(
            transactions=audit.records,
            duplicates=audit.duplicates,
            verdicts=audit.verdicts,
            dead_letters=audit.dead_letters,
            missing=len(audit.missing),
            repeated=len(audit.repeated),
            reconciled=audit.reconciled,
        )

    def _skew(self) -> SkewCounts:
        trainer = TrainerSettings(
            kafka_bootstrap_servers=self._settings.kafka_bootstrap_servers, data_dir=self._settings.data_dir
        )
        try:
            await_archive(trainer)
            report = SkewCheck(trainer.archive_dir, SkewParams(), trainer.skew_path)()
        except CentinelaError as error:
            self._console.print(f"skew was not checked: {error}", style="red", markup=False)
            return SkewCounts()
        return SkewCounts(sum(report.judged.values()), report.mismatches) if report is not None else SkewCounts()

    def _step(self) -> None:
        """One turn of the display: figures, events, moments."""
        figures, now = self._view.figures, self._clock.now()
        self._meter.read(figures, self._clock.monotonic())
        figures.event_time = self._feeder.event_time
        figures.requests, figures.failed_requests = self._probe.requests, len(self._probe.failures)
        if figures.event_time is not None:
            self.story.reach(now, figures.event_time)
        for event in self._observer.take():
            self.story.observe(event, now, figures.event_time)
        figures.version = self._probe.version or (self.story.promotions[-1][1] if self.story.promotions else None)
        self._view.refresh()

    def _caught_up(self) -> bool:
        """Whether the stream has taken in what was sent. Its count restarts with its process; its lag does not."""
        figures, now = self._view.figures, self._clock.monotonic()
        if figures.lag > 0 or self._idle_since is None:
            self._idle_since = now
        return figures.processed >= self._feeder.transactions or now - self._idle_since > _IDLE_S

    def _models_serve(self) -> bool:
        answers = [ask(f"{self._urls[name]}/ready") for name in ("gateway", "stream")]
        return all(answer is not None and answer.status == 200 for answer in answers)

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        wait = StartupWait(self._activity, clock=self._clock.monotonic)
        self._step()
        while not condition():
            if (problem := wait.problem()) is not None:
                raise DemoStuck(f"waited in vain for {what}: it {problem}; the logs are in {self._paths.log}")
            self._pause.wait(_TICK_S)
            self._step()

    def _tell(self, what: str, detail: str) -> None:
        self.story.tell(self._clock.now(), self._feeder.event_time, what, detail)


def _reconciled(log: LogAudit) -> Reconciliation:
    """What *log* says once it reconciles, or once no verdict came for a while."""
    outcomes = -1
    while not (result := log.read_until_reconciled(_NO_VERDICT_S)).reconciled:
        if result.verdicts + result.dead_letters <= outcomes:
            break
        outcomes = result.verdicts + result.dead_letters
    return result
