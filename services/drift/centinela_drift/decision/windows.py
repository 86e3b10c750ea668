"""Event-time windows merged from panes, and the transactions in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from centinela.errors import InvalidRecord
from centinela.features.keys import MISSING_ID
from centinela.model.panes import PANE_ROW, Pane, PaneRows
from centinela.model.reference import SCORE_BINS
from centinela_drift.decision.event_time import EventTime, EventTimeSnapshot

Counts = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]


@dataclass(slots=True)
class Bucket:
    """Sums over transactions of one model. ``histograms`` is flat (features x bins), and empty if no pane had any."""

    count: int = 0
    alerts: int = 0
    described: int = 0
    champion_until_ms: int = -1
    scores: Counts = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    histograms: Counts = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, other: Bucket) -> None:
        """Merge *other* into this one; order does not matter. Histograms must have one shape, or be empty."""
        self.count += other.count
        self.alerts += other.alerts
        self.described += other.described
        self.champion_until_ms = max(self.champion_until_ms, other.champion_until_ms)
        self.scores = self.scores + other.scores
        if len(other.histograms):
            self.histograms = self.histograms + other.histograms if len(self.histograms) else other.histograms.copy()

    @property
    def alert_rate(self) -> float:
        """Share of transactions declined; 0.0 where there are none."""
        return self.alerts / self.count if self.count else 0.0


class BucketSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """A ``Bucket`` without its two histograms, which are arrays ``scores-<n>`` and ``histograms-<n>`` of the file."""

    version: str
    start_ms: int
    count: int
    alerts: int
    described: int
    champion_until_ms: int


class WindowsSnapshot(msgspec.Struct, frozen=True):
    """``Windows`` without its arrays. ``versions`` number the arrays ``rows-<n>``; ``watermarks`` are by partition.

    ``event_time``: None in what earlier releases wrote.
    """

    buckets: list[BucketSnapshot]
    versions: list[str]
    expired_before_ms: int
    watermarks: list[tuple[int, int]]
    event_time: EventTimeSnapshot | None = None


class RowLog:
    """Arrays of one dtype: appending is cheap, reading gives all rows. Appended arrays are never changed."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._empty = np.empty(0, dtype=dtype)
        self._parts: list[NDArray[np.void]] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: NDArray[np.void]) -> None:
        """Add *rows* at the end."""
        if len(rows):
            self._parts.append(rows)
            self._rows += len(rows)

    def all(self) -> NDArray[np.void]:
        """Every row, in order of arrival."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else self._empty

    def keep(self, field_name: str, least: int) -> None:
        """Drop the rows whose *field_name* is below *least*."""
        rows = self.all()
        kept = rows[rows[field_name] >= least]
        if len(kept) < len(rows):
            self._parts, self._rows = [kept], len(kept)


class Windows:
    """Panes merged by model version and bucket of event time.

    Args:
        idle_after_ms: A partition that is this far behind the newest is idle: the watermark does not wait for it. A
            transaction that is this far ahead moves event time only where others agree (see ``EventTime``).
    """

    def __init__(self, idle_after_ms: int) -> None:
        self.event_time = EventTime(idle_after_ms)
        self._buckets: dict[tuple[str, int], Bucket] = {}
        self._rows: dict[str, RowLog] = {}
        self.expired_before_ms = -1

    def merge(self, pane: Pane) -> bool:
        """Add *pane*; the caller passes each record only once. False if its time has expired: then it is left out.

        The event time of a partition follows from its transactions. The watermark in the pane is the greatest time that
        the partition has ever seen, and one stray clock sets that for good.

        Raises:
            InvalidRecord: ``histogram_shape``: other features or bins than earlier panes of the version; nothing was
                changed.
        """
        event = pane.event
        described = next(
            (b for (version, _), b in self._buckets.items() if version == event.model_version and len(b.histograms)),
            None,
        )
        if described is not None and len(pane.histograms) not in (0, len(described.histograms)):
            raise InvalidRecord(
                "histogram_shape",
                f"{len(pane.histograms)} counts; version {event.model_version} has {len(described.histograms)}",
            )
        users = pane.rows["user"]
        voices = np.where(users == MISSING_ID, pane.rows["id"], users)
        self.event_time.observe(event.partition, pane.rows["time"], voices)
        if pane.start_ms < self.expired_before_ms:
            return False
        until = int(pane.rows["time"].max()) if event.variant == "champion" and len(pane.rows) else -1
        described_count = event.count if len(pane.histograms) else 0
        self._buckets.setdefault((event.model_version, pane.start_ms), Bucket()).add(
            Bucket(
                event.count,
                event.alerts,
                described_count,
                until,
                pane.scores.astype(np.int64),
                pane.histograms.astype(np.int64),
            )
        )
        self._rows.setdefault(event.model_version, RowLog(PANE_ROW)).append(pane.rows)
        return True

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which panes are complete."""
        return self.event_time.watermark_ms

    @property
    def row_count(self) -> int:
        """Transactions in memory."""
        return sum(map(len, self._rows.values()))

    def serving(self, before_ms: int) -> str | None:
        """The version that scored the newest transaction as champion, by panes that start before *before_ms*.

        If no champion scored any, the version of the newest pane; None without panes.
        """
        candidates = [
            (b.champion_until_ms, start, version) for (version, start), b in self._buckets.items() if start < before_ms
        ]
        return max(candidates)[2] if candidates else None

    def between(self, version: str, start_ms: int, end_ms: int) -> Bucket:
        """The sum of *version*'s panes that start in [start_ms, end_ms)."""
        total = Bucket()
        for (of, start), bucket in self._buckets.items():
            if of == version and start_ms <= start < end_ms:
                total.add(bucket)
        return total

    def rows(self, version: str, start_ms: int, end_ms: int) -> PaneRows:
        """*version*'s transactions of [start_ms, end_ms), each once."""
        log = self._rows.get(version)
        rows = log.all() if log else np.empty(0, PANE_ROW)
        inside = rows[(rows["time"] >= start_ms) & (rows["time"] < end_ms)]
        _, first = np.unique(inside["id"], return_index=True)
        return inside[first]

    def first_bucket(self, at_or_after_ms: int = -1) -> int | None:
        """Start of the earliest pane at or after an instant, or None."""
        return min((start for _, start in self._buckets if start >= at_or_after_ms), default=None)

    def first_seen(self, version: str) -> int | None:
        """Start of the earliest pane of *version* in memory."""
        return min((start for of, start in self._buckets if of == version), default=None)

    def expire(self, before_ms: int) -> None:
        """Drop panes and transactions before *before_ms* (a pane's start)."""
        self.expired_before_ms = max(self.expired_before_ms, before_ms)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key[1] >= before_ms}
        for version, log in list(self._rows.items()):
            log.keep("time", before_ms)
            if not len(log):
                del self._rows[version]

    def snapshot(self) -> tuple[WindowsSnapshot, Arrays]:
        """The content, for ``restore``. The arrays are never changed later, so another thread may write them."""
        arrays: Arrays = {}
        buckets = []
        for number, ((version, start_ms), bucket) in enumerate(self._buckets.items()):
            arrays[f"scores-{number}"] = bucket.scores
            arrays[f"histograms-{number}"] = bucket.histograms
            buckets.append(
                BucketSnapshot(
                    version, start_ms, bucket.count, bucket.alerts, bucket.described, bucket.champion_until_ms
                )
            )
        versions = list(self._rows)
        for number, version in enumerate(versions):
            arrays[f"rows-{number}"] = self._rows[version].all()
        event_time, watermarks = self.event_time.snapshot()
        return WindowsSnapshot(buckets, versions, self.expired_before_ms, watermarks, event_time), arrays

    def restore(self, snapshot: WindowsSnapshot, arrays: Arrays) -> None:
        """Replace the content by what ``snapshot`` gave."""
        self._buckets = {
            (bucket.version, bucket.start_ms): Bucket(
                bucket.count,
                bucket.alerts,
                bucket.described,
                bucket.champion_until_ms,
                arrays[f"scores-{number}"],
                arrays[f"histograms-{number}"],
            )
            for number, bucket in enumerate(snapshot.buckets)
        }
        self._rows = {}
        for number, version in enumerate(snapshot.versions):
            self._rows[version] = RowLog(PANE_ROW)
            self._rows[version].append(arrays[f"rows-{number}"])
        self.event_time.restore(snapshot.event_time, snapshot.watermarks)
        self.expired_before_ms = snapshot.expired_before_ms
