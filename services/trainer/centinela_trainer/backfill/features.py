"""Features of a table that comes in slabs: the state carries over, so that memory holds users and terminals, not the
table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from centinela.features.assemble import assemble
from centinela.features.backfill import to_columns
from centinela.features.keys import hash_ids
from centinela.features.layout import FeatureLayout
from centinela.features.spec import TERMINAL_DELAY_MS
from centinela.features.state.terminals import TerminalState
from centinela.features.state.users import UserState
from centinela.times import DAY_MS

Matrix = NDArray[np.float64]
_SPAN_MS = TERMINAL_DELAY_MS - DAY_MS
"""Transactions of a slab that spans less than the terminals' delay are in none of its windows."""


class SlabFeatures:
    """What ``build_features`` gives for all slabs together, one after the other."""

    def __init__(self, layout: FeatureLayout) -> None:
        self._layout = layout
        self._users = UserState(layout)
        self._terminals = TerminalState(layout)

    def add(self, transactions: pd.DataFrame, reports: pd.DataFrame) -> Matrix:
        """The features of the next slab, shape (n, len(layout.names)).

        Args:
            transactions: As ``build_features`` takes them, in order of time, then id, and not before the slab before.
            reports: ``transaction_id``, ``is_fraud``, ``occurred_ms``, ``reported_ms``: all that was ever reported on
                them, in log order.
        """
        columns = to_columns(transactions, self._layout)
        attributes = transactions.reindex(columns=list(self._layout.attributes)).to_numpy(np.float64)
        users = self._users.apply(columns.users, columns.times, columns.minor, columns.stored)
        terminals = np.empty((len(columns), self._terminals.width))
        labels = (
            hash_ids(reports["transaction_id"].tolist()),
            reports["is_fraud"].to_numpy(np.bool_),
            reports["occurred_ms"].to_numpy(np.int64),
            reports["reported_ms"].to_numpy(np.int64),
        )
        first = 0
        while first < len(columns):
            last = int(np.searchsorted(columns.times, columns.times[first] + _SPAN_MS))
            part = slice(first, last)
            self._terminals.apply_activity(columns.terminals[part], columns.times[part], columns.ids[part])
            due = (labels[2] >= columns.times[first]) & (labels[2] <= columns.times[last - 1])
            if due.any():
                self._terminals.apply_labels(*(array[due] for array in labels))
            terminals[part] = self._terminals.read(columns.terminals[part], columns.times[part])
            first = last
        matrix: Matrix = assemble(columns, users, terminals, attributes)
        return matrix
