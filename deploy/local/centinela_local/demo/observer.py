"""Follows the loop's events on Kafka in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

import structlog

from centinela import topics
from centinela.codec import Decoder, ModelEventDecoder
from centinela.consuming.table_reader import open_table
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import DriftReported, Event, RetrainRequested
from centinela.kafka.port import Record
from centinela.settings import Settings

_log = structlog.get_logger(__name__)
_POLL_S = 0.2
_DECODERS: dict[str, Decoder[Event]] = {
    topics.DRIFT_REPORTS.name: Decoder(DriftReported),
    topics.RETRAIN_REQUESTS.name: Decoder(RetrainRequested),
    topics.MODEL_EVENTS.name: ModelEventDecoder(),
}


class Observer:
    """Collects the events of ``drift-reports``, ``retrain-requests`` and ``model-events`` from the topics' beginning
    on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def take(self) -> list[Event]:
        """The events that came since the last call, in order within a topic."""
        taken = []
        while not self._events.empty():
            taken.append(self._events.get())
        return taken

    def _run(self) -> None:
        reader = open_table(self._settings, list(_DECODERS))
        try:
            while not self._stop.is_set():
                try:
                    for event in decoded(reader.poll(_POLL_S)):
                        self._events.put(event)
                except DependencyUnavailable:
                    self._stop.wait(_POLL_S)
        finally:
            reader.close()


def decoded(records: Iterable[Record]) -> Iterator[Event]:
    """The events of *records*; deletions and records that are no event are left out."""
    for record in records:
        if record.value is not None:
            try:
                yield _DECODERS[record.topic].decode(record.value)
            except InvalidRecord as invalid:
                _log.warning("event.not_understood", topic=record.topic, offset=record.offset, reason=invalid.reason)
