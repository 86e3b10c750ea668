"""Samples a running stack: each process by the operating system, lag by Kafka, folders by their files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from centinela import groups, topics
from centinela.errors import DependencyUnavailable
from centinela.kafka.connect import consumer
from centinela.kafka.port import Consumer
from centinela.settings import Settings
from centinela_local.soak.samples import Sample
from centinela_local.stack import Stack

GROUPS: Mapping[str, tuple[str, ...]] = {
    groups.STREAM.name: (topics.TRANSACTIONS.name,),
    groups.ARCHIVE.name: (topics.PREDICTIONS.name, topics.LABELS.name),
    groups.DRIFT.name: (topics.FEATURE_PANES.name, topics.LABELS.name),
    groups.TRAINER.name: (topics.RETRAIN_REQUESTS.name,),
}
"""Topics read by consumer group."""

_WHOLE_TREE = frozenset({"mlflow"})
"""Processes that serve through children. Elsewhere a child (a training, a report) ends with its task and is not
counted."""
_MB = 1e6


class Sampler:
    """Reads what a process may not grow in.

    Args:
        settings: Reach the stack's brokers and data folder.
        extra: Further folders whose size is sampled.
    """

    def __init__(self, stack: Stack, settings: Settings, extra: Mapping[str, Path]) -> None:
        self._stack = stack
        self._data_dir = settings.data_dir
        self._extra = extra
        self._readers: dict[str, Consumer] = {group: consumer(settings, group=group) for group in GROUPS}

    def sample(self, seconds: float) -> list[Sample]:
        """All measures now. What does not answer is left out."""
        return [*self._processes(seconds), *self._lags(seconds), *self._folders(seconds)]

    def lags(self) -> dict[str, int]:
        """Records that each group has not committed."""
        return {group: self._lag(group) for group in self._readers}

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _processes(self, seconds: float) -> Iterator[Sample]:
        for name, (_, state, waiting) in self._stack.states().items():
            yield Sample(seconds, name, "ready", float(waiting is None))
            yield Sample(seconds, name, "pid", float(state.pid))
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(state.pid)
                tree = [process, *process.children(recursive=True)] if name in _WHOLE_TREE else [process]
                yield Sample(seconds, name, "rss_mb", sum(each.memory_info().rss for each in tree) / _MB)
                yield Sample(seconds, name, "files", float(sum(each.num_fds() for each in tree)))
                yield Sample(seconds, name, "threads", float(sum(each.num_threads() for each in tree)))
                times = process.cpu_times()
                yield Sample(
                    seconds, name, "cpu_s", times.user + times.system + times.children_user + times.children_system
                )

    def _lags(self, seconds: float) -> Iterator[Sample]:
        for group in self._readers:
            with contextlib.suppress(DependencyUnavailable):
                yield Sample(seconds, group, "lag", float(self._lag(group)))

    def _lag(self, group: str) -> int:
        reader = self._readers[group]
        partitions = [p for topic in GROUPS[group] for p in reader.partitions_of(topic)]
        committed, ends, begins = (
            reader.committed(partitions),
            reader.end_offsets(partitions),
            reader.beginning_offsets(partitions),
        )
        return sum(max(0, ends[p] - (begins[p] if committed[p] is None else committed[p] or 0)) for p in partitions)

    def _folders(self, seconds: float) -> Iterator[Sample]:
        children = (
            {f"data/{child.name}": child for child in self._data_dir.iterdir() if child.is_dir()}
            if self._data_dir.is_dir()
            else {}
        )
        for name, folder in (children | dict(self._extra)).items():
            files, size = _measure(folder)
            yield Sample(seconds, name, "disk_mb", size / _MB)
            yield Sample(seconds, name, "disk_files", float(files))


def _measure(folder: Path) -> tuple[int, int]:
    files = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_blocks * 512
                files += 1
    return files, size
