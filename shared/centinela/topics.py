"""The topic catalogue: the one place that names topics, their keys, values, producers and consumers."""

from __future__ import annotations

from dataclasses import dataclass, field

from centinela import events
from centinela.times import DAY_MS

DLQ_SUFFIX = "-dlq"


@dataclass(frozen=True)
class Topic:
    """A topic and its contract. ``partitions`` None: as many as settings say for data topics."""

    name: str
    key: str
    values: tuple[type, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: int | None = None
    config: dict[str, str] = field(default_factory=dict)

    @property
    def dlq(self) -> str:
        """The topic of the dead letters of this topic."""
        return self.name + DLQ_SUFFIX


def _retention(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS)}


TRANSACTIONS = Topic(
    "transactions",
    "user_id",
    (events.TransactionReceived,),
    ("ingest", "predictor"),
    ("predictor",),
    config=_retention(40),
)
LABELS = Topic(
    "labels", "user_id", (events.LabelReported,), ("ingest",), ("predictor", "drift", "trainer"), config=_retention(90)
)
PREDICTIONS = Topic(
    "predictions", "user_id", (events.TransactionScored,), ("predictor",), ("trainer", "clients"), config=_retention(40)
)
TERMINAL_ACTIVITY = Topic(
    "terminal-activity", "source partition", (), ("predictor",), ("predictor",), config=_retention(40)
)
FEATURE_PANES = Topic(
    "feature-panes", "source partition", (events.FeaturePane,), ("predictor",), ("drift",), config=_retention(40)
)
DRIFT_REPORTS = Topic(
    "drift-reports",
    "model_name",
    (events.DriftReported,),
    ("drift",),
    ("console", "clients"),
    partitions=1,
    config=_retention(365),
)
RETRAIN_REQUESTS = Topic(
    "retrain-requests",
    "model_name",
    (events.RetrainRequested,),
    ("drift", "operator"),
    ("trainer",),
    partitions=1,
    config=_retention(365),
)
MODEL_EVENTS = Topic(
    "model-events",
    "model_name and kind",
    (events.ModelPromoted, events.ModelLoaded, events.ModelLoadRejected, events.TrainingCompleted),
    ("registry-watcher", "predictor", "trainer"),
    ("predictor", "drift", "console"),
    partitions=1,
    config={"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.5"},
)

CATALOGUE: tuple[Topic, ...] = (
    TRANSACTIONS,
    LABELS,
    PREDICTIONS,
    TERMINAL_ACTIVITY,
    FEATURE_PANES,
    DRIFT_REPORTS,
    RETRAIN_REQUESTS,
    MODEL_EVENTS,
)
"""Every topic; each that services consume also has a ``<topic>-dlq`` with the same number of partitions."""

WITH_DLQ: tuple[Topic, ...] = tuple(t for t in CATALOGUE if t.values)
