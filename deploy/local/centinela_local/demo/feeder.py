"""Streams simulated days through Kafka: labelled history as fast as it goes, then live days at the plan's pace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from centinela.clock import SystemClock
from centinela.datasets.simulator import Drift, Profile, Simulation
from centinela.kafka.connect import producer
from centinela.kafka.headers import event_source
from centinela.settings import Settings
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_local.demo.plan import Plan

SLICES_PER_DAY = 20


class Feeder:
    """One simulation, history first, in the caller's thread; the live part in a thread of its own.

    Args:
        may_send: Asked before each slice of a live day; the feed waits while it is False.
        day_seconds: Wall time of a live day, asked before each slice.
        drifts: What changes in the stream; card testing from the plan's day on where None.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        may_send: Callable[[], bool],
        day_seconds: Callable[[], float],
        *,
        drifts: tuple[Drift, ...] | None = None,
    ) -> None:
        self._plan = plan
        self._may_send = may_send
        self._day_seconds = day_seconds
        profile = Profile(
            seed=plan.seed,
            customers=plan.customers,
            terminals=plan.terminals,
            start=plan.start,
            drifts=(Drift("card_testing", plan.attack_day),) if drifts is None else drifts,
        )
        self._simulation = Simulation(profile)
        self._stop = threading.Event()
        self._producer = producer(settings, client="confluent", linger_ms=10)
        options = BulkOptions(source=event_source("ingest", "simulator"), currency=settings.base_currency)
        self._bulk = BulkProducer(self._producer, options, stop=self._stop)
        self._thread = threading.Thread(target=self._live, name="feeder", daemon=True)
        self.error: BaseException | None = None

    def load_history(self, on_progress: Callable[[int, int], None]) -> None:
        """Send the days before the live ones as labelled history; *on_progress* gets days sent and days in all."""
        self._bulk.history = True
        for number in range(self._plan.history_days):
            self._bulk.send_day(self._simulation.day(number))
            on_progress(number + 1, self._plan.history_days)
        self._bulk.history = False
        self._bulk.finish(remaining_labels=False)

    def start(self) -> None:
        """Begin the live days."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether live days are still being sent."""
        return self._thread.is_alive()

    @property
    def transactions(self) -> int:
        """Sent so far, history included."""
        return self._bulk.counters.transactions

    @property
    def event_time(self) -> datetime | None:
        """Of the latest transaction sent."""
        return self._bulk.counters.event_time

    def stop(self) -> None:
        """End the live days where they stand, and wait until Kafka has everything."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=60)
        self._bulk.finish(remaining_labels=False)
        self._producer.close()

    def _live(self) -> None:
        clock = SystemClock()
        try:
            due = clock.monotonic()
            for number in range(self._plan.history_days, self._plan.last_day):
                frame = self._simulation.day(number)
                for piece in range(SLICES_PER_DAY):
                    day_seconds = self._day_seconds()
                    due += day_seconds / SLICES_PER_DAY
                    while (late := due - clock.monotonic()) > 0 or not self._may_send():
                        if self._stop.wait(max(late, 0.05)):
                            return
                    due = max(due, clock.monotonic() - day_seconds)
                    if not self._bulk.send_day(
                        frame.iloc[len(frame) * piece // SLICES_PER_DAY : len(frame) * (piece + 1) // SLICES_PER_DAY]
                    ):
                        return
        except BaseException as error:
            self.error = error
