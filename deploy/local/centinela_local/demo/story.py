"""What happened in the demo, read from the events on Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from centinela.events import (
    DriftReported,
    Event,
    ModelLoaded,
    ModelLoadRejected,
    ModelPromoted,
    RetrainRequested,
    TrainingCompleted,
)

RECOVERY_SHARE = 2 / 3
"""Share of the lost average precision that must come back for the loop to count as closed."""

LEAST_FRAUDS = 20
"""Frauds below which a measured average precision says nothing."""
REQUEST_WITHIN, ANSWER_WITHIN, RECOVERY_WITHIN = timedelta(days=35), timedelta(days=90), timedelta(days=30)
"""Event time after which the next step is not waited for any more. An answer takes its wall time, however fast days
pass."""


@dataclass(frozen=True)
class Moment:
    """Something worth telling, with its wall time and the event time that the stream had reached."""

    wall: datetime
    event_time: datetime | None
    what: str
    detail: str


@dataclass(frozen=True)
class Measurement:
    """Average precision of *version* on mature transactions of ``start .. end`` (event time)."""

    start: datetime
    end: datetime
    version: str
    value: float


@dataclass(frozen=True)
class Performance:
    """Average precision before the attack, at its worst with the old model, and last with the new one."""

    before: float | None
    during: float | None
    after: float | None

    @property
    def recovered(self) -> bool:
        """Whether the new model regained ``RECOVERY_SHARE`` of what the old one lost."""
        if self.before is None or self.during is None or self.after is None or self.during >= self.before:
            return False
        return self.after - self.during >= RECOVERY_SHARE * (self.before - self.during)


@dataclass
class Story:
    """Takes the loop's events in and answers what they add up to.

    Args:
        attack_at: Event time at which the new fraud pattern starts.
    """

    attack_at: datetime
    moments: list[Moment] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    alert_rates: list[tuple[datetime, float]] = field(default_factory=list)
    promotions: list[tuple[datetime | None, str]] = field(default_factory=list)
    """Event time and version of each move of the champion alias."""
    requests: list[RetrainRequested] = field(default_factory=list)
    trainings: list[TrainingCompleted] = field(default_factory=list)
    loaded: dict[str, set[str]] = field(default_factory=dict)
    """Replicas that serve a champion version, by version."""
    drift_state: str = "no report yet"
    _attack_told: bool = False

    def tell(self, wall: datetime, event_time: datetime | None, what: str, detail: str = "") -> None:
        """Add a moment."""
        self.moments.append(Moment(wall, event_time, what, detail))

    def reach(self, wall: datetime, event_time: datetime) -> None:
        """The stream reached *event_time*."""
        if event_time >= self.attack_at and not self._attack_told:
            self._attack_told = True
            self.tell(wall, event_time, "attack starts", "card testing: bursts of tiny payments on hijacked cards")

    def observe(self, event: Event, wall: datetime, event_time: datetime | None) -> None:
        """Take in one event of ``drift-reports``, ``retrain-requests`` or ``model-events``."""
        match event:
            case DriftReported():
                self._report(event, wall)
            case RetrainRequested():
                self.requests.append(event)
                self.tell(wall, event.as_of, "retrain requested", f"by {event.requested_by}: {event.reason}")
            case TrainingCompleted():
                self.trainings.append(event)
                self.tell(wall, event_time, f"training {event.outcome}", _training(event))
            case ModelPromoted(alias="champion", model_version=str(version)):
                self.promotions.append((event_time, version))
                before = f"version {event.previous_version} before" if event.previous_version else "the first one"
                self.tell(wall, event_time, "champion promoted", f"version {version}, {before}")
            case ModelLoaded(alias="champion"):
                self.loaded.setdefault(event.model_version, set()).add(event.replica)
                self.tell(
                    wall,
                    event_time,
                    "model loaded",
                    f"version {event.model_version} by {event.replica} in {event.duration_s:.2f} s",
                )
            case ModelLoadRejected():
                self.tell(
                    wall,
                    event_time,
                    "model rejected",
                    f"version {event.model_version} by {event.replica}: {event.reason}",
                )

    @property
    def first_version(self) -> str | None:
        """The first champion."""
        return self.promotions[0][1] if self.promotions else None

    @property
    def drift_requests(self) -> list[RetrainRequested]:
        """Requests that the drift service made."""
        return [request for request in self.requests if request.requested_by == "drift"]

    @property
    def retrainings(self) -> list[TrainingCompleted]:
        """Answers to the drift service's requests."""
        asked = {request.request_id for request in self.drift_requests}
        return [training for training in self.trainings if training.request_id in asked]

    @property
    def new_version(self) -> str | None:
        """The last version that a request of the drift service led to and that was promoted."""
        trained = {t.model_version for t in self.retrainings if t.outcome == "promoted"}
        return next((version for _, version in reversed(self.promotions) if version in trained), None)

    def waiting_replicas(self, version: str) -> set[str]:
        """Replicas that served the first champion and do not serve *version* yet."""
        return self.loaded.get(self.first_version or "", set()) - self.loaded.get(version, set())

    @property
    def swaps(self) -> int:
        """Promotions after the first that every replica followed."""
        return sum(
            1 for _, version in self.promotions[1:] if self.loaded.get(version) and not self.waiting_replicas(version)
        )

    @property
    def performance(self) -> Performance:
        """Average precision before, during and after."""
        old, new = self.first_version, self.new_version
        before = [m.value for m in self.measurements if m.version == old and m.end <= self.attack_at]
        during = [m.value for m in self.measurements if m.version != new and m.end > self.attack_at]
        after = [m.value for m in self.measurements if m.version == new]
        return Performance(
            median(before) if before else None, min(during) if during else None, after[-1] if after else None
        )

    @property
    def closed(self) -> bool:
        """Whether a request of drift led to a version that every replica serves and that performs again."""
        new = self.new_version
        return new is not None and not self.waiting_replicas(new) and self.performance.recovered

    @property
    def answering(self) -> bool:
        """Whether a request of drift is being worked on: not answered yet, or its version not loaded by every
        replica."""
        if len(self.retrainings) < len(self.drift_requests):
            return True
        new = self.new_version
        return new is not None and bool(self.waiting_replicas(new))

    def hopeless(self, event_time: datetime) -> bool:
        """Whether the next step of the loop is so late at *event_time* that it will not come."""
        if self.closed:
            return False
        if not self.drift_requests:
            return event_time > self.attack_at + REQUEST_WITHIN
        new = self.new_version
        if new is None or self.waiting_replicas(new):
            return event_time > self.drift_requests[-1].as_of + ANSWER_WITHIN
        since = next((at for at, version in reversed(self.promotions) if version == new), None)
        return since is not None and event_time > since + RECOVERY_WITHIN

    def _report(self, report: DriftReported, wall: datetime) -> None:
        measured = report.performance
        if report.count:
            self.alert_rates.append((report.end, report.alert_rate))
        if measured is not None and measured.average_precision is not None and measured.frauds >= LEAST_FRAUDS:
            self.measurements.append(
                Measurement(measured.start, measured.end, report.model_version, measured.average_precision)
            )
        if report.state != self.drift_state:
            if report.state == "alarm" or self.drift_state == "alarm":
                self.tell(wall, report.end, f"drift {report.state}", report.reason)
            self.drift_state = report.state


def _training(event: TrainingCompleted) -> str:
    parts = [
        f"version {event.model_version}" if event.model_version else "",
        event.reason,
        f"AP {event.average_precision:.2f}" if event.average_precision is not None else "",
        f"champion's {event.champion_average_precision:.2f}" if event.champion_average_precision is not None else "",
        f"took {event.duration_s:.0f} s" if event.duration_s is not None else "",
    ]
    return ", ".join(part for part in parts if part)
