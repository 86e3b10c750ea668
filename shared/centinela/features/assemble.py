"""Transactions as columns, and columns as the feature matrix: the last step that stream, gateway and backfill share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from centinela.events import PURCHASE, TransactionReceived
from centinela.features.currency import BASE_ONLY, Rates
from centinela.features.keys import MISSING_ID, Hashes, Int64s, hash_ids, minor_units
from centinela.features.layout import (
    BASE_FEATURES,
    BASE_LAYOUT,
    TERMINAL_FEATURES,
    TRANSACTION_FEATURES,
    USER_FEATURES,
    FeatureLayout,
)
from centinela.features.payload import payloads_of
from centinela.features.spec import TERMINAL
from centinela.times import DAY_MS, HOUR_MS, to_ms_array

Matrix = NDArray[np.float64]
_USERS_AT = len(TRANSACTION_FEATURES)
_TERMINALS_AT = _USERS_AT + len(USER_FEATURES)
_EXTRA_AT = len(BASE_FEATURES)
_LAST_NIGHT_HOUR = 6
_THURSDAY, _SATURDAY = 3, 5


@dataclass(frozen=True, slots=True)
class Columns:
    """Transactions by column, each of shape (n,); identifiers hashed (``MISSING_ID`` where missing).

    A refund or a reversal has neither a user nor a terminal here: so it is in nobody's windows, and sees none.

    ``times``: ms since 1970. ``amounts``: major units of the base currency, NaN without a rate. ``minor``: hundredths.
    ``stored``: the bits of what ``layout.stored`` names, shape (len(layout.stored), n). ``payloads``: see
    ``centinela.features.payload``.
    """

    ids: Hashes
    users: Hashes
    terminals: Hashes
    times: Int64s
    amounts: Matrix
    minor: Int64s
    stored: Int64s
    payloads: Int64s

    @classmethod
    def of(
        cls,
        transactions: Sequence[TransactionReceived],
        layout: FeatureLayout = BASE_LAYOUT,
        rates: Rates = BASE_ONLY,
    ) -> Columns:
        """The columns of *transactions*, in their order."""
        amounts = np.array([t.amount for t in transactions], dtype=np.float64)
        users, terminals = hash_ids([t.user_id for t in transactions]), hash_ids([t.terminal_id for t in transactions])
        times = to_ms_array([t.occurred_at for t in transactions])
        numbers = _numbers(transactions, [name for name in layout.stored if name != TERMINAL])
        currencies = [t.currency for t in transactions]
        payloads = payloads_of(transactions, users, terminals, times, amounts, currencies)
        amounts = rates.to_base(amounts, currencies, times)
        without_history = [row for row, t in enumerate(transactions) if t.kind != PURCHASE]
        users[without_history] = terminals[without_history] = MISSING_ID
        return cls(
            hash_ids([t.transaction_id for t in transactions]),
            users,
            terminals,
            times,
            amounts,
            minor_units(np.nan_to_num(amounts)),
            stored_bits(layout, terminals, numbers),
            payloads,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.generic]) -> Columns:
        """The columns of *rows* (indices or a mask)."""
        return Columns(
            self.ids[rows],
            self.users[rows],
            self.terminals[rows],
            self.times[rows],
            self.amounts[rows],
            self.minor[rows],
            self.stored[:, rows],
            self.payloads[rows],
        )


def attribute_matrix(transactions: Sequence[TransactionReceived], layout: FeatureLayout) -> Matrix:
    """The raw columns of *transactions* in layout order, NaN where missing, shape (n, len(layout.attributes))."""
    return _numbers(transactions, layout.attributes)


def stored_bits(layout: FeatureLayout, terminals: Hashes, numbers: Matrix) -> Int64s:
    """``Columns.stored``. *numbers*: the stored attributes in their order, shape (n, numeric columns stored)."""
    bits = np.empty((len(layout.stored), len(terminals)), np.int64)
    numeric = iter(np.ascontiguousarray(numbers.T))
    for at, name in enumerate(layout.stored):
        bits[at] = (terminals if name == TERMINAL else next(numeric)).view(np.int64)
    return bits


def _numbers(transactions: Sequence[TransactionReceived], names: Sequence[str]) -> Matrix:
    matrix = np.full((len(transactions), len(names)), np.nan)
    given = [n for n, t in enumerate(transactions) if t.attributes] if names else []
    if given:
        values = [transactions[n].attributes for n in given]
        try:
            pick = itemgetter(*names)
            matrix[given] = np.array([pick(v) for v in values], dtype=np.float64).reshape(len(given), len(names))
        except KeyError:
            matrix[given] = np.array([[v.get(name) for name in names] for v in values], dtype=np.float64)
    return matrix


def assemble(columns: Columns, users: Matrix, terminals: Matrix, attributes: Matrix) -> Matrix:
    """The feature matrix, shape (n, k), of the layout that *attributes* follow.

    Night: hour (UTC) <= 6. Weekend: Saturday and Sunday (UTC).

    Args:
        users: From ``UserState``, base features before extra ones.
        terminals: From ``TerminalState``, base features before extra ones.
        attributes: From ``attribute_matrix``.
    """
    parts = (users[:, len(USER_FEATURES) :], terminals[:, len(TERMINAL_FEATURES) :], attributes)
    matrix = np.empty((len(columns), _EXTRA_AT + sum(part.shape[1] for part in parts)))
    of_transaction = (
        columns.amounts,
        columns.times % DAY_MS // HOUR_MS <= _LAST_NIGHT_HOUR,
        (columns.times // DAY_MS + _THURSDAY) % 7 >= _SATURDAY,
    )
    for at, (_name, values) in enumerate(zip(TRANSACTION_FEATURES, of_transaction, strict=True)):
        matrix[:, at] = values
    matrix[:, _USERS_AT:_TERMINALS_AT] = users[:, : len(USER_FEATURES)]
    matrix[:, _TERMINALS_AT:_EXTRA_AT] = terminals[:, : len(TERMINAL_FEATURES)]
    matrix[:, _EXTRA_AT:] = np.concatenate(parts, axis=1)
    return matrix
