"""Windowed features: the base features, one line each, and the rules for others.

A window of W with delay D covers ``(t - D - W, t - D]`` of the entity's transactions, including the transaction itself
if D is 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from centinela.events import TransactionScored
from centinela.times import DAY_MS, HOUR_MS, MINUTE_MS

Entity = Literal["user", "terminal"]
LONGEST_MS = 30 * DAY_MS
"""A window and its delay reach at most this far back (for a terminal, on top of its minimum delay)."""
TERMINAL_DELAY_MS = 7 * DAY_MS
UNBOUNDED = 0
"""The window of a base feature that reaches back as far as the state does."""
USER_AGGREGATIONS = ("count", "sum", "mean", "max", "min", "std", "distinct", "seconds_since_last", "ratio_to_mean")
TERMINAL_AGGREGATIONS = ("count", "fraud_share")
AMOUNT, TERMINAL = "amount", "terminal_id"
_TAKES_NO_COLUMN = ("seconds_since_last",)
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMN = re.compile(r"[A-Za-z0-9_.-]+")
_UNITS_MS = {"d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(\d{1,15})(ms|s|m|h|d)")
_TEXT = re.compile(
    r"(?P<name>\w+)=(?P<entity>\w+)\.(?P<aggregation>\w+)\((?P<column>[^,()]+),(?P<window>\w+)(,(?P<delay>\w+))?\)"
)
_TAKEN = frozenset((*TransactionScored.__struct_fields__, "topic", "partition", "offset"))


@dataclass(frozen=True, slots=True)
class Feature:
    """One number read from a window of an entity's transactions.

    ``column``: ``amount``, a numeric attribute, or (``distinct`` only) ``terminal_id``. ``window_ms``, ``delay_ms``:
    milliseconds.

    Raises:
        ValueError: The combination is not allowed; the message says what is.
    """

    name: str
    entity: Entity
    aggregation: str
    window_ms: int
    column: str = AMOUNT
    delay_ms: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} needs lower-case letters, digits and _, beginning with a letter")
        if self.name in _TAKEN:
            raise ValueError(f"name {self.name!r} is a field of the verdict: choose another")
        allowed = {"user": USER_AGGREGATIONS, "terminal": TERMINAL_AGGREGATIONS}.get(self.entity)
        if allowed is None:
            raise ValueError(f"entity {self.entity!r} is neither user nor terminal")
        if self.aggregation not in allowed:
            raise ValueError(f"aggregation {self.aggregation!r} of a {self.entity} is not one of {', '.join(allowed)}")
        self._check_column()
        self._check_window()

    @property
    def text(self) -> str:
        """The feature on one line; ``parse_feature`` reads it."""
        delay = f",{duration_text(self.delay_ms)}" if self.delay_ms else ""
        return f"{self.name}={self.entity}.{self.aggregation}({self.column},{duration_text(self.window_ms)}{delay})"

    def _check_column(self) -> None:
        if not _COLUMN.fullmatch(self.column):
            raise ValueError(f"column {self.column!r} needs letters, digits, _, . and - only")
        if self.column != AMOUNT and (self.entity == "terminal" or self.aggregation in _TAKES_NO_COLUMN):
            raise ValueError(f"aggregation {self.aggregation!r} of a {self.entity} takes no column")
        if self.column == TERMINAL and self.aggregation != "distinct":
            raise ValueError(f"column {TERMINAL} is not a number: only distinct can use it, not {self.aggregation}")

    def _check_window(self) -> None:
        if self.window_ms < 0 or self.delay_ms < 0:
            raise ValueError("a window or a delay cannot be negative")
        least = TERMINAL_DELAY_MS if self.entity == "terminal" else 0
        if self.delay_ms < least:
            raise ValueError(
                f"delay {duration_text(self.delay_ms)} of a terminal is less than {duration_text(least)}: partitions"
                " are only kept that close in event time, so a window with a later end would miss"
                " some of them",
            )
        if self.window_ms + self.delay_ms > LONGEST_MS + least:
            longest = duration_text(LONGEST_MS + least)
            raise ValueError(
                f"window {duration_text(self.window_ms)} with its delay reaches further back than {longest}: nothing"
                " older is kept"
            )


BASE_USER = (
    Feature("user_count_1d", "user", "count", DAY_MS),
    Feature("user_mean_1d", "user", "mean", DAY_MS),
    Feature("user_count_7d", "user", "count", 7 * DAY_MS),
    Feature("user_mean_7d", "user", "mean", 7 * DAY_MS),
    Feature("user_count_30d", "user", "count", 30 * DAY_MS),
    Feature("user_mean_30d", "user", "mean", 30 * DAY_MS),
    Feature("user_max_30d", "user", "max", 30 * DAY_MS),
    Feature("user_seconds_since_last", "user", "seconds_since_last", UNBOUNDED),
)
BASE_TERMINAL = (
    Feature("terminal_count_1d", "terminal", "count", DAY_MS, delay_ms=TERMINAL_DELAY_MS),
    Feature("terminal_risk_1d", "terminal", "fraud_share", DAY_MS, delay_ms=TERMINAL_DELAY_MS),
    Feature("terminal_count_7d", "terminal", "count", 7 * DAY_MS, delay_ms=TERMINAL_DELAY_MS),
    Feature("terminal_risk_7d", "terminal", "fraud_share", 7 * DAY_MS, delay_ms=TERMINAL_DELAY_MS),
    Feature("terminal_count_30d", "terminal", "count", 30 * DAY_MS, delay_ms=TERMINAL_DELAY_MS),
    Feature("terminal_risk_30d", "terminal", "fraud_share", 30 * DAY_MS, delay_ms=TERMINAL_DELAY_MS),
)


def parse_feature(text: str) -> Feature:
    """The feature whose ``text`` is *text*.

    Raises:
        ValueError: *text* is not a feature, or not an allowed one.
    """
    match = _TEXT.fullmatch(text)
    if not match:
        raise ValueError(f"feature {text[:80]!r} is not of the form name=entity.aggregation(column,window[,delay])")
    delay = 0 if match["delay"] is None else parse_duration(match["delay"])
    entity: Entity = match["entity"]  # type: ignore[assignment]
    return Feature(match["name"], entity, match["aggregation"], parse_window(match["window"]), match["column"], delay)


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as ``30s``, ``15m``, ``1h``, ``7d``.

    Raises:
        ValueError: It is not one.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration: give a whole number and a unit, such as 30s, 15m, 1h or 7d")
    return int(match[1]) * _UNITS_MS[match[2]]


def parse_window(text: str) -> int:
    """Milliseconds of a window's length: a duration above 0.

    Raises:
        ValueError: It is not one.
    """
    if not (window := parse_duration(text)):
        raise ValueError("a window needs a length: give at least 1s")
    return window


def duration_text(milliseconds: int) -> str:
    """The shortest text that ``parse_duration`` reads as *milliseconds*."""
    unit = next(unit for unit, size in _UNITS_MS.items() if milliseconds % size == 0)
    return f"{milliseconds // _UNITS_MS[unit]}{unit}"
