"""What is sampled, as CSV and as series [P but for the file]."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("seconds", "subject", "measure", "value")


class Sample(NamedTuple):
    """*measure* of *subject* (a process, a consumer group, a folder) *seconds* after the start of the live stream."""

    seconds: float
    subject: str
    measure: str
    value: float


class Series(NamedTuple):
    """One measure of one subject over time."""

    seconds: list[float]
    values: list[float]


class SampleFile:
    """Appends to a CSV, so that what was sampled outlives whatever ends the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def add(self, samples: Iterable[Sample]) -> None:
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerows((f"{s.seconds:.1f}", s.subject, s.measure, f"{s.value:.10g}") for s in samples)


def read_series(path: Path) -> dict[tuple[str, str], Series]:
    """The samples of a CSV by (subject, measure)."""
    series: dict[tuple[str, str], Series] = defaultdict(lambda: Series([], []))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            one = series[row["subject"], row["measure"]]
            one.seconds.append(float(row["seconds"]))
            one.values.append(float(row["value"]))
    return dict(series)
