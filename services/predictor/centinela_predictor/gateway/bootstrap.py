"""Builds the gateway's replica of the log from settings."""

from __future__ import annotations

import threading
from functools import partial

from centinela.clock import Clock
from centinela.consuming.table_reader import TableFollower, TableReader, open_table
from centinela.features.configured import layout_of
from centinela.kafka.connect import consumer
from centinela.liveness.health import Health
from centinela.liveness.threads import GuardedThread
from centinela.topics import LABELS, PREDICTIONS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor.bootstrap import StateStores, build_stores
from centinela_predictor.gateway.replica import PositionedReader, SeekStart, StateReplica, VerdictFollower, from_newest
from centinela_predictor.gateway.verdict_cache import VerdictCache
from centinela_predictor.settings import PredictorSettings


class Replica:
    """The gateway's followers: each a thread that starts at the right offsets and waits during an outage."""

    def __init__(self, state: StateReplica, threads: list[GuardedThread], stores: StateStores) -> None:
        self.state = state
        self.threads = threads
        self._stores = stores

    def close(self) -> None:
        """Release the stores of the state; the threads have ended."""
        self._stores.close()


def build_replica(
    settings: PredictorSettings, cache: VerdictCache, clock: Clock, health: Health, stop: threading.Event
) -> Replica:
    """The replica on the configured brokers; *health* waits until everything followed was read to its end once."""
    stores = build_stores(settings, clock)
    state = StateReplica(layout_of(settings), cache, clock, stores.partitions, settings.misrouted)
    verdicts = VerdictFollower(cache, state.layout)

    def reader(topic: str, seek_start: SeekStart) -> TableReader:
        return PositionedReader(consumer(settings, group=None, client="confluent"), topic, seek_start, clock)

    def terminals() -> TableReader:
        return open_table(settings, [TERMINAL_ACTIVITY.name, LABELS.name], client="confluent")

    follow = partial(TableFollower, health=health, stop=stop, patience=settings.patience)
    followers = {
        "transactions": follow(
            partial(reader, TRANSACTIONS.name, state.seek_start), state.apply_transactions, condition="transactions"
        ),
        "terminals": follow(terminals, state.apply_terminals, condition="terminals"),
        "verdicts": follow(
            partial(reader, PREDICTIONS.name, from_newest(settings.gateway_verdicts)),
            verdicts.apply,
            condition="verdicts",
        ),
    }
    return Replica(
        state,
        [GuardedThread(f"follow-{name}", follower.run, health, stop.set) for name, follower in followers.items()],
        stores,
    )
