"""Features by their definition, as SQL over the whole table. Shares no code with the product, so that either can find
the other wrong.

Every window is a join of each transaction with all the others that could be in it: quadratic per user and terminal, and
plain. It is right where a user's transactions are at most two days late; past that the product forgets, and this does
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import duckdb
import pandas as pd

HOUR = 3_600_000
DAY = 24 * HOUR
LABEL_MARGIN = HOUR


class ExtraFeature(Protocol):
    """A feature in addition to the base ones; durations in ms."""

    @property
    def name(self) -> str: ...
    @property
    def entity(self) -> str: ...
    @property
    def aggregation(self) -> str: ...
    @property
    def column(self) -> str: ...
    @property
    def window_ms(self) -> int: ...
    @property
    def delay_ms(self) -> int: ...


_BASE_USER = [
    *((f"user_{what}_{days}d", what, "amount", days * DAY, 0) for days in (1, 7, 30) for what in ("count", "mean")),
    ("user_max_30d", "max", "amount", 30 * DAY, 0),
    ("user_seconds_since_last", "seconds_since_last", "amount", 10_000 * DAY, 0),
]
_BASE_TERMINAL = [
    (f"terminal_{what}_{days}d", aggregation, days * DAY, 7 * DAY)
    for days in (1, 7, 30)
    for what, aggregation in (("count", "count"), ("risk", "fraud_share"))
]
_KEPT_MS = 32 * 86_400_000
"""A user's transaction that is this much older than the newest one before in the order is forgotten."""
_USER_SQL = {
    "count": "count({b})",
    "sum": "sum({b})",
    "mean": "avg({b})",
    "max": "max({b})",
    "min": "min({b})",
    "std": "stddev_samp({b})",
    "distinct": "count(DISTINCT {b})",
    "seconds_since_last": f"(a.ms - max(b.ms) FILTER (WHERE b.seq <> a.seq AND b.ms > a.newest - {_KEPT_MS})) / 1000.0",
    "ratio_to_mean": "{a} / nullif(avg({b}), 0)",
}
_TERMINAL_SQL = {"count": "count(b.seq)", "fraud_share": "coalesce(count(f.id) / nullif(count(b.seq), 0), 0)"}


def independent_features(
    transactions: pd.DataFrame, labels: pd.DataFrame, extra: Sequence[ExtraFeature] = (), *, order: str = "time"
) -> pd.DataFrame:
    """The base features, those of *extra*, and the columns is_night and is_weekend, on the index of *transactions*.

    Args:
        transactions: transaction_id, user_id, terminal_id, occurred_at, amount, the numeric columns that *extra*
            looks at, and optionally kind: what is not a purchase sees no window and is in none.
        labels: transaction_id, is_fraud, reported_at, in the order in which they were read.
        order: ``time`` (then id) or ``log`` (as the rows stand): what came before what.
    """
    table = transactions.reset_index(drop=True)
    table = table.assign(ms=_ms(table["occurred_at"]), row=table.index, minor=(table["amount"] * 100).round() / 100)
    if order == "time":
        table = table.sort_values(["ms", "transaction_id"])
    table = table.drop(columns="occurred_at").assign(seq=range(len(table)))
    if "kind" not in table:
        table["kind"] = "purchase"
    reports = pd.DataFrame(
        {
            "id": labels["transaction_id"].astype(object),
            "is_fraud": labels["is_fraud"].astype(bool),
            "reported": _ms(labels["reported_at"]),
            "pos": range(len(labels)),
        }
    )
    with duckdb.connect() as db:
        db.execute("SET preserve_insertion_order = false")
        db.register("given", table)
        db.register("reports", reports)
        db.execute(
            "CREATE TABLE t AS SELECT * REPLACE (minor AS amount), max(ms) FILTER (kind = 'purchase')"
            " OVER (PARTITION BY user_id ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest"
            " FROM given"
        )
        _make_frauds(db)
        parts = [
            db.sql(
                "SELECT row, ((ms % 86400000) // 3600000 <= 6)::DOUBLE AS is_night, "
                "(dayofweek(make_timestamp(ms * 1000)) IN (0, 6))::DOUBLE AS is_weekend FROM t ORDER BY row",
            ).df()
        ]
        users = [
            *_BASE_USER,
            *((f.name, f.aggregation, f.column, f.window_ms, f.delay_ms) for f in extra if f.entity == "user"),
        ]
        for window, delay in sorted({(w, d) for *_, w, d in users}):
            parts.append(_users(db, window, delay, [(n, a, c) for n, a, c, w, d in users if (w, d) == (window, delay)]))
        terminals = [
            *_BASE_TERMINAL,
            *((f.name, f.aggregation, f.window_ms, f.delay_ms) for f in extra if f.entity == "terminal"),
        ]
        for window, delay in sorted({(w, d) for *_, w, d in terminals}):
            parts.append(
                _terminals(db, window, delay, [(n, a) for n, a, w, d in terminals if (w, d) == (window, delay)])
            )
    result = pd.concat([part.drop(columns="row") for part in parts], axis=1)
    result.index = transactions.index
    features: pd.DataFrame = result.astype(float)
    return features


