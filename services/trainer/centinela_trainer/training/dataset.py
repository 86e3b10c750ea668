"""From archive tables to a training set as it could be known at a point in time: pure functions.

A label counts only from ``reported_at`` on. A transaction is *mature* at ``as_of`` once it is older than the label
maturity; a mature transaction without a fraud label known by then counts as genuine. Younger ones are left out,
whatever is known of them: of the youngest only frauds can be known, and a model must not learn "young means fraud".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from centinela.times import to_us

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Objects = NDArray[np.object_]
Microseconds = NDArray[np.int64]
Rows = NDArray[np.int64]
_NO_LABELS = pa.table(
    {
        "transaction_id": pa.array([], pa.string()),
        "is_fraud": pa.array([], pa.bool_()),
        "reported_us": pa.array([], pa.int64()),
    }
)
_JOIN = """
    WITH known AS (
        SELECT transaction_id, arg_max(is_fraud, (reported_us, number)) AS is_fraud
        FROM reports WHERE reported_us <= $3 GROUP BY transaction_id
    ), once AS (
        SELECT transaction_id, arg_min(occurred_us, number) AS occurred_us, min(number) AS number FROM verdicts
        WHERE occurred_us > $1 AND occurred_us <= $2 GROUP BY transaction_id
    )
    SELECT number, coalesce(known.is_fraud, false) AS is_fraud FROM once LEFT JOIN known USING (transaction_id)
    ORDER BY occurred_us, transaction_id"""


@dataclass(frozen=True)
class Dataset:
    """Mature transactions in order of (event time, id), each once.

    ``matrix``: served features, shape (n, len(names)), NaN where missing. ``times_us``: microseconds since the epoch.
    ``cards``: user ids, None where unknown. ``mature_until_us``: the event time up to which transactions are mature.
    """

    names: tuple[str, ...]
    matrix: Floats
    is_fraud: Bools
    transaction_ids: Objects
    cards: Objects
    times_us: Microseconds
    mature_until_us: int

    def __len__(self) -> int:
        return len(self.is_fraud)

    @property
    def groups(self) -> Objects:
        """The card of each row; a transaction without a card is a group of its own."""
        known = np.array([card is not None for card in self.cards], dtype=np.bool_)
        return np.where(known, self.cards, self.transaction_ids)

    def present(self) -> tuple[str, ...]:
        """The features that have a value anywhere; a column that is missing throughout teaches nothing."""
        return tuple(name for at, name in enumerate(self.names) if not np.isnan(self.matrix[:, at]).all())

    def columns(self, names: Sequence[str], rows: Rows | slice = slice(None)) -> Floats:
        """Feature columns *names*, in that order, of *rows*: C-contiguous, shape (rows, len(names))."""
        index = [self.names.index(name) for name in names]
        return np.ascontiguousarray(self.matrix[rows][:, index])


@dataclass(frozen=True)
class Split:
    """Row numbers of a dataset. ``start_us``: where the test days begin. All training rows are earlier."""

    train: Rows
    test: Rows
    start_us: int


def assemble(
    predictions: pa.Table,
    labels: pa.Table,
    names: Sequence[str],
    *,
    as_of: datetime,
    maturity: timedelta,
    window: timedelta,
) -> Dataset:
    """The training set as knowable at *as_of*.

    Args:
        predictions: Columns ``transaction_id``, ``user_id``, ``occurred_us`` (int64) and the features *names*.
        labels: Columns ``transaction_id``, ``is_fraud``, ``reported_us`` (int64).
        names: Features, in the order of the layout; one that *predictions* lacks is missing throughout.
        as_of: Nothing reported later than this is used.
        maturity: Age from which a transaction without a fraud label counts as genuine.
        window: How far back from the newest mature moment.

    Returns:
        One row per transaction id, the first of repeated ones; where several labels are known, the last report holds.
    """
    mature_until = to_us(as_of - maturity)
    rows, is_fraud = _joined(predictions, labels, mature_until - microseconds_of(window), mature_until, to_us(as_of))
    chosen = predictions.take(rows)
    return Dataset(
        names=tuple(names),
        matrix=_matrix(chosen, names),
        is_fraud=is_fraud,
        transaction_ids=_objects(chosen["transaction_id"]),
        cards=_objects(chosen["user_id"]),
        times_us=chosen["occurred_us"].to_numpy().astype(np.int64, copy=True),
        mature_until_us=mature_until,
    )


def immature(predictions: pa.Table, names: Sequence[str], *, as_of: datetime, maturity: timedelta) -> Floats:
    """Features of the transactions that ``assemble`` leaves out as too young, in time order: what no model trained
    on."""
    rows, _ = _joined(predictions, None, to_us(as_of - maturity), to_us(as_of), to_us(as_of))
    return _matrix(predictions.take(rows), names)


def _joined(
    predictions: pa.Table, labels: pa.Table | None, after_us: int, until_us: int, as_of_us: int
) -> tuple[pa.Array, Bools]:
    """The point-in-time join: rows with *after_us* < event time <= *until_us*, each transaction once, in order of time
    and id.

    Returns:
        Row numbers in *predictions*, and whether each is fraud by its last report up to *as_of_us*.
    """
    with duckdb.connect() as database:
        database.register("verdicts", _numbered(predictions.select(["transaction_id", "occurred_us"])))
        database.register("reports", _numbered(labels if labels is not None else _NO_LABELS))
        joined = database.sql(_JOIN, params=[after_us, until_us, as_of_us]).to_arrow_table()
    return joined["number"].combine_chunks(), np.asarray(joined["is_fraud"].to_numpy(), dtype=np.bool_)


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("number", pa.array(np.arange(len(table))))


def _matrix(table: pa.Table, names: Sequence[str]) -> Floats:
    matrix = np.full((len(table), len(names)), np.nan)
    for at, name in enumerate(names):
        if name in table.column_names:
            matrix[:, at] = table[name].cast(pa.float64()).to_pandas().to_numpy(dtype=np.float64)
    return matrix


def _objects(column: pa.ChunkedArray) -> Objects:
    values: Objects = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


def microseconds_of(span: timedelta) -> int:
    """*span* in microseconds."""
    return span // timedelta(microseconds=1)


def split_by_time(dataset: Dataset, *, test_days: float, max_test_share: float, gap_days: float) -> Split:
    """The newest mature days as test set, everything older than them (less the gap) as training set.

    Where the history is short, the test days shrink to the newest *max_test_share* of the rows.

    Args:
        dataset: n > 0 rows in time order.
        test_days: Length of the test window, back from the newest mature moment that has a transaction.
        max_test_share: In (0, 1).
        gap_days: Left out between training and test.
    """
    times = dataset.times_us
    end = int(times[-1])
    by_days = end - microseconds_of(timedelta(days=test_days))
    by_share = int(times[min(int(np.ceil(len(times) * (1 - max_test_share))), len(times) - 1)]) - 1
    start = max(by_days, by_share)
    first_test = int(np.searchsorted(times, start, side="right"))
    last_train = int(np.searchsorted(times, start - microseconds_of(timedelta(days=gap_days)), side="right"))
    return Split(train=np.arange(last_train), test=np.arange(first_test, len(times)), start_us=start + 1)


def card_folds(groups: Objects, folds: int, seed: int) -> NDArray[np.int64]:
    """A fold number in [0, folds) for each row, the same for all rows of a card, on every machine."""
    codes, unique = pd.factorize(groups)
    of_card = np.array(
        [xxhash.xxh3_64_intdigest(str(card).encode(), seed=seed) % folds for card in unique], dtype=np.int64
    )
    return of_card[codes]
