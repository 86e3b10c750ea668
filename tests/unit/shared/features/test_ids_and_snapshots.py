"""Ids seen before, identifiers as integers, and state as bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from centinela.errors import DependencyUnavailable
from centinela.features.keys import MISSING_ID, hash_id, hash_ids, minor_units
from centinela.features.payload import UNKNOWN
from centinela.features.snapshots.format import SnapshotDamaged, pack, unpack
from centinela.features.snapshots.store import SnapshotStore
from centinela.features.state.id_table import IdTable, SeenIds
from centinela.times import to_ms_array

IDS = st.lists(st.integers(1, 40), max_size=60)


@given(IDS, st.integers(1, 7))
def test_the_first_of_equal_ids_is_new_and_no_other(ids: list[int], size: int) -> None:
    seen, known = SeenIds(), set[int]()
    for first in range(0, len(ids), size):
        part = ids[first : first + size]
        expected = []
        for i in part:
            expected.append(i not in known)
            known.add(i)
        assert seen.admit(np.array(part, np.uint64)).tolist() == expected


@given(IDS, st.integers(1, 7))
def test_bounded_memory_recognises_at_least_the_last_generation_however_batches_are_cut(
    ids: list[int], size: int
) -> None:
    bounded, by_one = SeenIds(generation=5), SeenIds(generation=5)
    recent: list[int] = []
    for first in range(0, len(ids), size):
        part = np.array(ids[first : first + size], np.uint64)
        fresh = bounded.admit(part)
        assert fresh.tolist() == [bool(by_one.admit(part[k : k + 1])[0]) for k in range(len(part))]
        for i, new in zip(part.tolist(), fresh.tolist(), strict=True):
            assert not (new and i in recent[-5:])
            recent += [i] * new


def test_asking_does_not_admit() -> None:
    seen = SeenIds()

    assert seen.unseen(np.array([1, 1], np.uint64)).tolist() == [True, False]
    assert seen.admit(np.array([1], np.uint64)).tolist() == [True]
    assert seen.unseen(np.array([1, 2], np.uint64)).tolist() == [False, True]


def test_the_first_payload_of_an_id_is_remembered_until_the_id_is_forgotten() -> None:
    seen = SeenIds(generation=2)
    ids = np.array([1, 2, 1, 3], np.uint64)

    seen.admit(ids, np.array([10, 20, 11, 30]))

    assert seen.payloads(ids).tolist() == [10, 20, 10, 30]
    seen.admit(np.array([4, 5], np.uint64), np.array([40, 50]))
    restored = SeenIds(generation=2)
    restored.load(seen.arrays())
    assert restored.payloads(np.array([1, 2, 3, 4, 5], np.uint64)).tolist() == [UNKNOWN, UNKNOWN, 30, 40, 50]


def test_a_restored_memory_recognises_what_the_first_did() -> None:
    seen, restored = SeenIds(generation=50), SeenIds(generation=50)
    seen.admit(np.arange(1, 80, dtype=np.uint64))

    restored.load(seen.arrays())

    more = np.arange(20, 120, dtype=np.uint64)
    assert restored.admit(more).tolist() == seen.admit(more).tolist()


def test_a_table_finds_all_it_holds_after_growing_and_under_collisions() -> None:
    table = IdTable(columns=1)
    clustered = (np.arange(1, 2_000, dtype=np.uint64) << np.uint64(40)) | np.uint64(7)
    spread = np.random.default_rng(1).integers(1, 1 << 63, 50_000, dtype=np.uint64)
    for ids in (clustered, spread):
        table.add(ids, np.arange(len(ids)))

    assert (table.find(clustered) == np.arange(len(clustered))).all()
    assert (table.column(0)[table.find(spread)] == np.arange(len(spread))).all()
    assert (table.find(spread + np.uint64(1 << 63)) == -1).all()


def test_identifiers_hash_alike_everywhere_and_never_to_nobody() -> None:
    assert hash_id("user-1") == 8968379626967066057
    assert hash_ids(["user-1", None, ""]).tolist() == [hash_id("user-1"), MISSING_ID, hash_id("")]
    assert hash_id("ñ") == hash_ids(["ñ"])[0]


@pytest.mark.parametrize("micros", [0, 1, 999, 1_000, 499_999, 500_500, 999_999])
@pytest.mark.parametrize(
    "base",
    [
        datetime(2018, 4, 1, tzinfo=UTC),
        datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(1969, 1, 1, tzinfo=UTC),
    ],
)
def test_instants_become_whole_milliseconds_rounded_down(base: datetime, micros: int) -> None:
    instant = base + timedelta(microseconds=micros)

    assert to_ms_array([instant])[0] == (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_amounts_become_hundredths() -> None:
    assert minor_units([0.29, 1.115, 1e9, 0.0]).tolist() == [29, 112, 100_000_000_000, 0]


ARRAYS = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.array([], np.uint64), "c": np.array([1.5, np.nan])}


def test_a_snapshot_brings_back_what_was_packed() -> None:
    facts, arrays = unpack("users:1", pack("users:1", {"offset": 7, "newest": -3}, ARRAYS))

    assert facts == {"offset": 7, "newest": -3}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[:-1],
        lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:],
        lambda d: b"",
        lambda d: b"x" + d,
        lambda d: d + d,
    ],
)
def test_damaged_bytes_are_refused(damage: object) -> None:
    with pytest.raises(SnapshotDamaged):
        unpack("users:1", damage(pack("users:1", {}, ARRAYS)))  # type: ignore[operator]


def test_a_snapshot_of_another_kind_is_refused() -> None:
    with pytest.raises(SnapshotDamaged, match=r"users:1"):
        unpack("users:2", pack("users:1", {}, ARRAYS))


def test_the_newest_snapshot_at_or_below_a_position_comes_first_and_three_are_kept(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "users" / "0")
    for position in (5, 100, 40, 70):
        store.save(position, b"%d" % position)

    assert [p for p, _ in store.load(at_most=99)] == [70, 40]
    assert next(iter(store.load(at_most=1_000))) == (100, b"100")
    assert not list(store.load(at_most=39))
    assert sorted(p.suffix for p in (tmp_path / "users" / "0").iterdir()) == [".snapshot"] * 3


def test_what_a_writer_that_was_killed_left_goes_with_the_next_save(tmp_path: Path) -> None:
    for pid in (11, 12):
        (tmp_path / f"0000000000000000005.{pid}.part").write_bytes(b"half")

    SnapshotStore(tmp_path).save(6, b"x")

    assert [p.name for p in tmp_path.iterdir()] == ["0000000000000000006.snapshot"]


def test_a_cleared_store_has_nothing(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.save(1, b"x")

    store.clear()

    assert not list(store.load(at_most=10))


def test_a_disk_that_refuses_is_a_dependency_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(DependencyUnavailable, match="snapshot"):
        SnapshotStore(tmp_path / "file" / "below").save(1, b"x")
