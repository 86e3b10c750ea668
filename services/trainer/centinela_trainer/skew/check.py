"""The skew check on an archive: draws the sample, reads everything that its windows need, keeps the report."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from centinela.errors import DependencyUnavailable
from centinela.features.layout import FeatureLayout
from centinela.times import DAY_US, series_to_ms, to_us
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore
from centinela_trainer.params import SkewParams
from centinela_trainer.skew.compare import OTHER_LAYOUT, REACH_DAYS, compare, merged, reasons_not_to_judge, recompute
from centinela_trainer.skew.report import SkewReport, save

_KEPT = ".kept"
_POSITION = ("transaction_id", "partition", "offset")


class SkewCheck:
    """Checks the archive under *root*.

    Args:
        report_path: The newest report goes there, for the trainer's metrics page; None keeps it nowhere.
    """

    def __init__(self, root: Path, params: SkewParams, report_path: Path | None = None) -> None:
        self._store = ArchiveStore(root)
        self._params = params
        self._report_path = report_path

    def __call__(self, as_of: datetime | None = None) -> SkewReport | None:
        """Check vectors of the newest days up to *as_of* (by default all); None where the archive holds none.

        Raises:
            DependencyUnavailable: The archive changed while it was read.
        """
        files = _of_this_log(self._store.files(PREDICTIONS, last=as_of.astimezone(UTC).date() if as_of else None))
        if not files or self._params.sample == 0:
            return None
        with duckdb.connect() as database:
            try:
                report = self._report(_Archive(database, self._store, files, self._params.recent_days), as_of)
            except duckdb.IOException as error:
                raise DependencyUnavailable(
                    f"the archive changed while it was read: {error}", dependency="archive"
                ) from error
        if report is not None and self._report_path is not None:
            save(report, self._report_path)
        return report

    def _report(self, archive: _Archive, as_of: datetime | None) -> SkewReport | None:
        sample = archive.sample(self._params, as_of)
        if sample.empty:
            return None
        begins, not_judged, parts = archive.begins(), Counter[str](), []
        for feature_set, drawn in sample.groupby("feature_set", sort=False):
            try:
                layout = FeatureLayout.parse(str(feature_set))
            except ValueError:
                not_judged[OTHER_LAYOUT] += len(drawn)
                continue
            history = archive.history(drawn, layout)
            reasons = reasons_not_to_judge(series_to_ms(drawn["occurred_at"]), _moved(drawn, history), begins)
            not_judged.update(reason for reason in reasons if reason is not None)
            rows = drawn[pd.isna(reasons)]
            if rows.empty:
                continue
            ids = rows["transaction_id"].tolist()
            recomputed = recompute(history, archive.labels(history), layout, ids)
            parts.append(
                compare(
                    ids,
                    rows["origin"].to_numpy(dtype=object),
                    archive.served(ids, layout),
                    recomputed,
                    layout,
                    whole_log=begins is None,
                )
            )
        return merged(sample["occurred_at"].max().to_pydatetime(), len(sample), not_judged, parts)


class _Archive:
    """The verdicts in *files* and their labels, as the check reads them."""

    def __init__(
        self, database: duckdb.DuckDBPyConnection, store: ArchiveStore, files: list[Path], recent_days: float
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        database.execute("SET TimeZone = 'UTC'")
        since = date.fromisoformat(files[-1].parent.name.removeprefix("day=")) - timedelta(days=math.ceil(recent_days))
        self._recent = _relation(database, [path for path in files if path.parent.name >= f"day={since.isoformat()}"])
        self._recent.create_view("recent")

    def sample(self, params: SkewParams, as_of: datetime | None) -> pd.DataFrame:
        """Rows of the newest days: of each origin as many as *params* say, the same ones each time."""
        last = to_us(as_of) if as_of else None
        return self._frame(
            """
            WITH due AS (SELECT * FROM recent WHERE $1 IS NULL OR epoch_us(occurred_at) <= $1)
            SELECT transaction_id, user_id, terminal_id, occurred_at, origin, feature_set FROM due
            WHERE epoch_us(occurred_at) > (SELECT max(epoch_us(occurred_at)) FROM due) - $2
            QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY "partition", "offset") = 1
                AND row_number() OVER (PARTITION BY origin ORDER BY md5(transaction_id)) <= $3
            ORDER BY origin, transaction_id""",
            last,
            round(params.recent_days * DAY_US),
            params.sample,
        )

    def begins(self) -> int | None:
        """Event time, ms, at which the archive begins; None where it holds every partition from its first record on."""
        oldest: dict[str, Path] = {}
        for path in self._files:
            partition, first, _ = path.stem.rsplit("-", 2)
            if partition not in oldest or first < oldest[partition].stem.rsplit("-", 2)[1]:
                oldest[partition] = path
        _relation(self._database, list(oldest.values())).create_view("oldest")
        [(first_offset, time)] = self._database.execute("""
            SELECT max("offset"), epoch_ms(max(occurred_at)) FROM (
                SELECT "offset", occurred_at FROM oldest
                QUALIFY row_number() OVER (PARTITION BY topic, "partition" ORDER BY "offset") = 1)
            """).fetchall()
        return None if first_offset == 0 else int(time)

    def history(self, rows: pd.DataFrame, layout: FeatureLayout) -> pd.DataFrame:
        """All transactions of the users of *rows*, and of their terminals what windows reach, each once, in log order;
        with ``partition``."""
        for name in ("user_id", "terminal_id", "transaction_id"):
            self._register(f"sampled_{name}", name, rows[name])
        verdicts = _relation(self._database, self._files)
        _narrowed(
            verdicts, (*_POSITION, "user_id", "terminal_id", "occurred_at", "amount", "kind", *layout.attributes)
        ).create_view("history", replace=True)
        return self._frame(
            """
            SELECT * EXCLUDE ("offset") FROM history
            WHERE user_id IN (SELECT user_id FROM sampled_user_id)
                OR transaction_id IN (SELECT transaction_id FROM sampled_transaction_id)
                OR (terminal_id IN (SELECT terminal_id FROM sampled_terminal_id)
                    AND epoch_us(occurred_at) BETWEEN $1 AND $2)
            QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY "partition", "offset") = 1
            ORDER BY "partition", "offset"
            """,
            to_us(rows["occurred_at"].min()) - (REACH_DAYS + 1) * DAY_US,
            to_us(rows["occurred_at"].max()),
        )

    def labels(self, history: pd.DataFrame) -> pd.DataFrame:
        """The reports on the transactions of *history*, in log order."""
        first, last = (instant.date() for instant in (history["occurred_at"].min(), history["occurred_at"].max()))
        files = _of_this_log(self._store.files(LABELS, first, last))
        if not files:
            instants = pd.Series([], dtype="datetime64[us, UTC]")
            return pd.DataFrame(
                {
                    "transaction_id": pd.Series([], dtype="object"),
                    "is_fraud": pd.Series([], dtype="bool"),
                    "occurred_at": instants,
                    "reported_at": instants,
                }
            )
        _relation(self._database, files).create_view("labels", replace=True)
        self._register("transactions", "transaction_id", history["transaction_id"])
        return self._frame(
            """SELECT transaction_id, is_fraud, occurred_at, reported_at
            FROM labels SEMI JOIN transactions USING (transaction_id)
                              ORDER BY "partition", "offset" """
        )

    def served(self, ids: list[str], layout: FeatureLayout) -> NDArray[np.float64]:
        """The vectors of *ids*, in that order, columns as ``layout.names``."""
        self._register("chosen", "transaction_id", pd.Series(ids, dtype="object"))
        _narrowed(self._recent, (*_POSITION, *layout.names)).create_view("vectors", replace=True)
        frame = self._frame("""SELECT * FROM vectors SEMI JOIN chosen USING (transaction_id)
            QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY "partition", "offset") = 1""").set_index(
            "transaction_id"
        )
        matrix: NDArray[np.float64] = frame.loc[ids].reindex(columns=list(layout.names)).to_numpy(np.float64)
        return matrix

    def _register(self, view: str, column: str, values: pd.Series) -> None:
        self._database.register(view, pa.table({column: pa.array(values.dropna().unique().tolist(), pa.string())}))

    def _frame(self, query: str, *values: int | None) -> pd.DataFrame:
        return self._database.execute(query, list(values)).df()


def _of_this_log(files: list[Path]) -> list[Path]:
    """Without those kept from a topic that was created again since: their offsets and state belong to another log."""
    return [path for path in files if _KEPT not in path.name]


def _relation(database: duckdb.DuckDBPyConnection, files: list[Path]) -> duckdb.DuckDBPyRelation:
    return database.read_parquet([str(path) for path in files], union_by_name=True, hive_partitioning=False)


def _narrowed(relation: duckdb.DuckDBPyRelation, columns: tuple[str, ...]) -> duckdb.DuckDBPyRelation:
    return relation.select(*(duckdb.ColumnExpression(name) for name in columns if name in relation.columns))


def _moved(rows: pd.DataFrame, history: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows' users appear in several partitions of *history*."""
    partitions = history.groupby("user_id")["partition"].nunique()
    return np.asarray(rows["user_id"].isin(partitions[partitions > 1].index).to_numpy(dtype=np.bool_))
