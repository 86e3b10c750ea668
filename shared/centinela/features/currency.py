"""Amounts in one currency, the base currency, by a table of dated rates.

A rate holds from midnight (UTC) of its date until the next one of its currency. Amounts in the base currency stay as
they are; others are rounded to hundredths of it. There is no rate before a currency's first date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from centinela.errors import CentinelaError
from centinela.events import DEFAULT_CURRENCY
from centinela.features.keys import Int64s
from centinela.times import from_ms

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RateSeries:
    """The rates of one currency: ``starts`` ascending, ms since 1970; ``rates``, units of the base currency for one;
    each of shape (n,)."""

    starts: Int64s
    rates: Floats

    def at(self, times: Int64s) -> Floats:
        """The rate at each of *times*, NaN before the first."""
        place = np.searchsorted(self.starts, times, side="right") - 1
        return np.where(place >= 0, self.rates[np.maximum(place, 0)], np.nan)


@dataclass(frozen=True)
class Rates:
    """The base currency, and the rates of the others; without any, every amount is in the base currency."""

    base: str = DEFAULT_CURRENCY
    series: Mapping[str, RateSeries] = field(default_factory=dict)

    def to_base(self, amounts: Floats, currencies: Sequence[str], times: Int64s) -> Floats:
        """*amounts* in the base currency, NaN where there is no rate; all of shape (n,)."""
        others = set(currencies) - {self.base}
        if not others:
            return amounts
        codes = np.array(currencies)
        result = np.where(codes == self.base, amounts, np.nan)
        for code in others & self.series.keys():
            rows = codes == code
            result[rows] = np.rint(amounts[rows] * self.series[code].at(times[rows]) * 100.0) / 100.0
        return result

    def all_to_base(self, amounts: Floats, currencies: Sequence[str], times: Int64s) -> Floats:
        """``to_base`` where each must have a rate.

        Raises:
            CentinelaError: One has none.
        """
        converted = self.to_base(amounts, currencies, times)
        if (rows := np.flatnonzero(np.isnan(converted))).size:
            raise CentinelaError(self.missing(currencies[rows[0]], int(times[rows[0]])) or "an amount is not a number")
        return converted

    def missing(self, currency: str, time_ms: int) -> str | None:
        """Why an amount in *currency* at *time_ms* cannot be used, and what to do; None where there is a rate."""
        if currency == self.base:
            return None
        series = self.series.get(currency)
        if series is None:
            problem = f"no rate from {currency} to {self.base}"
        elif time_ms < series.starts[0]:
            problem = f"no rate from {currency} to {self.base} before {from_ms(int(series.starts[0])).date()}"
        else:
            return None
        return (
            f"{problem}: add it to the file of CENTINELA_RATES_FILE, or set CENTINELA_BASE_CURRENCY where all amounts"
            " are in another currency"
        )


BASE_ONLY = Rates()
"""The default currency alone."""
