"""What the online stores share: reads that respect a view's TTL, and one error for an unavailable store."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.Value_pb2 import Value

from centinela.clock import Clock, SystemClock
from centinela.errors import DependencyUnavailable
from centinela.featurestore.instants import Read, without_expired
from centinela.times import from_us

DEPENDENCY = "feature store"
TtlClock = Literal["wall", "event"]
Rows = list[Read[dict[str, Any]]]


def ttl_clock_of_environment() -> str:
    """``CENTINELA_FEAST_TTL_CLOCK``, else ``wall``."""
    return os.environ.get("CENTINELA_FEAST_TTL_CLOCK") or "wall"


@contextmanager
def reaching(*errors: type[Exception]) -> Iterator[None]:
    """Raise *errors* of an unavailable store as ``DependencyUnavailable``."""
    try:
        yield
    except errors as error:
        raise DependencyUnavailable(f"{type(error).__name__}: {error}", dependency=DEPENDENCY) from error


class ExpiringReads(OnlineStore):
    """Mixin for a Feast online store: values older than the view's TTL read as not found, as does an entity row
    without a key.

    Views are read one by one, each with its own TTL. The age counts from ``clock``, or, if the store is configured
    with ``ttl_clock: event`` (a replay of last year's transactions), from the greatest event time ever written to the
    view.
    """

    clock: Clock = SystemClock()

    @abstractmethod
    def newest_us(self, config: Any, table: Any) -> int:
        """Greatest event time ever written to the view *table*, us; 0 if none was."""

    def exact_times(self, config: Any, table: Any, entity_keys: list[Any], rows: Rows) -> Rows:
        """*rows* with exact event times, if the store's own reads round them."""
        return rows

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> Rows:
        names = None if requested_features is None else list(requested_features)
        rows = super().online_read(config, table, entity_keys, names)  # type: ignore[safe-super]
        return without_expired(self.exact_times(config, table, entity_keys, rows), table.ttl, self._now(config, table))

    async def online_read_async(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> Rows:
        names = None if requested_features is None else list(requested_features)
        rows = await super().online_read_async(config, table, entity_keys, names)
        return without_expired(self.exact_times(config, table, entity_keys, rows), table.ttl, self._now(config, table))

    def _read_features_per_fv(self, config: Any, grouped_refs: Any, join_key_values: Any, *rest: Any) -> None:
        OnlineStore._read_features_per_fv(self, config, grouped_refs, _with_a_key(join_key_values), *rest)

    async def _read_features_per_fv_async(
        self, config: Any, grouped_refs: Any, join_key_values: Any, *rest: Any
    ) -> None:
        await OnlineStore._read_features_per_fv_async(self, config, grouped_refs, _with_a_key(join_key_values), *rest)

    def _now(self, config: Any, table: Any) -> datetime:
        if config.online_store.ttl_clock == "event":
            return from_us(self.newest_us(config, table))
        return self.clock.now()


def _with_a_key(join_key_values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Feast fails on a row whose key is None; it is looked up under the empty string, which is nobody's key."""
    no_key = Value(string_val="")
    return {
        name: [value if value.WhichOneof("val") else no_key for value in values]
        for name, values in join_key_values.items()
    }
