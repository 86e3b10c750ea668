"""A consumer loop on the fake broker, with a handler that copies and remembers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from centinela.consuming.handler import Outcome, StatefulHandler
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetter
from centinela.errors import InvalidRecord
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer

NOW = datetime(2018, 4, 1, tzinfo=UTC)
GROUP, SOURCE, SINK = "g", "transactions", "predictions"
P0, P1 = TopicPartition(SOURCE, 0), TopicPartition(SOURCE, 1)


class Copying(StatefulHandler):
    """Copies each record; ``b"bad"`` and ``b"misrouted"`` are refused; keeps a history of its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.is_ready = True
        self.restore: dict[TopicPartition, int] = {}
        self.known: dict[TopicPartition, int] = {}
        self.defer_from: dict[TopicPartition, int] = {}
        self.errors: list[Exception] = []
        self.idle_event: Outgoing | None = None

    def __call__(self, records: Sequence[Record]) -> Outcome:
        if self.errors:
            raise self.errors.pop(0)
        self.calls.append(("process", [r.value for r in records]))
        outcome = Outcome(
            deferred={p: o for p, o in self.defer_from.items() if any((r.topic, r.partition) == p for r in records)}
        )
        for record in records:
            if record.offset >= outcome.deferred.get(TopicPartition(record.topic, record.partition), record.offset + 1):
                continue
            if record.value == b"bad":
                outcome.dead_letters.append(DeadLetter.of(record, InvalidRecord("malformed_json", "no JSON")))
            elif record.value == b"misrouted":
                outcome.dead_letters.append(DeadLetter(record, "wrong_partition", "its key belongs to partition 1"))
            else:
                outcome.events.append(Outgoing(SINK, record.value, record.key))
        return outcome

    def ready(self) -> bool:
        return self.is_ready

    def position_known(self, partition: TopicPartition) -> int | None:
        return self.known.get(partition)

    def on_assigned(self, partition: TopicPartition, committed: int | None) -> int | None:
        self.calls.append(("assigned", partition, committed))
        return self.restore.get(partition)

    def replay(self, records: Sequence[Record]) -> None:
        self.calls.append(("replay", [r.value for r in records]))

    def on_committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.calls.append(("committed", dict(offsets)))

    def on_revoked(self, partition: TopicPartition) -> None:
        self.calls.append(("revoked", partition))

    def on_dropped(self, partition: TopicPartition) -> None:
        self.calls.append(("dropped", partition))

    def idle(self) -> Outcome | None:
        return Outcome([self.idle_event]) if self.idle_event else None

    def told(self, *kinds: str) -> list[tuple[object, ...]]:
        return [call for call in self.calls if call[0] in kinds]


class Rig:
    """A loop with everything around it."""

    def __init__(
        self, partitions: int = 1, group: str = GROUP, broker: FakeBroker | None = None, **options: Any
    ) -> None:
        self.broker = broker or FakeBroker(partitions)
        self.handler = Copying()
        self.health = Health("kafka")
        self.stop = threading.Event()
        self.clock = FixedClock(NOW)
        self.consumer = FakeConsumer(self.broker, group)
        self.producer = FakeTransactionalProducer(self.broker, f"{group}-{id(self)}")
        self.loop = ConsumerLoop(
            self.consumer,
            self.producer,
            self.handler,
            topics=[SOURCE],
            health=self.health,
            stop=self.stop,
            options=LoopOptions(clock=self.clock, poll_timeout_s=0, **options),
        )

    def fill(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self.broker.append(SOURCE, value, b"k", partition=partition)

    def steps(self, count: int = 6) -> None:
        for _ in range(count):
            self.loop.run_once()

    def sink(self) -> list[bytes | None]:
        return [r.value for r in self.broker.records(SINK)]

    def committed(self) -> dict[TopicPartition, int]:
        return self.broker.committed(GROUP)
