"""DVC itself agrees on a snapshot's digest, and reads what was pushed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo

from centinela_trainer.snapshots.push import SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore
from centinela_trainer.training.dataset import Dataset

DAY_US = 86_400_000_000
ROWS = 300


@pytest.fixture
def dataset() -> Dataset:
    random = np.random.default_rng(2)
    return Dataset(
        names=("amount", "v1"),
        matrix=random.normal(size=(ROWS, 2)),
        is_fraud=random.random(ROWS) < 0.1,
        transaction_ids=np.array([f"t{n:04d}" for n in range(ROWS)], dtype=object),
        cards=np.full(ROWS, None, dtype=object),
        times_us=20_000 * DAY_US + np.arange(ROWS) * (DAY_US // 50),
        mature_until_us=0,
    )


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    root = tmp_path / "checkout"
    root.mkdir()
    return Repo.init(str(root), no_scm=True)


def test_dvc_add_gives_a_snapshot_its_own_digest(tmp_path: Path, dataset: Dataset, repo: Repo) -> None:
    kept = SnapshotStore(tmp_path / "snapshots").write(dataset)
    added = Path(repo.root_dir) / "training-set"
    shutil.copytree(kept.path, added)
    repo.add(str(added))
    [out] = yaml.safe_load(added.with_suffix(".dvc").read_text())["outs"]
    assert f"md5:{out['md5']}" == f"{kept.digest}.dir"
    assert out["nfiles"] == 6


@pytest.mark.parametrize("pushed", [True, False], ids=["pushed to a remote", "the store itself as a remote"])
def test_dvc_pull_brings_a_snapshot_to_another_machine(
    tmp_path: Path, dataset: Dataset, repo: Repo, pushed: bool
) -> None:
    store, remote = SnapshotStore(tmp_path / "snapshots"), tmp_path / "remote"
    kept = store.write(dataset)
    if pushed:
        SnapshotRemote(str(remote)).push(store, kept.digest)
    with repo.config.edit("repo") as config:
        config["remote"] = {"snapshots": {"url": str(remote if pushed else store.root)}}
        config["core"]["remote"] = "snapshots"
    root = Path(repo.root_dir)
    out = {"md5": f"{kept.digest.removeprefix('md5:')}.dir", "hash": "md5", "path": "training-set"}
    (root / "training-set.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    Repo(str(root)).pull()
    brought = {
        path.relative_to(root / "training-set"): path.read_bytes()
        for path in (root / "training-set").rglob("*.parquet")
    }
    assert brought == {path.relative_to(kept.path): path.read_bytes() for path in kept.path.rglob("*.parquet")}
