"""Growth per hour of each measure, and whether it keeps its limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import theilslopes

from centinela_local.soak.samples import Series

HOUR = 3600.0
LEAST_SAMPLES = 8

LIMITS: Mapping[str, float] = {
    "rss_mb": 10.0,
    "files": 2.0,
    "threads": 1.0,
    "lag": 100.0,
    "disk_mb": 20.0,
    "disk_files": 60.0,
}
"""The growth per hour that each measure may show; 2 % of the level where that is more."""
SHARE = 0.02

BY_DESIGN: Mapping[tuple[str, str], str] = {
    ("data/archive", "disk_mb"): "every verdict and label is kept",
    ("data/archive", "disk_files"): "every verdict and label is kept",
    ("data/snapshots", "disk_mb"): "the set of every training is kept",
    ("data/snapshots", "disk_files"): "the set of every training is kept",
    ("data/reports", "disk_mb"): "the report of every alarm is kept",
    ("data/models", "disk_mb"): "every version that was served is kept",
    ("data/models", "disk_files"): "every version that was served is kept",
    ("kafka log", "disk_mb"): "kept until the topics' retention, 7 days at least",
    ("kafka log", "disk_files"): "kept until the topics' retention, 7 days at least",
    ("mlflow", "disk_mb"): "every training run is kept",
    ("mlflow", "disk_files"): "every training run is kept",
    ("logs", "disk_mb"): "rotated at 20 MB, three kept a process",
    ("logs", "disk_files"): "rotated at 20 MB, three kept a process",
    ("kafka", "rss_mb"): "heap of at most 512 MB, and the mapped indexes of the log",
    ("kafka", "files"): "files of the log's segments",
}
"""What grows with the traffic, and is bounded elsewhere or kept on purpose: reported, not judged."""


@dataclass(frozen=True)
class Growth:
    """One measure of one subject after the warm-up. ``late_per_hour`` is the slope of the last half alone."""

    subject: str
    measure: str
    first: float
    last: float
    most: float
    per_hour: float
    late_per_hour: float
    limit: float
    by_design: str | None

    @property
    def within(self) -> bool:
        """Whether the growth keeps its limit: over the whole time, or over the last half, where it settled late."""
        return self.by_design is not None or self.per_hour <= self.limit or self.late_per_hour <= self.limit / 2


def growth(series: Mapping[tuple[str, str], Series], warm_up_s: float) -> list[Growth]:
    """The growth of each measure that has a limit. Slopes are Theil and Sen's: the median over all pairs of samples."""
    growths = []
    for (subject, measure), (seconds, values) in sorted(series.items()):
        at, level = np.asarray(seconds), np.asarray(values)
        at, level = at[at >= warm_up_s], level[at >= warm_up_s]
        if measure not in LIMITS or len(at) < LEAST_SAMPLES:
            continue
        half = at >= (at[0] + at[-1]) / 2
        limit = max(LIMITS[measure], SHARE * float(np.median(level)))
        growths.append(
            Growth(
                subject,
                measure,
                float(level[0]),
                float(level[-1]),
                float(level.max()),
                _per_hour(at, level),
                _per_hour(at[half], level[half]),
                limit,
                BY_DESIGN.get((subject, measure)),
            )
        )
    return growths


def restarts(series: Mapping[tuple[str, str], Series]) -> dict[str, int]:
    """How often each process was restarted."""
    changes = {
        subject: int(np.count_nonzero(np.diff(s.values)))
        for (subject, measure), s in series.items()
        if measure == "pid"
    }
    return {subject: count for subject, count in changes.items() if count}


def unready(series: Mapping[tuple[str, str], Series]) -> dict[str, float]:
    """The share of samples in which a process was not ready, where it is not 0."""
    shares = {subject: 1 - float(np.mean(s.values)) for (subject, measure), s in series.items() if measure == "ready"}
    return {subject: share for subject, share in shares.items() if share > 0}


def faults(
    growths: Iterable[Growth], restarted: Mapping[str, int], waited: Mapping[str, float], most_waiting: float = 0.01
) -> list[str]:
    """What keeps the soak from passing, in words."""
    return [
        *(
            f"{g.measure} of {g.subject} grows by {g.per_hour:.1f} an hour ({g.late_per_hour:.1f} in the last half;"
            f" limit {g.limit:.1f})"
            for g in growths
            if not g.within
        ),
        *(f"{name} was restarted {count} times" for name, count in restarted.items()),
        *(
            f"{name} was not ready in {share:.1%} of the samples"
            for name, share in waited.items()
            if share > most_waiting
        ),
    ]


def _per_hour(seconds: np.ndarray, values: np.ndarray) -> float:
    return float(theilslopes(values, seconds)[0]) * HOUR if len(seconds) > 1 else 0.0
