"""The Fraud Detection Handbook's stream as features, and its way of splitting it: what the model benchmark and its
search share.

The protocol (Handbook, ch. 3 and 5): a week of training, seven days in which labels are still to come, a week of tests.
On each test day the cards are left out of which a fraud is known by then, since they are blocked: those with a fraud in
the training week, or between it and the day, as far as the label delay lets it be known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela.model.metrics import average_precision
from centinela.times import DAY_US, series_to_us, to_us
from centinela_trainer.training.dataset import Dataset, assemble
from centinela_trainer.training.evaluation import card_precision, roc_auc

DAY = timedelta(days=1)
DELAY_DAYS = 7
TEST_DAYS = 7
PUBLISHED_TRAIN_DAYS = 7
"""Cards count as known from so many days of training on, however many days a model learns from: the test rows stay the
same."""
CARDS_PER_DAY = 100
LEAK_AUC = 0.99
"""No honest model comes near: a ROC AUC above it says that a feature knows the label."""
FILE_VARIABLE = "CENTINELA_HANDBOOK"
LAYOUT = FeatureLayout()
_COLUMNS = {
    "TRANSACTION_ID": "transaction_id",
    "CUSTOMER_ID": "user_id",
    "TERMINAL_ID": "terminal_id",
    "TX_DATETIME": "occurred_at",
    "TX_AMOUNT": "amount",
    "TX_FRAUD": "is_fraud",
}


@dataclass(frozen=True)
class Stream:
    """Transactions in order of time, with their features. ``table``: what ``dataset.assemble`` takes; ``labels``:
    reports."""

    table: pa.Table
    labels: pa.Table
    matrix: NDArray[np.float64]
    is_fraud: NDArray[np.bool_]
    cards: NDArray[np.object_]
    times_us: NDArray[np.int64]


@dataclass(frozen=True)
class Week:
    """Rows of a test week, less the cards known by then."""

    start: datetime
    matrix: NDArray[np.float64]
    is_fraud: NDArray[np.bool_]
    cards: NDArray[np.object_]
    times_us: NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """The Handbook's three figures."""

    average_precision: float
    roc_auc: float
    card_precision: float

    @property
    def leaks(self) -> bool:
        """Whether the figures are too good to be true."""
        return self.roc_auc > LEAK_AUC


def handbook_file(given: Path | None) -> Path:
    """*given*, else what the environment names.

    Raises:
        SystemExit: Neither names a file.
    """
    path = given or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if path is None or not path.is_file():
        raise SystemExit(
            f"needs the Handbook's transactions as one Parquet file: name it as argument or in {FILE_VARIABLE} (given:"
            f" {path})"
        )
    return path


def read_transactions(path: Path) -> pd.DataFrame:
    """The file under the platform's names, in order of time; times in UTC."""
    table = pd.read_parquet(path, columns=list(_COLUMNS)).rename(columns=_COLUMNS)
    table["occurred_at"] = table["occurred_at"].dt.tz_localize("UTC")
    table["is_fraud"] = table["is_fraud"].astype(bool)
    return table.sort_values(["occurred_at", "transaction_id"], ignore_index=True)


def reports_of(transactions: pd.DataFrame) -> pd.DataFrame:
    """What would have been reported: every fraud, ``DELAY_DAYS`` after it happened, as ``centinela replay`` does."""
    frauds = transactions.loc[transactions["is_fraud"], ["transaction_id", "is_fraud", "occurred_at"]]
    return frauds.assign(reported_at=frauds["occurred_at"] + DELAY_DAYS * DAY)


def to_stream(transactions: pd.DataFrame, reports: pd.DataFrame) -> Stream:
    """*transactions* (in order of time) with the features that the platform would have served."""
    features = build_features(transactions, reports, LAYOUT)
    times = series_to_us(transactions["occurred_at"])
    ids, cards = (transactions[name].astype(str).to_numpy(dtype=object) for name in ("transaction_id", "user_id"))
    table = pa.table(
        {
            "transaction_id": ids,
            "user_id": cards,
            "occurred_us": times,
            **{name: features[name].to_numpy() for name in LAYOUT.names},
        }
    )
    labels = pa.table(
        {
            "transaction_id": reports["transaction_id"].astype(str).to_numpy(dtype=object),
            "is_fraud": reports["is_fraud"].to_numpy(dtype=np.bool_),
            "reported_us": series_to_us(reports["reported_at"]),
        }
    )
    return Stream(table, labels, features.to_numpy(), transactions["is_fraud"].to_numpy(dtype=np.bool_), cards, times)


def training_set(stream: Stream, test_start: datetime, days: float) -> Dataset:
    """What the trainer would learn from on the morning of *test_start*: the newest *days* whose labels are all in."""
    return assemble(
        stream.table, stream.labels, LAYOUT.names, as_of=test_start, maturity=DELAY_DAYS * DAY, window=days * DAY
    )


def test_week(stream: Stream, start: datetime) -> Week:
    """The days from *start* on, each without the cards known by its beginning."""
    day = (stream.times_us - to_us(start)) // DAY_US
    first_known = -DELAY_DAYS - PUBLISHED_TRAIN_DAYS
    kept = np.zeros(len(day), dtype=np.bool_)
    for number in range(TEST_DAYS):
        known = stream.is_fraud & (day >= first_known) & (day < number - DELAY_DAYS)
        kept |= (day == number) & ~np.isin(stream.cards.astype(str), stream.cards[known].astype(str))
    return Week(start, stream.matrix[kept], stream.is_fraud[kept], stream.cards[kept], stream.times_us[kept])


def quality(week: Week, scores: NDArray[np.float64]) -> Quality:
    """How well *scores*, shape (rows of the week,), find its frauds and its compromised cards."""
    return Quality(
        average_precision(week.is_fraud, scores),
        roc_auc(week.is_fraud, scores),
        card_precision(week.is_fraud, scores, week.cards, week.times_us, CARDS_PER_DAY, to_us(week.start)),
    )


def day(text: str) -> datetime:
    """Midnight UTC of an ISO date."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
