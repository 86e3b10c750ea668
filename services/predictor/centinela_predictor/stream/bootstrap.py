"""Builds the stream from settings."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from centinela.clock import Clock
from centinela.consuming.carry_over import carry_over
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetterCap
from centinela.features.configured import layout_of
from centinela.groups import STREAM
from centinela.kafka.connect import consumer, transactional_producer
from centinela.liveness.health import Health
from centinela.topics import TRANSACTIONS
from centinela_predictor.bootstrap import StateStores, build_stores
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.stream.deferral import StreamLimits
from centinela_predictor.stream.handler import StreamHandler


@dataclass(frozen=True)
class Stream:
    """``loop.run()`` works until the stop event and raises as ``ConsumerLoop`` says; call ``close`` after it."""

    loop: ConsumerLoop
    handler: StreamHandler
    feed: TerminalFeed
    stores: StateStores

    def close(self) -> None:
        """Release the feed's consumer and what state is kept with; the loop releases its own."""
        self.feed.close()
        self.stores.close()


def build_stream(
    settings: PredictorSettings, core: ScoringCore, slot: ModelSlot, health: Health, clock: Clock, stop: threading.Event
) -> Stream:
    """The stream of replica ``settings.slot``; nothing is connected before ``loop.run()``.

    Partition snapshots are shared by all replicas of the folder (whoever owns a partition continues from them),
    terminal snapshots are the replica's own.
    """
    replica, layout = f"predictor-{settings.slot}", layout_of(settings)
    stores = build_stores(settings, clock)
    feed = TerminalFeed(consumer(settings, group=None, client="confluent"), stores.terminals, clock, layout)
    reader = consumer(settings, group=STREAM.name, client="confluent", instance_id=replica)
    handler = StreamHandler(
        layout=layout,
        core=core,
        slot=slot,
        feed=feed,
        reader=reader,
        stores=stores.partitions,
        snapshot_interval_s=settings.snapshot_interval_s,
        clock=clock,
        health=health,
        writer=secrets.randbits(64),
        limits=StreamLimits(settings.idle_after_s, settings.gate_patience_s),
        on_misrouted=settings.misrouted,
    )
    loop = ConsumerLoop(
        reader,
        transactional_producer(settings, transactional_id=replica, client="confluent"),
        handler,
        topics=[TRANSACTIONS.name],
        health=health,
        stop=stop,
        options=LoopOptions(
            batch=settings.stream_batch,
            poll_timeout_s=0.1,
            clock=clock,
            service="predictor-stream",
            cap=DeadLetterCap(settings.dead_letter_max_share),
            patience=settings.patience,
            carry_over=carry_over(settings, STREAM, client="confluent", has_position=handler.has_position),
        ),
    )
    return Stream(loop, handler, feed, stores)
