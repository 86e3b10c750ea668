"""An archive killed at each of its writes, or whose group was set back: no row twice, none missing, nothing
half-written read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from centinela.events import TransactionScored
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.port import TopicPartition
from centinela_trainer.archive.arrow_tables import Row, verdict_tables
from centinela_trainer.archive.store import ArchiveStore

START, STREAM, P0 = datetime(2026, 3, 1, tzinfo=UTC), "predictions", TopicPartition("predictions", 0)
LAYOUT = FeatureLayout(("v1",))
VECTOR = pack_rows(np.zeros((1, len(LAYOUT.names))))[0]
LOG = [
    Row(
        "predictions",
        0,
        n,
        TransactionScored(
            transaction_id=f"t{n}",
            user_id="u",
            occurred_at=START + timedelta(hours=9 * n),
            amount=1.0,
            decision="approve",
            variant="none",
            origin="history",
            feature_set=LAYOUT.id,
            features=VECTOR,
            scored_at=START,
        ),
    )
    for n in range(12)
]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, call: int) -> Iterator[list[int]]:
    """Die instead of the *call*-th of the calls that put a file on the disk, and of later ones; the calls so far."""
    made = [0]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **kwargs: object) -> object:
            made[0] += 1
            if made[0] >= call:
                raise Killed
            return real(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        yield made


def archive(root: Path, rows: int, committed: int = 0, until: int = len(LOG)) -> None:
    """A process that writes the log from where the archive ends, *rows* at a time."""
    store = ArchiveStore(root)
    store.lock()
    begin = store.begin(STREAM, P0, committed) or 0
    for first in range(begin, until, rows):
        part: Sequence[Row] = LOG[first : min(first + rows, until)]
        store.write(STREAM, P0, part[0].offset, part[-1].offset, verdict_tables(part))
        store.save_offsets({P0: part[-1].offset + 1})


def offsets(root: Path) -> list[int]:
    return sorted(
        n
        for path in ArchiveStore(root).files(STREAM)
        for n in pq.ParquetFile(path).read(["offset"])["offset"].to_pylist()
    )


@pytest.mark.parametrize(("before", "after"), [(5, 3), (3, 5)])
def test_a_kill_at_any_write_leaves_whole_files_and_the_next_process_ends_with_each_row_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    after: int,
) -> None:
    call = 0
    while True:
        call += 1
        root = tmp_path / str(call)
        with dying_at(monkeypatch, call) as made, suppress(Killed):
            archive(root, before, committed=len(LOG))
        assert set(offsets(root)) <= set(range(len(LOG)))
        archive(root, after, committed=len(LOG))
        assert offsets(root) == list(range(len(LOG))), f"killed at call {call}"
        assert not [*root.rglob("*.tmp"), *root.rglob("*.part")]
        if made[0] < call:
            break
    assert call > 20


@pytest.mark.parametrize("committed", range(13))
def test_a_group_that_was_set_back_into_a_file_has_each_row_once(tmp_path: Path, committed: int) -> None:
    archive(tmp_path, 5, committed=len(LOG))
    archive(tmp_path, 4, committed=committed)
    assert offsets(tmp_path) == list(range(len(LOG)))
