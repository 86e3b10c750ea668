"""Feast's Redis online store, respecting event time: an older value is never written, an expired one never read.

The layout in Redis is Feast's own. The comparison and the write of an entity are one script on the server, so that two
writers cannot overtake each other between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, _versioned_fv_name
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import Field
from redis import exceptions

from centinela.featurestore import metrics
from centinela.featurestore.expiring import ExpiringReads, TtlClock, reaching, ttl_clock_of_environment
from centinela.featurestore.instants import microseconds, newest_of_each
from centinela.times import from_us

Write = tuple[Any, dict[str, Any], datetime, datetime | None]
UNAVAILABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
)

_WRITE_UNLESS_OLDER = """
local function instant(bytes)
  local parts, at = {0, 0}, 1
  while at <= #bytes do
    local field, value, scale = math.floor(string.byte(bytes, at) / 8), 0, 1
    repeat
      at = at + 1
      local byte = string.byte(bytes, at)
      value, scale = value + byte % 128 * scale, scale * 128
    until byte < 128
    parts[field], at = value, at + 1
  end
  return parts[1], parts[2]
end
local stored = redis.call('HGET', KEYS[1], ARGV[2])
if stored then
  local seconds, nanos = instant(stored)
  local new_seconds, new_nanos = instant(ARGV[3])
  if seconds > new_seconds or (seconds == new_seconds and nanos > new_nanos) then return 0 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if tonumber(ARGV[1]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 1
"""
"""ARGV: seconds until the key expires (0: never), then fields and values; the first is the event time, a protobuf
Timestamp."""


class EventTimeRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Configuration in ``feature_store.yaml``: as for Feast's ``redis``, with ``ttl_clock`` (see ``ExpiringReads``)."""

    type: Literal["centinela.featurestore.redis.EventTimeRedisOnlineStore"] = (
        "centinela.featurestore.redis.EventTimeRedisOnlineStore"  # type: ignore[assignment]
    )
    ttl_clock: TtlClock = Field(default_factory=ttl_clock_of_environment, validate_default=True)


class EventTimeRedisOnlineStore(ExpiringReads, RedisOnlineStore):
    """Any number of processes write and read."""

    def online_write_batch(
        self, config: Any, table: Any, data: list[Write], progress: Callable[[int], Any] | None
    ) -> None:
        """Write each entity's newest row of *data*, unless a newer one is stored.

        Raises:
            DependencyUnavailable: Redis does not answer, takes no writes or is full.
        """
        commands = _Commands(config, table, data)
        with reaching(*UNAVAILABLE), self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            commands.answered(pipe.execute())
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: Any, table: Any, data: list[Write], progress: Callable[[int], Any] | None
    ) -> None:
        """Like ``online_write_batch``."""
        commands = _Commands(config, table, data)
        client = await self._get_client_async(config.online_store)
        with reaching(*UNAVAILABLE):
            async with client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                commands.answered(await pipe.execute())
        if progress:
            progress(len(data))

    def newest_us(self, config: Any, table: Any) -> int:
        name = _versioned_fv_name(table, config)
        stored = self._get_client(config.online_store).hget(_newest_key(config), f"_ts:{name}")
        if stored is None:
            return 0
        instant = Timestamp()
        instant.ParseFromString(stored)
        us: int = instant.ToMicroseconds()
        return us


class _Commands:
    """The commands that write a batch: one for each entity, and one for the greatest event time of the view."""

    def __init__(self, config: Any, table: Any, data: list[Write]) -> None:
        self._table = table
        self._offered = len(data)
        view = _versioned_fv_name(table, config)
        version = config.entity_key_serialization_version
        expires = config.online_store.key_ttl_seconds or 0
        self._newest = newest_of_each(
            (_redis_key(config.project, row[0], version), microseconds(row[2]), row) for row in data
        )
        self._greatest = max((at for at, _ in self._newest.values()), default=0)
        self._commands: list[tuple[Any, ...]] = [
            (
                "EVAL",
                _WRITE_UNLESS_OLDER,
                1,
                key,
                expires,
                f"_ts:{view}",
                _timestamp(at),
                *(
                    part
                    for name, value in row[1].items()
                    for part in (_mmh3(f"{view}:{name}"), value.SerializeToString())
                ),
            )
            for key, (at, row) in self._newest.items()
        ]
        if data:
            self._commands.append(
                ("EVAL", _WRITE_UNLESS_OLDER, 1, _newest_key(config), 0, f"_ts:{view}", _timestamp(self._greatest))
            )

    def __iter__(self) -> Any:
        return iter(self._commands)

    def answered(self, answers: Sequence[int]) -> None:
        """Count the server's answers."""
        if answers:
            metrics.count(self._table.name, self._offered, len(self._newest), sum(answers[:-1]), self._greatest)


def _timestamp(us: int) -> bytes:
    instant = Timestamp()
    instant.FromDatetime(from_us(us))
    encoded: bytes = instant.SerializeToString()
    return encoded


def _newest_key(config: Any) -> str:
    return f"centinela:newest:{config.project}"
