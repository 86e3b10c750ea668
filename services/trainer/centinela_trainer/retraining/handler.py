"""Retrain requests in, ``TrainingCompleted`` out. A request in progress is deferred, so the consumer keeps polling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from centinela.codec import Decoder
from centinela.consuming.handler import Outcome, StatefulHandler
from centinela.deadletters.record import DeadLetter
from centinela.errors import InvalidRecord
from centinela.events import RetrainRequested, TrainingCompleted, encode
from centinela.kafka.headers import event_headers, event_source, header
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.telemetry.tracing import TRACEPARENT
from centinela_trainer import metrics

_log = structlog.get_logger(__name__)
SOURCE = event_source("trainer")


class Runner(Protocol):
    """Works on one request at a time."""

    def answer(self, request: RetrainRequested) -> TrainingCompleted | None:
        """The answer, or None while it is in progress."""

    def cancel(self) -> None:
        """Stop working."""


class RetrainHandler(StatefulHandler):
    """Answers the requests of a partition one after the other.

    Args:
        runner: Trains. A request that was answered before must get the same answer again.
        model_name: Requests for other models are left to others.
        topic: Where answers go.
        answered: Called after each commit: the answers are sent.
    """

    def __init__(self, runner: Runner, model_name: str, topic: str, answered: Callable[[], None] | None = None) -> None:
        self._runner = runner
        self._model_name = model_name
        self._topic = topic
        self._answered = answered
        self._decoder = Decoder(RetrainRequested)

    def __call__(self, records: Sequence[Record]) -> Outcome:
        outcome = Outcome()
        busy = False
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            if partition in outcome.deferred:
                continue
            try:
                request = self._decoder.decode(record.value)
            except InvalidRecord as invalid:
                outcome.dead_letters.append(DeadLetter.of(record, invalid))
                continue
            if request.model_name != self._model_name:
                outcome.counts["other_model"] = outcome.counts.get("other_model", 0) + 1
                continue
            completed = None if busy else self._runner.answer(request)
            if completed is None:
                busy = True
                outcome.deferred[partition] = record.offset
                continue
            outcome.events.append(self._event(completed, header(record.headers, TRACEPARENT)))
        return outcome

    def on_committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self._answered is not None:
            self._answered()

    def on_revoked(self, partition: TopicPartition) -> None:
        self._runner.cancel()

    def _event(self, completed: TrainingCompleted, traceparent: str | None) -> Outgoing:
        metrics.TRAININGS.labels(completed.outcome).inc()
        _log.info(
            "training.completed",
            request_id=completed.request_id,
            outcome=completed.outcome,
            reason=completed.reason,
            model_version=completed.model_version,
            average_precision=completed.average_precision,
            champion_average_precision=completed.champion_average_precision,
            duration_s=completed.duration_s,
        )
        key = f"{completed.model_name}:trained:{completed.request_id}"
        return Outgoing(
            self._topic,
            encode(completed),
            key.encode(),
            event_headers(
                event_type="TrainingCompleted",
                event_id=key,
                source=SOURCE,
                time=completed.completed_at,
                traceparent=traceparent,
            ),
        )
