"""The pipeline's data: simulated days or a file, then the training set, by the code that serves and retrains."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa

from centinela.datasets.columns import NEVER, Transactions
from centinela.datasets.options import FileOptions
from centinela.datasets.rows import LabelRule
from centinela.datasets.simulator import Profile, Simulation, parse_drift
from centinela.datasets.source import open_files
from centinela.events import PURCHASE
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela.times import from_us, index_from_ms, series_to_us
from centinela_trainer.params import Params, ParamsError
from centinela_trainer.training.dataset import Dataset, assemble

COLUMNS = ("transaction_id", "occurred_at", "user_id", "terminal_id", "amount", "kind")


@dataclass(frozen=True)
class History:
    """Transactions (``COLUMNS``, then attributes; each id once) and the labels reported on them. ``rejected``: rows
    that were none."""

    transactions: pd.DataFrame
    labels: pd.DataFrame
    rejected: int = 0

    @property
    def attributes(self) -> tuple[str, ...]:
        """The raw columns beyond ``COLUMNS``."""
        return tuple(name for name in self.transactions.columns if name not in COLUMNS)


def load_history(params: Params, now: datetime) -> History:
    """What ``params.data`` names.

    Raises:
        ParamsError: It names neither a file nor a folder, or a drift that does not exist; amounts have several
            currencies.
        CentinelaError: The file cannot be read, or no mapping fits.
    """
    path = Path(params.data.path)
    if path.is_dir():
        return _history([simulated(params)], 0)
    if not path.is_file():
        raise ParamsError(f"data.path {path}: no such file")
    data = params.data
    options = FileOptions.of(data.separator, data.decimal, data.encoding)
    files = open_files(path, data.mapping, options)
    rule = LabelRule(timedelta(days=data.label_delay_days))
    parts, rejected = [], 0
    for part in files.parts(rule, now):
        parts.append(part.transactions)
        rejected += len(part.rejects)
    if len(currencies := {code for part in parts for code in part.currency.tolist()}) > 1:
        raise ParamsError(
            f"data.path {path}: amounts in {', '.join(sorted(currencies))}; the pipeline takes one currency."
            " `centinela replay` and `retrain` convert by CENTINELA_RATES_FILE"
        )
    if not any(len(part) for part in parts):
        raise ParamsError(f"data.path {path}: no row is a transaction; {rejected:,} were rejected")
    return _history(parts, rejected)


def simulated(params: Params) -> Transactions:
    """The days that ``params.data`` asks of the simulator."""
    data = params.data
    try:
        drifts = tuple(parse_drift(text) for text in data.scenarios)
    except ValueError as error:
        raise ParamsError(f"data.scenarios: {error}") from error
    simulation = Simulation(
        Profile(seed=params.seed, customers=data.customers, terminals=data.terminals, start=data.start, drifts=drifts)
    )
    return Transactions.from_frame(pd.concat(list(simulation.days(data.days)), ignore_index=True))


def training_set(history: History, params: Params, layout: FeatureLayout) -> Dataset:
    """The features of *layout* of all purchases, as the stream would have served them, and the labels known once the
    last purchase is mature."""
    transactions = history.transactions
    features = build_features(transactions, history.labels, layout)
    learned = (transactions["kind"] == PURCHASE).to_numpy()
    transactions, features = transactions[learned], features[learned]
    maturity = timedelta(days=params.data.maturity_days)
    as_of = transactions["occurred_at"].max().to_pydatetime() + maturity
    predictions = pa.table(
        {
            "transaction_id": pa.array(transactions["transaction_id"], pa.string()),
            "user_id": pa.array(transactions["user_id"], pa.string()),
            "occurred_us": pa.array(series_to_us(transactions["occurred_at"])),
            **{name: pa.array(features[name].to_numpy()) for name in layout.names},
        }
    )
    labels = pa.table(
        {
            "transaction_id": pa.array(history.labels["transaction_id"], pa.string()),
            "is_fraud": pa.array(history.labels["is_fraud"], pa.bool_()),
            "reported_us": pa.array(series_to_us(history.labels["reported_at"])),
        }
    )
    return assemble(
        predictions,
        labels,
        layout.names,
        as_of=as_of,
        maturity=maturity,
        window=timedelta(days=params.train.window_days),
    )


def newest(dataset: Dataset) -> datetime:
    """The time of the last transaction of *dataset*."""
    return from_us(int(dataset.times_us[-1]))


def _history(parts: list[Transactions], rejected: int) -> History:
    transactions = pd.concat(
        [
            pd.DataFrame(
                {
                    "transaction_id": part.transaction_id,
                    "occurred_at": index_from_ms(part.occurred_ms),
                    "user_id": part.user_id,
                    "terminal_id": part.terminal_id,
                    "amount": part.amount,
                    "kind": part.kind,
                    **{name: part.attributes[:, at] for at, name in enumerate(part.attribute_names)},
                }
            )
            for part in parts
        ],
        ignore_index=True,
    )
    labels = pd.concat(
        [
            pd.DataFrame(
                {
                    "transaction_id": part.transaction_id[known],
                    "is_fraud": part.is_fraud[known],
                    "occurred_at": index_from_ms(part.occurred_ms[known]),
                    "reported_at": index_from_ms(part.reported_ms[known]),
                }
            )
            for part in parts
            for known in [part.reported_ms != NEVER]
        ],
        ignore_index=True,
    )
    return History(
        transactions.drop_duplicates("transaction_id"), labels.sort_values("reported_at", kind="stable"), rejected
    )
