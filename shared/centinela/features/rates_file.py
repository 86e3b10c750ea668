"""Reads the table of exchange rates: CSV with the columns ``date``, ``currency`` and ``rate``."""

from __future__ import annotations

import csv
import math
import re
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from centinela.errors import CentinelaError
from centinela.features.currency import Rates, RateSeries
from centinela.settings import Settings
from centinela.times import to_ms

_COLUMNS = ("date", "currency", "rate")
_CODE = re.compile("[A-Z]{3}")
_LEAST, _MOST = 1e-9, 1e5
"""Beyond these a rate is a mistake, and amounts in hundredths could leave 64 bits."""


class RatesError(CentinelaError):
    """The table of rates cannot be used; the message names the line."""


def rates_of(settings: Settings) -> Rates:
    """The rates of *settings*: ``base_currency`` and ``rates_file``.

    Raises:
        RatesError: They cannot be used.
    """
    return (
        load_rates(settings.rates_file, settings.base_currency)
        if settings.rates_file
        else Rates(settings.base_currency)
    )


def load_rates(path: Path, base: str) -> Rates:
    """The rates of the CSV file at *path*: what one unit of ``currency`` is worth in *base* from ``date`` on.

    Raises:
        RatesError: The file cannot be read, or a line is not a rate.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RatesError(
            f"cannot read {path}: {error}; set CENTINELA_RATES_FILE to a CSV file, or not at all"
        ) from error
    if not lines or tuple(lines[0][1]) != _COLUMNS:
        raise RatesError(f"{path}, line 1: expected the header {','.join(_COLUMNS)}")
    found: dict[str, dict[int, float]] = {}
    for number, row in lines[1:]:
        currency, start, rate = _rate(f"{path}, line {number}", row, base)
        if start in found.setdefault(currency, {}):
            raise RatesError(f"{path}, line {number}: a second rate of {currency} on {row[0]}")
        found[currency][start] = rate
    return Rates(
        base,
        {
            currency: RateSeries(np.array(sorted(rates)), np.array([rates[start] for start in sorted(rates)]))
            for currency, rates in found.items()
        },
    )


def _rate(place: str, row: list[str], base: str) -> tuple[str, int, float]:
    """Currency, start (ms) and rate of a line."""
    if len(row) != len(_COLUMNS):
        raise RatesError(f"{place}: expected 3 values ({', '.join(_COLUMNS)}), got {len(row)}")
    day, currency, text = (value.strip() for value in row)
    if not _CODE.fullmatch(currency):
        raise RatesError(f"{place}: currency {currency!r} is not a code of three capitals, such as USD")
    if currency == base:
        raise RatesError(f"{place}: {base} is the base currency (CENTINELA_BASE_CURRENCY) and needs no rate")
    try:
        start = to_ms(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC))
    except ValueError as error:
        raise RatesError(f"{place}: date {day!r} is not a date such as 2026-01-31") from error
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not _LEAST <= rate <= _MOST:
        raise RatesError(
            f"{place}: rate {text!r}: expected what 1 {currency} is worth in {base}, a number between {_LEAST:g} and"
            f" {_MOST:g} with a decimal point"
        )
    return currency, start, rate
