"""The two ways to a training set's features: as they were served ("log and wait"), or recomputed from the archived
transactions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import duckdb
import pandas as pd
import pyarrow as pa

from centinela.errors import DependencyUnavailable
from centinela.events import PURCHASE
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela.times import to_us
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore
from centinela_trainer.skew.compare import REACH_DAYS

Features = Literal["served", "recomputed"]
INSTANT = "datetime64[us, UTC]"


def read_features(
    reader: ArchiveReader, layout: FeatureLayout, start: datetime, as_of: datetime, features: Features
) -> pa.Table:
    """Transactions with *start* <= event time <= *as_of*, as ``dataset.assemble`` takes them.

    Args:
        features: ``served``: the vectors of the verdicts. ``recomputed``: what the batch form gives in the order of the
            log; for a feature that is newer than the history. Windows are whole; a user's transaction before may be
            missing where it is older than they reach.

    Raises:
        DependencyUnavailable: The archive changed while it was read.
    """
    return (
        reader.predictions(layout.names, start, as_of)
        if features == "served"
        else recomputed(reader.store, layout, start, as_of)
    )


def recomputed(store: ArchiveStore, layout: FeatureLayout, start: datetime, as_of: datetime) -> pa.Table:
    """``read_features`` by the batch form, each transaction once."""
    reach = start - timedelta(days=REACH_DAYS + 1)
    days = reach.astimezone(UTC).date(), as_of.astimezone(UTC).date()
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        try:
            transactions = _transactions(database, store, layout, days, reach, as_of)
            reports = _reports(database, store, days, as_of)
        except duckdb.IOException as error:
            raise DependencyUnavailable(
                f"the archive changed while it was read: {error}", dependency="archive"
            ) from error
    features = build_features(transactions, reports, layout, order="log")
    inside = (transactions["occurred_at"] >= start).to_numpy()
    if "kind" in transactions:
        inside &= (transactions["kind"].fillna(PURCHASE) == PURCHASE).to_numpy()
    kept = transactions[inside]
    occurred = kept["occurred_at"].dt.tz_localize(None).to_numpy("datetime64[us]").astype("int64")
    columns = {name: pa.array(kept[name], pa.string(), from_pandas=True) for name in ("transaction_id", "user_id")}
    return pa.table(
        columns | {"occurred_us": occurred} | {name: features[name].to_numpy()[inside] for name in layout.names}
    )


def _transactions(
    database: duckdb.DuckDBPyConnection,
    store: ArchiveStore,
    layout: FeatureLayout,
    days: tuple[date, date],
    first: datetime,
    last: datetime,
) -> pd.DataFrame:
    kinds = {
        "transaction_id": "object",
        "user_id": "object",
        "terminal_id": "object",
        "occurred_at": INSTANT,
        "amount": "float64",
    }
    if not _view(database, "verdicts", store.files(PREDICTIONS, *days), (*kinds, "kind", *layout.attributes)):
        return _empty(kinds)
    found: pd.DataFrame = database.execute(
        """
        SELECT * EXCLUDE (kept, "partition", "offset") FROM verdicts WHERE epoch_us(occurred_at) BETWEEN $1 AND $2
        QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY kept DESC, "partition", "offset") = 1
        ORDER BY kept DESC, "partition", "offset" """,
        [to_us(first), to_us(last)],
    ).df()
    return found


def _reports(
    database: duckdb.DuckDBPyConnection, store: ArchiveStore, days: tuple[date, date], as_of: datetime
) -> pd.DataFrame:
    kinds = {"transaction_id": "object", "is_fraud": "bool", "occurred_at": INSTANT, "reported_at": INSTANT}
    if not _view(database, "reports", store.files(LABELS, *days), tuple(kinds)):
        return _empty(kinds)
    found: pd.DataFrame = database.execute(
        """
        SELECT * EXCLUDE (kept, "partition", "offset") FROM reports WHERE epoch_us(reported_at) <= $1
        ORDER BY kept DESC, "partition", "offset" """,
        [to_us(as_of)],
    ).df()
    return found


def _view(database: duckdb.DuckDBPyConnection, name: str, files: list[Path], columns: tuple[str, ...]) -> bool:
    """Make *columns* and the log position of *files* the view *name*; False where there are no files.

    ``kept``: from a topic that was created again since, so before all others.
    """
    if not files:
        return False
    archived = database.read_parquet(
        [str(path) for path in files], union_by_name=True, hive_partitioning=False, filename=True
    )
    selected = [
        duckdb.ColumnExpression(column) for column in (*columns, "partition", "offset") if column in archived.columns
    ]
    archived.select(*selected, duckdb.SQLExpression("contains(filename, '.kept') AS kept")).create_view(name)
    return True


def _empty(kinds: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in kinds.items()})
