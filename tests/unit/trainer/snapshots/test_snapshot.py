"""Snapshots: each content once, never half of it, pushed off the hot path until it is there."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from centinela.clock import SystemClock
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela_trainer.snapshots.format import NoSnapshot, folder_digest
from centinela_trainer.snapshots.push import Pushed, SnapshotPusher, SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore
from centinela_trainer.training.dataset import Dataset

DAY_US = 86_400_000_000


def a_dataset(days: int = 3, per_day: int = 20) -> Dataset:
    """The first *days* of ten: what grows by a day keeps the days before."""
    total, count = 10 * per_day, days * per_day
    random = np.random.default_rng(4)
    matrix = random.normal(size=(total, 3))
    matrix[::7, 1], matrix[3, 0], matrix[:, 2] = np.nan, -0.0, np.nan
    return Dataset(
        names=("amount", "count", "empty"),
        matrix=matrix[:count],
        is_fraud=random.random(total)[:count] < 0.1,
        transaction_ids=np.array([f"t{n:04d}" for n in range(count)], dtype=object),
        cards=np.array([None if n % 5 == 0 else f"u{n % 9}" for n in range(count)], dtype=object),
        times_us=20_000 * DAY_US + np.arange(count) * (DAY_US // per_day),
        mature_until_us=0,
    )


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_snapshot_gives_back_the_training_set(tmp_path: Path) -> None:
    store, dataset = SnapshotStore(tmp_path), a_dataset()
    kept = store.write(dataset)
    again = store.read(kept.digest)
    assert again.names == dataset.names
    for field in ("matrix", "is_fraud", "transaction_ids", "cards", "times_us"):
        np.testing.assert_array_equal(getattr(again, field), getattr(dataset, field))
    assert files(kept.path) == [f"day=2024-10-{day:02d}/rows.parquet" for day in (4, 5, 6)]
    assert folder_digest(kept.path) == kept.digest


def test_the_same_content_is_kept_once_and_a_changed_day_adds_one_file(tmp_path: Path) -> None:
    store, dataset = SnapshotStore(tmp_path), a_dataset()
    first = store.write(dataset)
    before = files(tmp_path / "files")
    assert store.write(a_dataset()) == first
    assert files(tmp_path / "files") == before

    relabelled = dataclasses.replace(
        dataset, is_fraud=np.where(np.arange(len(dataset)) == 59, ~dataset.is_fraud, dataset.is_fraud)
    )
    second = store.write(relabelled)
    assert second.digest != first.digest
    assert len(files(tmp_path / "files")) == len(before) + 2  # the day, and the list
    assert store.digests() == sorted([first.digest, second.digest])


def test_what_a_crash_left_half_is_not_seen_and_is_made_whole(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    whole = store.write(a_dataset())
    whole.path.rename(tmp_path / f".{whole.path.name}.deadbeef")  # all written, not yet renamed
    assert store.digests() == []
    with pytest.raises(NoSnapshot):
        store.read(whole.digest)
    assert store.write(a_dataset()) == whole
    assert len(store.read(whole.digest)) == 60


def test_a_snapshot_cannot_be_written_into(tmp_path: Path) -> None:
    kept = SnapshotStore(tmp_path).write(a_dataset())
    assert {path.stat().st_mode & 0o222 for path in kept.path.rglob("*.parquet")} == {0}


def test_a_disk_that_refuses_is_a_dependency_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(DependencyUnavailable, match="cannot write"):
        SnapshotStore(tmp_path).write(a_dataset())


def test_a_push_moves_what_the_remote_lacks_and_the_list_last(tmp_path: Path, unique: str) -> None:
    store, url = SnapshotStore(tmp_path), f"memory://snapshots-{unique}"
    first = store.write(a_dataset())
    assert SnapshotRemote(url).push(store, first.digest).files == 4
    second = store.write(a_dataset(days=4))
    assert SnapshotRemote(url).push(store, second.digest).files == 2
    fs = fsspec.filesystem("memory")
    assert sorted(path.rpartition("/snapshots-")[2].partition("/")[2] for path in fs.find(f"/snapshots-{unique}")) == [
        f"files/{name}" for name in files(tmp_path / "files")
    ]


class Unreliable(SnapshotRemote):
    """Refuses the first pushes."""

    def __init__(self, url: str, refusals: int) -> None:
        super().__init__(url)
        self.refusals = refusals

    def push(self, store: SnapshotStore, name: str) -> Pushed:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("unavailable")
        return super().push(store, name)


def eventually(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def test_the_pusher_goes_on_until_the_remote_has_everything_also_what_came_before_it(tmp_path: Path) -> None:
    store, remote = SnapshotStore(tmp_path / "store"), Unreliable(str(tmp_path / "remote"), refusals=2)
    store.write(a_dataset())
    pusher = SnapshotPusher(store, remote, SystemClock(), first_pause_s=0.01)
    assert not pusher.push_pending()
    pusher.start()
    try:
        eventually(lambda: not pusher.pending())
        store.write(a_dataset(days=4))
        pusher.wake()
        eventually(lambda: not pusher.pending())
    finally:
        pusher.close()
    assert files(tmp_path / "remote") == [f"files/{name}" for name in files(tmp_path / "store" / "files")]


def test_what_was_pushed_is_pushed_again_only_to_another_remote(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "store")
    kept = store.write(a_dataset())
    assert SnapshotPusher(store, SnapshotRemote(str(tmp_path / "a")), SystemClock()).push_pending()
    assert SnapshotPusher(store, SnapshotRemote(str(tmp_path / "a")), SystemClock()).pending() == []
    assert SnapshotPusher(store, SnapshotRemote(str(tmp_path / "b")), SystemClock()).pending() == [kept.digest]


def test_a_remote_of_an_unknown_kind_is_refused_at_once() -> None:
    with pytest.raises(CentinelaError, match="snapshot_remote nowhere://x"):
        SnapshotRemote("nowhere://x")
