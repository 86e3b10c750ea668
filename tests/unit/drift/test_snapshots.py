"""The file that a restart reads: what an earlier release wrote is read, and the layout stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from centinela.errors import CentinelaError
from centinela.kafka.port import TopicPartition
from centinela_drift.evaluator import DriftHandler, DriftSnapshot
from centinela_drift.references import reference_of
from centinela_drift.settings import DriftSettings
from centinela_drift.state_store import SnapshotStore
from tests.support.drift_world import NOW, Feed, World

OLD = Path(__file__).parent / "data" / "snapshot-before-structs.npz"
"""Written by the release before the structs: two days of the world below, one report made and not yet sent."""


@pytest.fixture
def restored(tmp_path: Path) -> DriftHandler:
    shutil.copy(OLD, tmp_path / "state-0000000001.npz")
    store, handler = SnapshotStore(tmp_path), DriftHandler(DriftSettings())
    snapshot = store.load(DriftSnapshot)
    store.close()
    assert snapshot is not None
    handler.restore(*snapshot)
    return handler


def recomputed() -> DriftHandler:
    world, feed, handler = World(per_day=20, partitions=2), Feed(), DriftHandler(DriftSettings())
    for day in range(2):
        for record in feed.records(*world.day(day)):
            handler.apply(record, NOW)
    end = handler.due()
    assert end is not None
    handler.evaluate(end, reference_of(world.manifest(), "1"))
    return handler


def test_a_snapshot_of_the_release_before_is_read(restored: DriftHandler) -> None:
    expected = recomputed()
    assert restored.last_report == expected.last_report
    assert restored.policy == expected.policy
    assert [(sent.topic, sent.value, sent.key) for sent in restored.outbox] == [
        (sent.topic, sent.value, sent.key) for sent in expected.outbox
    ]
    watermark, expected_watermark = restored.windows.watermark_ms, expected.windows.watermark_ms
    assert watermark is not None
    assert expected_watermark is not None
    assert watermark >= expected_watermark, "the release before followed the greatest time of each partition"
    assert np.array_equal(restored.windows.rows("1", 0, 2**62), expected.windows.rows("1", 0, 2**62))
    assert np.array_equal(restored.labels.array(), expected.labels.array())
    assert restored.offsets == {**expected.offsets, TopicPartition("model-events", 0): 1}
    assert (restored.report_path, restored.promoted_version) == ("/r/x.html", "1")


def test_a_snapshot_is_written_as_the_release_before_wrote_it_with_more_in_it(
    restored: DriftHandler, tmp_path: Path
) -> None:
    store = SnapshotStore(tmp_path)
    path = store.save(*restored.snapshot())
    store.close()
    with np.load(OLD) as old, np.load(path) as new:
        assert set(new.files) == set(old.files)
        for name in set(old.files) - {"values"}:
            assert new[name].dtype == old[name].dtype
            assert np.array_equal(new[name], old[name])
        values = json.loads(new["values"].tobytes())
        del values["left_out"], values["alarm_unreported"], values["windows"]["event_time"]
        assert values == json.loads(old["values"].tobytes())


def test_a_snapshot_with_other_values_ends_the_process_and_is_not_skipped(tmp_path: Path) -> None:
    class Other(msgspec.Struct):
        windows: int

    store = SnapshotStore(tmp_path)
    store.save(Other(1), {})
    with pytest.raises(CentinelaError, match="written by another release"):
        store.load(DriftSnapshot)
    store.close()
