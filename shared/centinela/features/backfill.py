"""Features of a whole table of transactions, by the same kernels that the stream uses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from centinela.features.assemble import Columns, assemble
from centinela.features.keys import DAY_MS, Hashes, Int64s, hash_ids, minor_units
from centinela.features.layout import FeatureLayout
from centinela.features.terminals import TerminalState
from centinela.features.users import UserState

_BATCH = 8_192
_SPAN_MS = DAY_MS


def build_features(transactions: pd.DataFrame, labels: pd.DataFrame, layout: FeatureLayout) -> pd.DataFrame:
    """The features that a stream would have served, had it read the transactions in order of time, then of transaction id.

    Args:
        transactions: Columns ``transaction_id``, ``user_id``, ``terminal_id`` (either may be missing, or null in a row),
            ``occurred_at`` (UTC), ``amount``, and whatever of ``layout.attributes`` there is.
        labels: Columns ``transaction_id``, ``is_fraud``, ``occurred_at``, ``reported_at`` (UTC): what was reported, in log order.

    Returns:
        One float64 column per name of *layout*, on the index of *transactions*.

    Raises:
        ValueError: A transaction id repeats.
    """
    if transactions["transaction_id"].duplicated().any():
        raise ValueError("a transaction id repeats: features are defined for distinct transactions")
    order = np.lexsort((transactions["transaction_id"].to_numpy(), _ms(transactions["occurred_at"])))
    table = transactions.iloc[order]
    amounts = table["amount"].to_numpy(np.float64)
    columns = Columns(
        _hashes(table, "transaction_id"), _hashes(table, "user_id"), _hashes(table, "terminal_id"), _ms(table["occurred_at"]), amounts,
        minor_units(amounts),
    )
    attributes = table.reindex(columns=list(layout.attributes)).to_numpy(np.float64)
    users, terminals = UserState(), TerminalState()
    reported = _Labels(labels)
    matrix = np.empty((len(table), len(layout.names)))
    first = 0
    while first < len(table):
        last = min(first + _BATCH, int(np.searchsorted(columns.times, columns.times[first] + _SPAN_MS)))
        part = columns.take(np.arange(first, last))
        terminals.apply_activity(part.terminals, part.times, part.ids)
        reported.apply(terminals, int(part.times[-1]))
        matrix[first:last] = assemble(
            part, users.apply(part.users, part.times, part.minor), terminals.read(part.terminals, part.times), attributes[first:last],
        )
        first = last
    result = np.empty_like(matrix)
    result[order] = matrix
    return pd.DataFrame(result, index=transactions.index, columns=list(layout.names))


class _Labels:
    """Labels in order of their transactions' time, those of one transaction in log order."""

    def __init__(self, labels: pd.DataFrame) -> None:
        ids, occurred = _hashes(labels, "transaction_id"), _ms(labels["occurred_at"])
        _, first, which = np.unique(ids, return_index=True, return_inverse=True)
        occurred = occurred[first[which]]
        order = np.argsort(occurred, kind="stable")
        self._ids, self._occurred = ids[order], occurred[order]
        self._reported = _ms(labels["reported_at"])[order]
        self._is_fraud = labels["is_fraud"].to_numpy(bool)[order]
        self._done = 0

    def apply(self, terminals: TerminalState, through: int) -> None:
        """Hand *terminals* what belongs to transactions up to *through*, ms."""
        upto = int(np.searchsorted(self._occurred, through, side="right"))
        part = slice(self._done, upto)
        if upto > self._done:
            terminals.apply_labels(self._ids[part], self._is_fraud[part], self._occurred[part], self._reported[part])
            self._done = upto


def _ms(instants: pd.Series) -> Int64s:
    utc = pd.to_datetime(instants, utc=True).dt.tz_localize(None).to_numpy("datetime64[ns]")
    milliseconds: NDArray[np.int64] = utc.astype(np.int64) // 1_000_000
    return milliseconds


def _hashes(table: pd.DataFrame, column: str) -> Hashes:
    if column not in table:
        return np.zeros(len(table), np.uint64)
    return hash_ids([None if pd.isna(value) else str(value) for value in table[column]])
