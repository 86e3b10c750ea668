"""Windows: merging, watermark, expiry, and the round trip through a snapshot on disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from centinela.errors import CentinelaError, InvalidRecord
from centinela.events import FeaturePane
from centinela.features.keys import MISSING_ID
from centinela.model.panes import PANE_WIDTH_MS, read_pane
from centinela.times import DAY_MS
from centinela_drift.decision.windows import Windows, WindowsSnapshot
from centinela_drift.state_store import KEPT, SnapshotStore
from tests.support.drift_world import World, day_ms

IDLE_MS = 2 * DAY_MS


def merged(panes: list[FeaturePane]) -> Windows:
    windows = Windows(IDLE_MS)
    for pane in panes:
        assert windows.merge(read_pane(pane))
    return windows


def test_the_order_of_panes_does_not_matter() -> None:
    panes = World().day(0)[0] + World().day(1)[0]
    forward, backward = merged(panes), merged(panes[::-1])
    for start in (day_ms(0), day_ms(1)):
        one, two = forward.between("1", start, start + DAY_MS), backward.between("1", start, start + DAY_MS)
        assert (one.count, one.alerts) == (two.count, two.alerts) == (600, two.alerts)
        assert np.array_equal(one.histograms, two.histograms)
        assert np.array_equal(forward.rows("1", start, start + DAY_MS), backward.rows("1", start, start + DAY_MS))


def test_a_window_sums_its_panes_and_counts_each_row_once() -> None:
    panes = World().day(0)[0]
    windows = merged(panes)
    half = windows.between("1", day_ms(0), day_ms(0) + 2 * PANE_WIDTH_MS)
    assert half.count == sum(p.count for p in panes if read_pane(p).start_ms < day_ms(0) + 2 * PANE_WIDTH_MS)
    assert half.scores.sum() == half.described == half.count
    assert len(windows.rows("1", day_ms(0), day_ms(1))) == 600
    assert windows.merge(read_pane(panes[0]))
    assert len(windows.rows("1", day_ms(0), day_ms(1))) == 600


def pane_with(
    partition: int, watermark_ms: int, version: str = "1", start_day: int = 0, variant: str = "champion"
) -> FeaturePane:
    pane = World().day(start_day)[0][0]
    instant = msgspec.convert(watermark_ms / 1000, type(pane.watermark), strict=False)
    return msgspec.structs.replace(pane, partition=partition, watermark=instant, model_version=version, variant=variant)


def test_the_watermark_is_of_the_transactions_and_not_what_the_pane_says() -> None:
    """The partition's own watermark stays at a stray clock for good."""
    windows = merged(World().day(0)[0])
    before = windows.watermark_ms
    windows.merge(read_pane(pane_with(0, day_ms(300))))
    assert windows.watermark_ms == before
    assert before is not None
    assert day_ms(0.8) < before < day_ms(1)


def test_transactions_without_a_user_are_one_voice_each() -> None:
    panes = []
    for pane in World().day(0)[0]:
        rows = read_pane(pane).rows.copy()
        rows["user"] = MISSING_ID
        panes.append(msgspec.structs.replace(pane, transactions=rows.tobytes()))
    assert merged(panes).watermark_ms is not None


def test_the_serving_version_is_the_champion_of_the_newest_transaction() -> None:
    windows = merged(
        [pane_with(0, day_ms(1)), pane_with(0, day_ms(2), "2", 1), pane_with(0, day_ms(3), "3", 2, "challenger")]
    )
    assert windows.serving(day_ms(1)) == "1"
    assert windows.serving(day_ms(9)) == "2"
    assert windows.serving(day_ms(0)) is None


def test_panes_of_another_shape_are_refused_before_anything_changes() -> None:
    windows = merged(World().day(0)[0])
    with pytest.raises(InvalidRecord, match="histogram_shape"):
        windows.merge(read_pane(msgspec.structs.replace(World().day(1)[0][0], histograms=b"\0" * 8)))
    assert windows.row_count == 600
    assert windows.watermark_ms is not None
    assert windows.watermark_ms < day_ms(1)


def test_what_expired_is_gone_and_a_pane_that_comes_later_is_not_taken_back_in() -> None:
    early, late = World().day(0)[0], World().day(3)[0]
    windows = merged(early + late)
    windows.expire(day_ms(2))
    assert windows.row_count == 600
    assert windows.between("1", day_ms(0), day_ms(1)).count == 0
    assert windows.merge(read_pane(early[0])) is False
    assert windows.row_count == 600


def test_a_snapshot_gives_back_the_same_windows_and_the_newest_readable_one_counts(tmp_path: Path) -> None:
    store, windows = SnapshotStore(tmp_path), merged(World().day(0)[0])
    windows.expire(day_ms(0) + PANE_WIDTH_MS)
    for _ in range(KEPT + 2):
        store.save(*windows.snapshot())
    assert len(list(tmp_path.glob("*.npz"))) == KEPT
    newest = sorted(tmp_path.glob("*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])

    loaded = store.load(WindowsSnapshot)
    assert loaded is not None
    restored = Windows(IDLE_MS)
    restored.restore(*loaded)
    assert restored.watermark_ms == windows.watermark_ms
    assert restored.expired_before_ms == windows.expired_before_ms
    assert np.array_equal(restored.rows("1", 0, day_ms(9)), windows.rows("1", 0, day_ms(9)))
    one, two = restored.between("1", 0, day_ms(9)), windows.between("1", 0, day_ms(9))
    assert one.count == two.count
    assert np.array_equal(one.histograms, two.histograms)
    store.close()


def test_an_empty_folder_has_no_snapshot_and_only_one_process_may_hold_it(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    assert store.load(WindowsSnapshot) is None
    with pytest.raises(CentinelaError, match="another drift process"):
        SnapshotStore(tmp_path)
    store.close()
    SnapshotStore(tmp_path).close()
