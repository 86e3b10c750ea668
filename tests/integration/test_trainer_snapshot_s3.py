"""Snapshots reach a store that speaks S3, by the driver that production uses, and DVC reads them there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo

from centinela_trainer.snapshots.push import SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore
from centinela_trainer.training.dataset import Dataset
from tests.support.small_s3 import BUCKET, small_s3


@pytest.fixture
def s3() -> Iterator[tuple[str, dict[str, bytes]]]:
    with small_s3() as found:
        yield found


def test_a_snapshot_pushed_to_s3_is_pulled_by_dvc(tmp_path: Path, s3: tuple[str, dict[str, bytes]]) -> None:
    endpoint, objects = s3
    rows = 60
    store = SnapshotStore(tmp_path / "snapshots")
    kept = store.write(
        Dataset(
            names=("amount",),
            matrix=np.arange(rows)[:, None] / 7,
            is_fraud=np.arange(rows) % 7 == 0,
            transaction_ids=np.array([f"t{n:02d}" for n in range(rows)], dtype=object),
            cards=np.full(rows, None, dtype=object),
            times_us=np.arange(rows) * 3_600_000_000,
            mature_until_us=0,
        )
    )
    remote = SnapshotRemote(f"s3://{BUCKET}/snapshots")
    assert not remote.holds(kept.digest)
    assert remote.push(store, kept.digest).files == 4
    assert remote.push(store, kept.digest).files == 0
    assert remote.holds(kept.digest)
    assert objects == {
        f"snapshots/{path.relative_to(store.root).as_posix()}": path.read_bytes()
        for path in (store.root / "files").rglob("*")
        if path.is_file()
    }

    root = tmp_path / "checkout"
    root.mkdir()
    repo = Repo.init(str(root), no_scm=True)
    with repo.config.edit("repo") as config:
        config["remote"] = {"lake": {"url": remote.url, "endpointurl": endpoint}}
        config["core"]["remote"] = "lake"
    out = {"md5": f"{kept.digest.removeprefix('md5:')}.dir", "hash": "md5", "path": "training-set"}
    (root / "training-set.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    Repo(str(root)).pull()
    assert {path.name for path in (root / "training-set").iterdir()} == {path.name for path in kept.path.iterdir()}
