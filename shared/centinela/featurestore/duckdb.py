"""Feast's DuckDB offline store over the archive: every entity row is returned, ties are decided, layouts may differ.

Feast's own reader uses the columns of the first file only, fails if there is no file yet, and chooses at random between
rows of one entity at one instant. Here the columns are those of all files, an empty archive gives missing values, and
of one entity's rows at one instant the last in the log counts, as in the online store.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import ibis
import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores import ibis as joins
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from ibis.expr.types import Table

from centinela.events import PURCHASE

Span = tuple[datetime, datetime]
_TIME = pa.timestamp("us", tz="UTC")
_ORDER = "offset"


class ArchiveDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Configuration in ``feature_store.yaml``: as for Feast's ``duckdb``, with the root of relative source paths."""

    type: Literal["centinela.featurestore.duckdb.ArchiveDuckDBOfflineStore"] = (
        "centinela.featurestore.duckdb.ArchiveDuckDBOfflineStore"
    )
    root: str = "."
    """The services' data directory, relative to the folder of the YAML file."""


class ArchiveDuckDBOfflineStore(DuckDBOfflineStore):
    """Reads ``FileSource`` paths (globs) of the archive's Parquet files."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> Any:
        """For each row of *entity_df* the values as of its time, NaN if there are none within the TTL.

        A naive time is UTC.

        Raises:
            ValueError: *entity_df* is not a DataFrame.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError("entity_df has to be a DataFrame: this store has no tables of its own to query")
        entities, span = _in_utc(entity_df)
        sources = {
            view.batch_source.name: (_keys(view), [feature.name for feature in view.features], _since(span, view.ttl))
            for view in feature_views
        }

        def read(source: Any, _repo_path: str) -> Table:
            keys, features, within = sources[source.name]
            return _archive(config, source, keys, _columns(source, features), within)

        return joins.get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entities,
            registry=registry,
            project=project,
            data_source_reader=read,
            data_source_writer=_write_data_source,
            full_feature_names=full_feature_names,
            staging_location=config.offline_store.staging_location,
            staging_location_endpoint_override=config.offline_store.staging_location_endpoint_override,
            filter_by_created_timestamp=filter_by_created_timestamp,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> Any:
        """The newest row of each entity between the dates, for ``feast materialize``."""
        job = joins.pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(config, join_key_columns, feature_name_columns),
            data_source_writer=_write_data_source,
            staging_location=config.offline_store.staging_location,
            staging_location_endpoint_override=config.offline_store.staging_location_endpoint_override,
        )
        return _by_feature_names(job, data_source)

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> Any:
        """All rows between the dates, of one entity at one instant the last; for ``feast materialize``."""
        job = joins.pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(config, join_key_columns, feature_name_columns),
            data_source_writer=_write_data_source,
            staging_location=config.offline_store.staging_location,
            staging_location_endpoint_override=config.offline_store.staging_location_endpoint_override,
        )
        return _by_feature_names(job, data_source)


def _reader(config: Any, keys: list[str], columns: list[str]) -> Callable[[Any, str], Table]:
    return lambda source, _repo_path: _archive(config, source, keys, columns, None)


def _archive(config: Any, source: Any, keys: Sequence[str], columns: Sequence[str], within: Span | None) -> Table:
    """The purchases of *source* that name their entity, by the columns of the archive; within *within* (both ends
    included)."""
    time = source.timestamp_field
    path = str(Path(config.repo_path or ".") / config.offline_store.root / source.path)
    if not glob.glob(path):
        return _empty(source, keys, columns)
    table = ibis.read_parquet(path, union_by_name=True, hive_partitioning=False)
    missing = {name: ibis.null("float64") for name in columns if name not in table.columns}
    table = table.mutate(**missing) if missing else table
    table = table.filter(*(table[key].notnull() for key in keys))
    if "kind" in table.columns:
        table = table.filter(table.kind.fill_null(PURCHASE) == PURCHASE)
    if within is not None:
        table = table.filter(table[time].between(*within))
    last = ibis.row_number().over(ibis.window(group_by=[*keys, time], order_by=ibis.desc(_ORDER)))
    return table.mutate(centinela_rank=last).filter(lambda t: t.centinela_rank == 0).drop("centinela_rank")


def _by_feature_names(job: Any, source: Any) -> Any:
    """Rename *job* by the mapping of *source*: materialization would use that of the view's push source, which is
    empty."""
    job.table = job.table.rename({new: old for old, new in source.field_mapping.items() if old in job.table.columns})
    return job


def _empty(source: Any, keys: Sequence[str], columns: Sequence[str]) -> Table:
    kinds = dict.fromkeys(columns, pa.float64()) | dict.fromkeys(keys, pa.string()) | {source.timestamp_field: _TIME}
    if source.created_timestamp_column:
        kinds[source.created_timestamp_column] = _TIME
    return ibis.memtable(pa.table({name: pa.array([], kind) for name, kind in kinds.items()}))


def _columns(source: Any, features: Sequence[str]) -> list[str]:
    """The names of *features* in the archive."""
    back = {new: old for old, new in source.field_mapping.items()}
    return [back.get(name, name) for name in features]


def _keys(view: Any) -> list[str]:
    return [column.name for column in view.entity_columns]


def _in_utc(entity_df: pd.DataFrame) -> tuple[pd.DataFrame, Span]:
    """A copy of *entity_df* with aware times, and the first and the last of them."""
    time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
    entities = entity_df.assign(**{time: pd.to_datetime(entity_df[time], utc=True)})
    return entities, (entities[time].min().to_pydatetime(), entities[time].max().to_pydatetime())


def _since(span: Span, ttl: timedelta | None) -> Span | None:
    return (span[0] - ttl, span[1]) if ttl else None
