"""The oracle finds a wrong window, an archive that differs, and a training that went astray."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from tests.support.faultrun.archive_check import judge_archive
from tests.support.faultrun.features import judge_features
from tests.support.faultrun.oracle import Judgement, judge_trainings
from tests.support.faultrun.readback import Raw, ReadBack, Reported, Scored, Transaction
from tests.support.tables import rows_of

LAYOUT = FeatureLayout(("v1", "v2"))
START = datetime(2024, 1, 1, tzinfo=UTC)
WINDOWS = "served windows equal to a fault-free computation"


class Served:
    """Sixty transactions of two users at one terminal over thirty days, each with the vector that it should have."""

    def __init__(self) -> None:
        self.found = ReadBack()
        times = [START + timedelta(hours=12 * n) for n in range(60)]
        table = pd.DataFrame(
            {
                "transaction_id": [f"t{n:02d}" for n in range(60)],
                "user_id": [f"u{n % 2}" for n in range(60)],
                "terminal_id": "m",
                "occurred_at": times,
                "amount": np.arange(60) + 0.5,
                "v1": 1.0,
                "v2": np.nan,
            }
        )
        labels = pd.DataFrame(
            {
                "transaction_id": ["t03"],
                "is_fraud": [True],
                "occurred_at": [times[3]],
                "reported_at": [times[3] + timedelta(days=2)],
            }
        )
        self.matrix = build_features(table, labels, LAYOUT).to_numpy().copy()
        self.label(Reported("t03", True, times[3], times[3] + timedelta(days=2)))
        for row in rows_of(table):
            self.found.log.add(Raw(0, row.Index, None, b"", {}))
            self.found.transactions.append(
                Transaction(row.transaction_id, times[row.Index], row.amount, row.user_id, "m", {"v1": 1.0})
            )
        self.origins = ["stream"] * 60

    def label(self, label: Reported) -> None:
        self.found.label_places.add(Raw(0, len(self.found.labels), None, b"", {}))
        self.found.labels.append(label)

    def column(self, name: str) -> int:
        return LAYOUT.names.index(name)

    def judged(self) -> Judgement:
        self.found.verdicts = [
            Scored(
                t.transaction_id,
                t.occurred_at,
                t.amount,
                "approve",
                origin,
                vector.tobytes(),
                START,
                t.user_id,
                "m",
                0.5,
                "1",
            )
            for t, origin, vector in zip(self.found.transactions, self.origins, self.matrix, strict=True)
            if t is not None
        ]
        judgement = Judgement()
        judge_features(
            self.found,
            {verdict.transaction_id: row for row, verdict in enumerate(self.found.verdicts)},
            LAYOUT.names,
            judgement,
        )
        return judgement


def test_vectors_of_a_fault_free_computation_are_right_and_have_a_fraud_in_a_window() -> None:
    judgement = Served().judged()
    assert judgement.clean
    assert judgement.notes["rows with a fraud in a terminal's window"]


@pytest.mark.parametrize(
    "name", ["user_count_7d", "user_mean_30d", "user_max_30d", "terminal_count_7d", "terminal_risk_30d", "v1"]
)
@pytest.mark.parametrize("origin", ["stream", "gateway"])
def test_one_wrong_value_is_found(name: str, origin: str) -> None:
    served = Served()
    served.origins[50] = origin
    served.matrix[50, served.column(name)] += 1
    assert [line.split(" ")[0] for line in served.judged().violations[WINDOWS]] == ["t50"]


@pytest.mark.parametrize(("origin", "right"), [("gateway", True), ("stream", False)])
def test_only_a_gateway_may_miss_its_user_s_last_transaction_and_then_exactly_that(origin: str, right: bool) -> None:
    served = Served()
    served.origins[50] = origin
    before = served.matrix[50].copy()
    for name, value in {"user_count_1d": 1, "user_mean_1d": 50.5, "user_seconds_since_last": 2 * 86_400}.items():
        served.matrix[50, served.column(name)] = value
    for name in ("user_count_7d", "user_count_30d"):
        served.matrix[50, served.column(name)] -= 1
    for days in (7, 30):
        count = before[served.column(f"user_count_{days}d")]
        served.matrix[50, served.column(f"user_mean_{days}d")] = (
            before[served.column(f"user_mean_{days}d")] * count - 48.5
        ) / (count - 1)
    assert served.judged().clean is right


def test_a_row_that_is_missing_from_the_archive_and_one_that_is_there_twice_are_found(tmp_path: Path) -> None:
    found = ReadBack()
    for offset in range(3):
        found.verdict_places.add(Raw(0, offset, None, b"", {}))
        found.verdicts.append(Scored(f"t{offset}", START, 1.0, "approve", "stream", b"", START))
    for number, offsets in enumerate(([0, 1], [1])):
        folder = tmp_path / "predictions" / f"day=2024-01-0{number + 1}"
        folder.mkdir(parents=True)
        pd.DataFrame({"partition": 0, "offset": offsets, "transaction_id": [f"t{n}" for n in offsets]}).to_parquet(
            folder / f"{number}.parquet"
        )
    judgement = Judgement()

    judge_archive(tmp_path, found, judgement)

    assert judgement.violations["predictions in the archive, once each"] == [
        "missing (0, 2, 't2')",
        "too many (0, 1, 't1')",
    ]


def test_a_training_without_an_answer_and_one_with_two_versions_are_found() -> None:
    found = ReadBack(model_events=[{"type": "TrainingCompleted", "request_id": "one", "outcome": "promoted"}])
    judgement = Judgement()

    judge_trainings(found, ["one", "two"], {"one": 2}, judgement)

    assert judgement.violations == {"trainings answered": ["two"], "trainings with one version at most": ["one: 2"]}
