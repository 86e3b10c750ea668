"""The stream, day by day. A day depends on the profile and its own number only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from centinela.datasets.simulator.population import build_population
from centinela.datasets.simulator.profile import CARD_TESTING_ATTACKS_PER_CUSTOMER, Drift, Profile
from centinela.times import index_from_ms

COLUMNS = ("transaction_id", "occurred_at", "user_id", "terminal_id", "amount", "is_fraud", "scenario", "reported_at")
DAY_S = 86_400
GENUINE, AMOUNT, TERMINAL, CARD, CARD_TESTING = range(5)
_PAST = 1_000
_COVARIATE_RAMP_DAYS, _COVARIATE_GROWTH, _COVARIATE_SHIFT_S = 21, 0.5, 3 * 3_600
_SEASON_SURPLUS = 0.5
_STREAM = {"shopping": 1, "terminals": 2, "cards": 3, "takeover": 4, "card_testing": 5, "labels": 6}


class Simulation:
    """Makes days of transactions. Simulations with equal profiles make equal days, in any order."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._people = build_population(profile)
        self._epoch_s = int(
            datetime(profile.start.year, profile.start.month, profile.start.day, tzinfo=UTC).timestamp()
        )

    def days(self, count: int, first: int = 0) -> Iterator[pd.DataFrame]:
        """*count* days from day *first* on, one frame each."""
        return (self.day(number) for number in range(first, first + count))

    def day(self, number: int) -> pd.DataFrame:
        """Day *number* (0 is ``profile.start``), ascending in time, with the columns ``COLUMNS``.

        ``occurred_at`` and ``reported_at`` are UTC; ``reported_at`` is the time of the fraud report, NaT for genuine
        transactions and for frauds that are never reported. ``scenario``: 0 genuine, 1 amount, 2 terminal, 3 card,
        4 card testing.
        """
        shopping, testing = self._shopping(number), self._card_testing(number)
        customer, terminal, second, amount, scenario = (
            np.concatenate(pair) for pair in zip(shopping, testing, strict=True)
        )
        order = np.lexsort((np.arange(len(second)), second))
        customer, terminal, second, amount, scenario = (
            column[order] for column in (customer, terminal, second, amount, scenario)
        )
        is_fraud = scenario > GENUINE
        start_ms = (self._epoch_s + number * DAY_S) * 1_000
        occurred_ms = start_ms + np.floor(second * 1_000).astype(np.int64)
        prefix = f"s{self.profile.seed}-{number:05d}-"
        return pd.DataFrame(
            {
                "transaction_id": [f"{prefix}{n:06d}" for n in range(len(order))],
                "occurred_at": index_from_ms(occurred_ms),
                "user_id": self._people.user_ids[customer],
                "terminal_id": self._people.terminal_ids[terminal],
                "amount": amount,
                "is_fraud": is_fraud,
                "scenario": scenario.astype(np.int8),
                "reported_at": self._reported(number, occurred_ms, is_fraud),
            }
        )

    def _rng(self, stream: str, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.profile.seed, _STREAM[stream], number + _PAST]))

    def _drift(self, name: str, number: int) -> Drift | None:
        return next((d for d in self.profile.drifts if d.name == name and d.active(number)), None)

    def _shopping(self, number: int) -> tuple[NDArray[np.generic], ...]:
        """Ordinary payments, with frauds 1 to 3: customer, terminal, second of the day, amount, scenario."""
        rng, people = self._rng("shopping", number), self._people
        season, covariate = self._drift("season", number), self._drift("covariate", number)
        volume = 1 + _SEASON_SURPLUS * season.strength if season else 1.0
        ramp = (
            min(1.0, (number - covariate.start + 1) / _COVARIATE_RAMP_DAYS) * covariate.strength if covariate else 0.0
        )
        customer = np.repeat(np.arange(self.profile.customers), rng.poisson(people.rate * volume))
        second = rng.normal(DAY_S / 2 + _COVARIATE_SHIFT_S * ramp, 20_000, len(customer))
        inside = (second > 0) & (second < DAY_S)
        customer, second = customer[inside], second[inside]
        mean = people.mean_amount[customer] * (1 + _COVARIATE_GROWTH * ramp)
        amount = rng.normal(mean, mean / 2)
        amount = np.where(amount < 0, rng.uniform(0, 2 * mean), amount)
        pick = (rng.random(len(customer)) * people.reachable[customer]).astype(np.int64)
        terminal = people.terminals[people.first[customer] + pick]

        scenario = np.where(amount > mean * (1 + self.profile.amount_rule / 2), AMOUNT, GENUINE)
        profile = self.profile
        bad_terminals = self._compromised(
            "terminals", profile.terminals, profile.compromised_terminals_per_day, profile.terminal_days, number
        )
        scenario[np.isin(terminal, bad_terminals)] = TERMINAL
        taken_over = np.isin(
            customer,
            self._compromised("cards", profile.customers, profile.compromised_cards_per_day, profile.card_days, number),
        )
        taken_over &= self._rng("takeover", number).random(len(customer)) < 1 / 3
        scenario[taken_over] = CARD
        amount = np.where(taken_over, amount * 5, amount)
        return customer, terminal, second, np.round(amount, 2), scenario

    def _compromised(
        self, stream: str, population: int, per_day: float, lasting: int, number: int
    ) -> NDArray[np.int64]:
        """The customers or terminals compromised on day *number* or the ``lasting - 1`` days before it. Fractions add
        up over the days."""
        rate = per_day * population
        compromised = []
        for day in range(number - lasting + 1, number + 1):
            count = int(np.floor((day + _PAST + 1) * rate)) - int(np.floor((day + _PAST) * rate))
            if count:
                compromised.append(self._rng(stream, day).integers(0, population, count))
        return np.concatenate(compromised) if compromised else np.empty(0, dtype=np.int64)

    def _card_testing(self, number: int) -> tuple[NDArray[np.generic], ...]:
        """Bursts of 8 to 20 payments of 0.5 to 4 within 20 minutes on one card, at terminals anywhere."""
        drift, rng = self._drift("card_testing", number), self._rng("card_testing", number)
        expected = CARD_TESTING_ATTACKS_PER_CUSTOMER * self.profile.customers * drift.strength if drift else 0.0
        attacks = rng.poisson(expected)
        sizes = rng.integers(8, 21, attacks)
        total = int(sizes.sum())
        starts = rng.uniform(0, DAY_S - 1_200, attacks)
        return (
            np.repeat(rng.integers(0, self.profile.customers, attacks), sizes),
            rng.integers(0, self.profile.terminals, total),
            np.repeat(starts, sizes) + rng.uniform(0, 1_200, total),
            np.round(rng.uniform(0.5, 4, total), 2),
            np.full(total, CARD_TESTING),
        )

    def _reported(self, number: int, occurred_ms: NDArray[np.int64], is_fraud: NDArray[np.bool_]) -> pd.DatetimeIndex:
        rng = self._rng("labels", number)
        lag_ms = np.round(rng.triangular(*self.profile.label_lag_days, len(occurred_ms)) * DAY_S * 1_000).astype(
            np.int64
        )
        reported = is_fraud & (rng.random(len(occurred_ms)) >= self.profile.unreported_share)
        stamps = (occurred_ms + lag_ms).astype("datetime64[ms]")
        return pd.DatetimeIndex(np.where(reported, stamps, np.datetime64("NaT"))).tz_localize("UTC")
