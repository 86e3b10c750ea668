"""Features of a whole table of transactions, by the same kernels that the stream uses."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from centinela.events import PURCHASE
from centinela.features.assemble import Columns, Matrix, assemble, stored_bits
from centinela.features.keys import MISSING_ID, Hashes, Int64s, hash_ids, minor_units
from centinela.features.layout import FeatureLayout
from centinela.features.payload import UNKNOWN
from centinela.features.spec import TERMINAL
from centinela.features.state.id_table import IdTable, first_of_each
from centinela.features.state.terminals import DELAY_MS, TerminalState
from centinela.features.state.users import UserState
from centinela.times import DAY_MS, series_to_ms

_SLAB = 65_536
_SPAN_MS = DELAY_MS - DAY_MS


def build_features(
    transactions: pd.DataFrame, labels: pd.DataFrame, layout: FeatureLayout, *, order: Literal["time", "log"] = "time"
) -> pd.DataFrame:
    """The features that a stream would have served, had it read the transactions in *order*.

    A user's windows rest on what came before in that order; a terminal's end days back and do not depend on it.

    Args:
        transactions: Columns ``transaction_id``, ``user_id``, ``terminal_id`` (either may be missing, or null in a
            row), ``occurred_at`` (UTC), ``amount``, whatever of ``layout.attributes`` there is, and optionally
            ``kind`` (null: a purchase).
        labels: Columns ``transaction_id``, ``is_fraud``, ``occurred_at``, ``reported_at`` (UTC): what was reported, in
            log order.
        order: ``time``: of time, then of transaction id. ``log``: as the rows stand.

    Returns:
        One float64 column per name of *layout*, on the index of *transactions*.

    Raises:
        ValueError: A transaction id repeats.
    """
    columns = to_columns(transactions, layout)
    if not first_of_each(columns.ids).all():
        raise ValueError("a transaction id repeats: features are defined for distinct transactions")
    by_time = _by_time(columns.times, transactions["transaction_id"])
    rows = by_time if order == "time" else np.arange(len(columns))
    attributes = transactions.reindex(columns=list(layout.attributes)).to_numpy(np.float64)
    matrix = assemble(
        columns, _user_features(columns, rows, layout), _terminal_features(columns, by_time, labels, layout), attributes
    )
    return pd.DataFrame(matrix, index=transactions.index, columns=list(layout.names), copy=False)


def to_columns(table: pd.DataFrame, layout: FeatureLayout) -> Columns:
    """The columns of transactions as ``build_features`` takes them, in their order; their payloads are unknown."""
    amounts = table["amount"].to_numpy(np.float64)
    users, terminals = _hashes(table, "user_id"), _hashes(table, "terminal_id")
    if "kind" in table:
        without_history = (table["kind"].fillna(PURCHASE) != PURCHASE).to_numpy()
        users[without_history] = terminals[without_history] = MISSING_ID
    numbers = table.reindex(columns=[name for name in layout.stored if name != TERMINAL]).to_numpy(np.float64)
    return Columns(
        _hashes(table, "transaction_id"),
        users,
        terminals,
        series_to_ms(pd.to_datetime(table["occurred_at"], utc=True)),
        amounts,
        minor_units(amounts),
        stored_bits(layout, terminals, numbers),
        np.full(len(table), UNKNOWN, np.int64),
    )


def _by_time(times: Int64s, ids: pd.Series) -> NDArray[np.intp]:
    """The rows in order of time, then of id."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    ties = np.zeros(len(order), bool)
    same = ordered[1:] == ordered[:-1]
    ties[1:] |= same
    ties[:-1] |= same
    tied = order[ties]
    order[ties] = tied[np.lexsort((ids.iloc[tied].to_numpy(), times[tied]))]
    return order


def _user_features(columns: Columns, order: NDArray[np.intp], layout: FeatureLayout) -> Matrix:
    state = UserState(layout)
    features = np.empty((len(columns), state.width))
    for first in range(0, len(columns), _SLAB):
        rows = order[first : first + _SLAB]
        part = columns.take(rows)
        features[rows] = state.apply(part.users, part.times, part.minor, part.stored)
    return features


def _terminal_features(
    columns: Columns, by_time: NDArray[np.intp], labels: pd.DataFrame, layout: FeatureLayout
) -> Matrix:
    """A slab's own transactions are in none of its windows: it spans less than the delay."""
    state, reported = TerminalState(layout), _Labels(labels)
    features = np.empty((len(columns), state.width))
    ordered = columns.times[by_time]
    first = 0
    while first < len(by_time):
        last = min(first + _SLAB, int(np.searchsorted(ordered, ordered[first] + _SPAN_MS)))
        rows = by_time[first:last]
        terminals, times = columns.terminals[rows], columns.times[rows]
        ids = columns.ids[rows]
        state.apply_history(terminals, times, ids, reported.on(ids))
        reported.apply(state, int(times[-1]))
        features[rows] = state.read(terminals, times)
        first = last
    return features


class _Labels:
    """Labels in order of their transactions' time, those of one transaction in log order."""

    def __init__(self, labels: pd.DataFrame) -> None:
        ids, occurred = _hashes(labels, "transaction_id"), series_to_ms(pd.to_datetime(labels["occurred_at"], utc=True))
        if not first_of_each(ids).all():
            _, first, which = np.unique(ids, return_index=True, return_inverse=True)
            occurred = occurred[first[which]]
        order = np.argsort(occurred, kind="stable")
        self._ids, self._occurred = ids[order], occurred[order]
        self._reported = series_to_ms(pd.to_datetime(labels["reported_at"], utc=True))[order]
        self._is_fraud = labels["is_fraud"].to_numpy(bool)[order]
        self._done = 0
        self._known = IdTable()
        self._known.of(ids)

    def on(self, ids: Hashes) -> NDArray[np.bool_]:
        """Whether there is a report on each of *ids*, shape (n,)."""
        return self._known.find(ids) >= 0

    def apply(self, terminals: TerminalState, through: int) -> None:
        """Hand *terminals* what belongs to transactions up to *through*, ms."""
        upto = int(np.searchsorted(self._occurred, through, side="right"))
        part = slice(self._done, upto)
        if upto > self._done:
            terminals.apply_labels(self._ids[part], self._is_fraud[part], self._occurred[part], self._reported[part])
            self._done = upto


def _hashes(table: pd.DataFrame, column: str) -> Hashes:
    if column not in table:
        return np.full(len(table), MISSING_ID, np.uint64)
    series = table[column]
    if column == "transaction_id":
        return hash_ids(_texts(series.to_list()))
    codes, values = pd.factorize(series)
    return np.append(hash_ids(_texts(values.tolist())), np.uint64(MISSING_ID))[codes]


def _texts(values: list[Any]) -> list[str]:
    return values if set(map(type, values)) <= {str} else [str(value) for value in values]
