"""The parameters of a simulation: population, frauds, labels and drift."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

DriftName = Literal["card_testing", "covariate", "season"]
CARD_TESTING_ATTACKS_PER_CUSTOMER = 1.2 / 1500
_DRIFT = re.compile(r"^(?P<name>[a-z_]+)@(?P<start>\d+)(?:-(?P<end>\d+))?(?::(?P<strength>\d+(?:\.\d+)?))?$")
_DURATION: dict[str, int | None] = {"card_testing": None, "covariate": None, "season": 28}


@dataclass(frozen=True)
class Drift:
    """A change that starts on day *start* and ends before day *end* (None: never).

    ``card_testing``: a new fraud pattern, short bursts of tiny payments on a hijacked card; *strength* multiplies the
    attacks a day. ``covariate``: amounts grow to 1.5 times and shopping moves three hours later, over 21 days;
    *strength* multiplies the growth. ``season``: 1.5 times the volume; *strength* multiplies the surplus.
    """

    name: DriftName
    start: int
    end: int | None = None
    strength: float = 1.0

    def active(self, day: int) -> bool:
        return self.start <= day and (self.end is None or day < self.end)


@dataclass(frozen=True)
class Profile:
    """All parameters of a simulated stream. Frauds a day scale with the population, so that their share is constant."""

    seed: int = 0
    customers: int = 5_000
    terminals: int = 10_000
    start: date = date(2026, 1, 1)
    drifts: tuple[Drift, ...] = ()
    radius: float = 5.0
    amount_rule: float = 3.25
    """Scenario 1: fraud where the amount exceeds the customer's mean by this many standard deviations."""
    compromised_terminals_per_day: float = 2 / 10_000
    """Scenario 2: new ones a day, as a share of all terminals; each for ``terminal_days``."""
    terminal_days: int = 28
    compromised_cards_per_day: float = 3 / 5_000
    """Scenario 3: new ones a day, as a share of all customers; each for ``card_days``."""
    card_days: int = 14
    label_lag_days: tuple[float, float, float] = (4.0, 6.5, 7.5)
    """Minimum, mode and maximum of the delay of a fraud report (triangular)."""
    unreported_share: float = 0.05
    """Share of frauds that are never reported."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError("seed must be 0 or more")
        if self.customers < 1 or self.terminals < 1:
            raise ValueError("at least one customer and one terminal are needed")


def parse_drift(text: str) -> Drift:
    """A drift from ``NAME@START[-END][:STRENGTH]`` in days: ``card_testing@60``, ``season@30-58``, ``covariate@60:2``.

    Raises:
        ValueError: The text has another form, or names an unknown drift.
    """
    match = _DRIFT.match(text)
    if not match or match["name"] not in get_args(DriftName):
        raise ValueError(
            f"{text!r} is not a drift: write NAME@START[-END][:STRENGTH], NAME one of {', '.join(get_args(DriftName))}"
        )
    name, start = match["name"], int(match["start"])
    duration = _DURATION[name]
    end = int(match["end"]) if match["end"] else (start + duration if duration else None)
    if end is not None and end <= start:
        raise ValueError(f"{text!r} ends before it starts")
    return Drift(name, start, end, float(match["strength"] or 1.0))  # type: ignore[arg-type]
