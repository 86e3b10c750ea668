"""Builds the stream from settings."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from centinela.clock import Clock
from centinela.features.configured import layout_of
from centinela.features.store import SnapshotStore
from centinela.kafka.connect import consumer, transactional_producer
from centinela.kafka.dlq import DeadLetterCap
from centinela.kafka.loop import ConsumerLoop
from centinela.kafka.port import TopicPartition
from centinela.telemetry.health import Health
from centinela.topics import STREAM_GROUP, TRANSACTIONS
from centinela_predictor.model_slot import ModelSlot
from centinela_predictor.scoring import ScoringCore
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.stream import StreamHandler, StreamLimits
from centinela_predictor.terminal_feed import TerminalFeed


@dataclass(frozen=True)
class Stream:
    """``loop.run()`` works until the stop event and raises as ``ConsumerLoop`` says; call ``close`` after it."""

    loop: ConsumerLoop
    handler: StreamHandler
    feed: TerminalFeed

    def close(self) -> None:
        """Release the feed's consumer; the loop releases its own."""
        self.feed.close()


def build_stream(settings: PredictorSettings, core: ScoringCore, slot: ModelSlot, health: Health, clock: Clock,
                 stop: threading.Event) -> Stream:
    """The stream of replica ``settings.slot``; nothing is connected before ``loop.run()``.

    Partition snapshots are shared by all replicas of the folder (whoever owns a partition continues from them), terminal
    snapshots are the replica's own.
    """
    replica, layout = f"predictor-{settings.slot}", layout_of(settings)
    terminals = SnapshotStore(settings.state_dir / f"terminals-{settings.slot}")
    feed = TerminalFeed(consumer(settings, group=None, client="confluent"), terminals, clock, layout)

    reader = consumer(settings, group=STREAM_GROUP, client="confluent", instance_id=replica)

    def reads_all(partition: TopicPartition) -> bool:
        return reader.position(partition) >= reader.end_offsets([partition])[partition]

    def store_of(partition: int) -> SnapshotStore:
        return SnapshotStore(settings.state_dir / "partitions" / str(partition))

    handler = StreamHandler(
        layout=layout, core=core, slot=slot, feed=feed, reads_all=reads_all,
        store_of=store_of, snapshot_interval_s=settings.snapshot_interval_s, clock=clock, health=health, writer=secrets.randbits(64),
        limits=StreamLimits(settings.idle_after_s, settings.gate_patience_s, settings.dedupe_ids),
    )
    loop = ConsumerLoop(
        reader, transactional_producer(settings, transactional_id=replica, client="confluent"), handler, topics=[TRANSACTIONS.name], health=health,
        stop=stop, batch=settings.stream_batch, poll_timeout_s=0.1, clock=clock, service="predictor-stream",
        cap=DeadLetterCap(settings.dead_letter_max_share),
    )
    return Stream(loop, handler, feed)
