"""Every window that the stream serves is that of an independent computation: by one predictor that is killed on the
way, and by three that share the partitions undisturbed.

The same on a file of your own: ``make exactness``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from centinela_local.broker.jars import can_run_broker
from centinela_local.testing.temporary_kafka import TemporaryBroker
from tests.support.exactness import compare_with_independent_computation

ROWS = 6_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty days of few users and terminals, a tenth fraud, with equal times and equal amounts."""
    random = np.random.default_rng(4)
    seconds = np.sort(random.integers(0, 40 * 86_400 // 20, ROWS)) * 20
    path = tmp_path_factory.mktemp("exactness") / "generated.parquet"
    pd.DataFrame(
        {
            "TRANSACTION_ID": np.arange(ROWS),
            "TX_DATETIME": pd.Timestamp("2018-04-01") + pd.to_timedelta(seconds, unit="s"),
            "CUSTOMER_ID": random.integers(0, 70, ROWS),
            "TERMINAL_ID": random.integers(0, 25, ROWS),
            "TX_AMOUNT": random.integers(1, 40_000, ROWS) / 100,
            "TX_FRAUD": (random.random(ROWS) < 0.1).astype(int),
        }
    ).to_parquet(path)
    return path


@pytest.fixture
def empty_broker(tmp_path: Path) -> Iterator[str]:
    """A broker of one test alone: the stream would score what other tests left."""
    assert can_run_broker(), "these tests start a broker of their own: a JDK is needed"
    server = TemporaryBroker(tmp_path / "kafka")
    server.start()
    yield server.bootstrap_servers
    server.stop()


@pytest.mark.parametrize(("predictors", "kills"), [(1, 2), (3, 0)])
def test_all_windows_agree(empty_broker: str, tmp_path: Path, file: Path, predictors: int, kills: int) -> None:
    (tmp_path / "data").mkdir()

    found = compare_with_independent_computation(
        empty_broker, file, tmp_path / "data", predictors=predictors, kills=kills
    )

    assert (found.rows, found.missing, found.doubled, found.kills) == (ROWS, 0, 0, kills)
    assert found.mismatches == dict.fromkeys(found.mismatches, 0)
    assert found.frauds_seen > ROWS / 4