def _make_frauds(db: duckdb.DuckDBPyConnection) -> None:
    """``frauds``: from when until when a transaction counts as fraud, by the reports that were not older than one
    before."""
    db.execute(f"""
        CREATE TABLE frauds AS
        WITH marked AS (
            SELECT *, max(reported) OVER (PARTITION BY id ORDER BY pos
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest
            FROM reports
        ), taken AS (SELECT * FROM marked WHERE newest IS NULL OR reported >= newest)
        , spans AS (
            SELECT id, is_fraud, reported + {LABEL_MARGIN} AS since,
                lead(reported) OVER (PARTITION BY id ORDER BY pos) + {LABEL_MARGIN} AS until FROM taken
        )
        SELECT id, since, coalesce(until, 9223372036854775807) AS until FROM spans WHERE is_fraud
    """)  # noqa: S608


def _users(db: duckdb.DuckDBPyConnection, window: int, delay: int, wanted: list[tuple[str, str, str]]) -> pd.DataFrame:
    columns = ", ".join(
        "CASE WHEN a.user_id IS NULL OR a.kind <> 'purchase' THEN NULL ELSE"
        f' {_USER_SQL[aggregation].format(a=f"any_value(a.{column})", b=f"b.{column}")} END AS "{name}"'
        for name, aggregation, column in wanted
    )
    rows: pd.DataFrame = db.sql(f"""
        SELECT a.row, {columns} FROM t a
        LEFT JOIN t b ON b.user_id = a.user_id AND b.seq <= a.seq AND b.ms <= a.ms - {delay}
            AND b.ms > a.ms - {delay + window} AND b.kind = 'purchase'
        GROUP BY a.row, a.user_id, a.kind, a.ms, a.seq, a.newest ORDER BY a.row
    """).df()  # noqa: S608
    return rows


def _terminals(db: duckdb.DuckDBPyConnection, window: int, delay: int, wanted: list[tuple[str, str]]) -> pd.DataFrame:
    columns = ", ".join(
        f"CASE WHEN a.terminal_id IS NULL OR a.kind <> 'purchase' THEN NULL ELSE {_TERMINAL_SQL[aggregation]} END"
        f' AS "{name}"'
        for name, aggregation in wanted
    )
    rows: pd.DataFrame = db.sql(f"""
        SELECT a.row, {columns} FROM t a
        LEFT JOIN t b ON b.terminal_id = a.terminal_id AND b.ms <= a.ms - {delay}
            AND b.ms > a.ms - {delay + window} AND b.kind = 'purchase'
        LEFT JOIN frauds f ON f.id = b.transaction_id AND f.since <= a.ms AND a.ms < f.until
        GROUP BY a.row, a.terminal_id, a.kind ORDER BY a.row
    """).df()  # noqa: S608
    return rows


def _ms(instants: pd.Series) -> pd.Series:
    return (pd.to_datetime(instants, utc=True) - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(1, "ms")
