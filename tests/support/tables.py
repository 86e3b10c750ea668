"""Rows of a table by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd


def rows_of(table: pd.DataFrame) -> Iterable[Any]:
    """The rows of *table* with its columns as attributes, which the types of pandas cannot express."""
    return table.itertuples()
