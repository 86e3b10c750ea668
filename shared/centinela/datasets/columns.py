"""Transactions as columns: the form in which files and the simulator produce them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from centinela.events import DEFAULT_CURRENCY, PURCHASE
from centinela.times import series_to_ms

NEVER = np.int64(-1)


@dataclass(frozen=True)
class Transactions:
    """*n* transactions in the order in which they are sent.

    Shapes: all columns (n,), ``attributes`` (n, len(attribute_names)) with NaN for a missing value. Times are
    milliseconds since the epoch; ``reported_ms`` is ``NEVER`` if no label will be reported.
    """

    transaction_id: NDArray[np.object_]
    occurred_ms: NDArray[np.int64]
    user_id: NDArray[np.object_]
    terminal_id: NDArray[np.object_]
    amount: NDArray[np.float64]
    currency: NDArray[np.object_]
    kind: NDArray[np.object_]
    attribute_names: tuple[str, ...]
    attributes: NDArray[np.float64]
    is_fraud: NDArray[np.bool_]
    reported_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.transaction_id)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, currency: str = DEFAULT_CURRENCY) -> Transactions:
        """From a day of the simulator (``simulator.COLUMNS``), with amounts in *currency*."""
        reported = frame["reported_at"]
        return cls(
            transaction_id=frame["transaction_id"].to_numpy(object),
            occurred_ms=series_to_ms(frame["occurred_at"]),
            user_id=frame["user_id"].to_numpy(object),
            terminal_id=frame["terminal_id"].to_numpy(object),
            amount=frame["amount"].to_numpy(np.float64),
            currency=np.full(len(frame), currency, dtype=object),
            kind=np.full(len(frame), PURCHASE, dtype=object),
            attribute_names=(),
            attributes=np.empty((len(frame), 0)),
            is_fraud=frame["is_fraud"].to_numpy(bool),
            reported_ms=np.where(reported.notna().to_numpy(), series_to_ms(reported), NEVER),
        )
