"""The topic catalogue: the one place that names topics, their keys, values, producers and consumers."""

from __future__ import annotations

from dataclasses import dataclass, field

from centinela import events
from centinela.times import DAY_MS, MINUTE_MS

DLQ_SUFFIX = "-dlq"


@dataclass(frozen=True)
class Topic:
    """A topic and its contract. ``partitions`` None: as many as settings say for data topics.

    ``producers``, ``consumers`` and ``dlq_producers`` (who writes dead letters of it) are users of
    ``centinela.operations.acls``, which gives each of them these rights. The operator reads every topic.
    """

    name: str
    key: str
    values: tuple[type, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    dlq_producers: tuple[str, ...] = ()
    partitions: int | None = None
    config: dict[str, str] = field(default_factory=dict)

    @property
    def dlq(self) -> str:
        """The topic of the dead letters of this topic."""
        return self.name + DLQ_SUFFIX


def _retention(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS)}


_STAMPED_BY_BROKER = {"message.timestamp.type": "LogAppendTime"}
"""Where others write: by a client's own time stamp (the event's, or in another unit) retention would delete a record
too early, or never."""
_USER_KEY = "user_id, else transaction_id"

TRANSACTIONS = Topic(
    "transactions",
    _USER_KEY,
    (events.TransactionReceived,),
    producers=("ingest", "gateway", "operator", "producer"),
    consumers=("stream", "gateway"),
    dlq_producers=("stream",),
    config=_retention(40) | _STAMPED_BY_BROKER,
)
LABELS = Topic(
    "labels",
    _USER_KEY,
    (events.LabelReported,),
    producers=("ingest", "operator", "producer"),
    consumers=("stream", "gateway", "drift", "trainer", "archive"),
    dlq_producers=("drift", "archive"),
    config=_retention(90) | _STAMPED_BY_BROKER,
)
PREDICTIONS = Topic(
    "predictions",
    _USER_KEY,
    (events.TransactionScored,),
    producers=("stream",),
    consumers=("gateway", "trainer", "archive", "feast", "reader"),
    dlq_producers=("archive", "feast"),
    config=_retention(40),
)
TERMINAL_ACTIVITY = Topic(
    "terminal-activity",
    "source partition",
    (),
    producers=("stream",),
    consumers=("stream", "gateway"),
    config=_retention(40),
)
FEATURE_PANES = Topic(
    "feature-panes",
    "source partition",
    (events.FeaturePane,),
    producers=("stream",),
    consumers=("drift",),
    dlq_producers=("drift",),
    config=_retention(40),
)
DRIFT_REPORTS = Topic(
    "drift-reports",
    "model_name",
    (events.DriftReported,),
    producers=("drift",),
    consumers=("reader",),
    partitions=1,
    config=_retention(365),
)
RETRAIN_REQUESTS = Topic(
    "retrain-requests",
    "model_name",
    (events.RetrainRequested,),
    producers=("drift", "operator"),
    consumers=("trainer",),
    dlq_producers=("trainer",),
    partitions=1,
    config=_retention(365),
)
MODEL_EVENTS = Topic(
    "model-events",
    "model_name and kind",
    (events.ModelPromoted, events.ModelLoaded, events.ModelLoadRejected, events.TrainingCompleted),
    producers=("stream", "gateway", "trainer", "registry-watcher"),
    consumers=("stream", "gateway", "drift", "registry-watcher", "reader"),
    dlq_producers=("drift",),
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
"""Every topic; each that carries events also has a ``<topic>-dlq`` with the same number of partitions."""

WITH_DLQ: tuple[Topic, ...] = tuple(t for t in CATALOGUE if t.values)

OFFSETS_RETENTION_MINUTES = max(int(t.config.get("retention.ms", 0)) for t in CATALOGUE) // MINUTE_MS
"""How long brokers should keep the offsets of a group without members (``offsets.retention.minutes``): as long as the
records that they refer to."""
