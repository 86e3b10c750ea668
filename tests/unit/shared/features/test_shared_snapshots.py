"""Snapshots on shared storage: sent on in the background, found again elsewhere, never waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from centinela.errors import CentinelaError
from centinela.features.snapshots.shared_store import SHARED_SNAPSHOTS, SharedFolder, SharedStorage
from centinela.features.snapshots.store import SnapshotStore
from tests.support.small_s3 import BUCKET, small_s3

DEADLINE_S = 20.0


class Unreliable(MemoryFileSystem):
    """Memory that refuses, or does not answer, while it is told to."""

    protocol = "unreliable"
    refuses = threading.Event()
    answers = threading.Event()

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        self._try()
        return super().ls(path, detail, **more)

    def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
        self._try()
        super().pipe_file(path, value, **more)

    def _try(self) -> None:
        if self.refuses.is_set():
            raise ConnectionError("no route to storage")
        self.answers.wait(DEADLINE_S)


fsspec.register_implementation("unreliable", Unreliable, clobber=True)


@pytest.fixture
def unreliable() -> Iterator[type[Unreliable]]:
    Unreliable.refuses.clear()
    Unreliable.answers.set()
    yield Unreliable
    Unreliable.answers.set()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, unique: str) -> Iterator[str]:
    if request.param == "s3":
        with small_s3():
            yield f"s3://{BUCKET}/{unique}"
    else:
        yield f"memory://{unique}" if request.param == "memory" else (tmp_path / "shared").as_uri()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def has_position(folder: SharedFolder, position: int) -> bool:
    return position in folder.positions()


def failures(operation: str) -> float:
    count: float = SHARED_SNAPSHOTS.labels(operation, "failed")._value.get()
    return count


def test_what_one_machine_saved_another_finds_the_newest_first(url: str, tmp_path: Path) -> None:
    storage = SharedStorage(url)
    here = SnapshotStore(tmp_path / "here", shared=storage.folder("users/0"))
    for position in (5, 100, 40, 70):
        here.save(position, b"%d" % position)
        eventually(partial(has_position, storage.folder("users/0"), position))

    there = SnapshotStore(tmp_path / "there", shared=storage.folder("users/0"))

    assert list(there.load(at_most=99)) == [(70, b"70"), (40, b"40")]
    assert next(there.load(at_most=1_000)) == (100, b"100")
    assert not (tmp_path / "there").exists()
    storage.close()


def test_the_newest_of_both_homes_comes_first_and_the_disk_s_of_equal_ones(tmp_path: Path, unique: str) -> None:
    storage = SharedStorage(f"memory://{unique}")
    other, own = (
        SnapshotStore(tmp_path / "other", shared=storage.folder("s")),
        SnapshotStore(tmp_path / "own", shared=storage.folder("s")),
    )
    alone = SnapshotStore(tmp_path / "own")
    other.save(10, b"shared")
    eventually(lambda: storage.folder("s").positions() == {10})
    other.save(30, b"shared")
    eventually(lambda: storage.folder("s").positions() == {10, 30})
    alone.save(10, b"disk")
    alone.save(20, b"disk")

    assert list(own.load(at_most=100)) == [(30, b"shared"), (20, b"disk"), (10, b"disk"), (10, b"shared")]
    storage.close()


def test_the_newest_few_stay_on_shared_storage(url: str) -> None:
    storage = SharedStorage(url)
    folder = storage.folder("s")
    for position in range(6):
        folder.offer(position, b"x", keep=2)
        eventually(partial(has_position, folder, position))

    eventually(lambda: folder.positions() == {4, 5})
    storage.close()


def test_closing_finishes_what_is_to_be_uploaded(url: str) -> None:
    storage = SharedStorage(url)
    for number in range(20):
        storage.folder(f"s/{number}").offer(number, b"x", keep=3)
    storage.close()

    assert [SharedStorage(url).folder(f"s/{number}").positions() for number in range(20)] == [
        {number} for number in range(20)
    ]


def test_storage_that_refuses_delays_nothing_is_counted_and_gets_the_newest_once_it_is_back(
    tmp_path: Path, unreliable: type[Unreliable], unique: str
) -> None:
    storage = SharedStorage(f"unreliable://{unique}", retry_s=0.01)
    store = SnapshotStore(tmp_path, shared=storage.folder("s"))
    before = failures("upload"), failures("list")
    unreliable.refuses.set()

    store.save(1, b"old")
    store.save(2, b"new")
    found = list(store.load(at_most=10))
    eventually(lambda: failures("upload") > before[0])
    unreliable.refuses.clear()

    assert found == [(2, b"new"), (1, b"old")]
    assert failures("list") == before[1] + 1
    eventually(lambda: 2 in storage.folder("s").positions())
    storage.close()


def test_storage_that_does_not_answer_is_given_up_after_a_while(
    tmp_path: Path, unreliable: type[Unreliable], unique: str
) -> None:
    storage = SharedStorage(f"unreliable://{unique}", patience_s=0.05)
    store = SnapshotStore(tmp_path, shared=storage.folder("s"))
    unreliable.answers.clear()

    store.save(1, b"x")

    assert list(store.load(at_most=10)) == [(1, b"x")]
    unreliable.answers.set()
    eventually(lambda: 1 in storage.folder("s").positions())
    storage.close()


def test_a_url_that_nothing_can_open_is_refused_at_once() -> None:
    with pytest.raises(CentinelaError, match="CENTINELA_SNAPSHOT_URL"):
        SharedStorage("nosuchthing://bucket")
