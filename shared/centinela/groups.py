"""The consumer groups: the one place that names them. The rule is ``centinela-<service>[-<role>]``."""

from __future__ import annotations

from typing import NamedTuple


class ConsumerGroup(NamedTuple):
    """A consumer group. ``former``: its name in earlier versions, whose committed offsets are carried over."""

    name: str
    former: str | None = None


STREAM = ConsumerGroup("centinela-predictor-stream", former="predictor")
"""What it has committed of ``transactions`` has its outcome."""
FEAST = ConsumerGroup("centinela-predictor-feast", former="feast")
TRAINER = ConsumerGroup("centinela-trainer", former="trainer")
ARCHIVE = ConsumerGroup("centinela-trainer-archive", former="archive")
DRIFT = ConsumerGroup("centinela-drift")
