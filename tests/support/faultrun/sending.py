"""Sends the workload: through Kafka, the ingest API and the gateway, each item until it is acknowledged or refused for
good."""

from __future__ import annotations

import json
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import httpx
from confluent_kafka import KafkaException, Producer  # noqa: TID251 - a client of the tests' own

from centinela.times import DAY_MS
from tests.support.faultrun.ledger import Ledger
from tests.support.faultrun.workload import Item

CODEC = "zstd"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
Unit = Literal["s", "us"]
_NANOSECONDS: dict[Unit, int] = {"s": 1_000_000_000, "us": 1_000}
_FOREIGN_EVERY = 5
_BATCH = 20
_PAUSE_S = 0.3
_NOT_NOW = {0, 408, 425, 429, 500, 502, 503, 504}
UNACKNOWLEDGED_MS = int(0.8 * DAY_MS)
"""Event time does not run further ahead of the oldest item on its way: what comes late is then within what the product
promises."""


class KafkaSender:
    """Writes to ``transactions`` and ``labels`` as a payments team would: idempotent, acks=all; what fails is sent
    again.

    Attributes:
        codecs: Compression of one record after another, by a producer each.
        foreign_unit: Every ``_FOREIGN_EVERY``-th record comes from a producer that stamps it in this unit.
    """

    def __init__(self, servers: str, ledger: Ledger) -> None:
        self._servers = servers
        self._ledger = ledger
        self._producers: dict[tuple[str, Unit | None], Producer] = {}
        self._producer(CODEC, None)
        self._again: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._sent = 0
        self.codecs: Sequence[str] = (CODEC,)
        self.foreign_unit: Unit | None = None

    def send(self, item: Item) -> None:
        """Hand *item* over; its acknowledgement comes with a later call or ``poll``."""
        self._sent += 1
        unit = self.foreign_unit if self._sent % _FOREIGN_EVERY == 0 else None
        self._send(item, self.codecs[self._sent % len(self.codecs)], unit)

    def _send(self, item: Item, codec: str, unit: Unit | None) -> None:
        producer = self._producer(codec, unit)
        topic = "labels" if item.what == "label" else "transactions"
        stamp = 0 if unit is None else time.time_ns() // _NANOSECONDS[unit]
        on_delivery = partial(self._delivered, item, topic)
        while True:
            try:
                producer.produce(topic, item.value, item.key, on_delivery=on_delivery, timestamp=stamp)
                return
            except BufferError:
                producer.poll(0.1)

    def _producer(self, codec: str, unit: Unit | None) -> Producer:
        if (codec, unit) not in self._producers:
            self._producers[codec, unit] = Producer(
                {
                    "bootstrap.servers": self._servers,
                    "enable.idempotence": True,
                    "acks": "all",
                    "partitioner": "murmur2_random",
                    "linger.ms": 10,
                    "compression.type": codec,
                    "message.timeout.ms": 0,
                    "queue.buffering.max.messages": 200_000,
                    "reconnect.backoff.max.ms": 1000,
                    "topic.metadata.refresh.interval.ms": 1000,
                }
            )
        return self._producers[codec, unit]

    def poll(self, timeout_s: float = 0.0) -> None:
        """Take acknowledgements; send again what failed, as its client should have sent it."""
        for number, producer in enumerate([*self._producers.values()]):
            producer.poll(timeout_s if number == 0 else 0)
        while not self._again.empty():
            self._send(self._again.get(), CODEC, None)

    def abandon(self) -> None:
        """Give up what is on its way."""
        for producer in [*self._producers.values()]:
            producer.purge()

    def _delivered(self, item: Item, topic: str, error: object, message: object) -> None:
        if error is not None:
            if getattr(error, "fatal", lambda: False)():
                raise KafkaException(error)
            self._again.put(item)
            return
        self._ledger.keep(item, topic, message.partition(), message.offset())  # type: ignore[attr-defined]
        self._ledger.end(item)


class HttpSender:
    """Posts to the gateway (one transaction a request) or to the ingest API (up to 20), with retries under the same id.

    The items of one user go one after another, by one worker.
    """

    def __init__(self, path: str, url: str, ledger: Ledger, workers: int = 6) -> None:
        self._path = path
        self._url = url
        self._ledger = ledger
        self._queues: list[queue.SimpleQueue[Item | None]] = [queue.SimpleQueue() for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._work, args=(waiting,), name=f"{path}-{n}", daemon=True)
            for n, waiting in enumerate(self._queues)
        ]
        self._closing = threading.Event()
        for thread in self._threads:
            thread.start()

    def send(self, item: Item) -> None:
        """Queue *item*."""
        self._queues[zlib.crc32(item.key) % len(self._queues)].put(item)

    def close(self) -> None:
        """End the workers, whatever waits."""
        self._closing.set()
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join(30)

    def _work(self, waiting: queue.SimpleQueue[Item | None]) -> None:
        with httpx.Client(base_url=self._url, timeout=20) as client:
            left: Item | None = None
            while not self._closing.is_set():
                first = left if left is not None else waiting.get()
                left = None
                if first is None:
                    return
                batch = [first]
                while self._path == "ingest" and len(batch) < _BATCH and not waiting.empty():
                    following = waiting.get()
                    if following is None or not _together(batch[-1], following):
                        left = following
                        break
                    batch.append(following)
                self._post(client, batch)

    def _post(self, client: httpx.Client, batch: list[Item]) -> None:
        """Until there is a last word."""
        if self._path == "gateway":
            where, body = "/predict", batch[0].value or b""
        else:
            where = "/labels" if batch[0].what == "label" else "/transactions"
            body = (
                batch[0].value or b""
                if len(batch) == 1
                else b"[" + b",".join(item.value or b"" for item in batch) + b"]"
            )
        while not self._closing.is_set():
            status, answer = 0, None
            try:
                response = client.post(where, content=body, headers={"content-type": "application/json"})
                status = response.status_code
                answer = response.json()
            except (httpx.TransportError, json.JSONDecodeError):
                pass
            self._ledger.attempted(self._path, status)
            if status not in _NOT_NOW:
                for item in batch:
                    self._ledger.answered(item, status, answer)
                    self._ledger.end(item)
                return
            self._closing.wait(_PAUSE_S)


def _together(one: Item, other: Item) -> bool:
    """Whether both may go in one request."""
    return "refused" not in (one.what, other.what) and (one.what == "label") == (other.what == "label")


class Load:
    """Sends *items* at a rate, in a thread, no further ahead than what is acknowledged allows.

    Args:
        lag: Records that the stream is behind, as last seen; past *most_behind* the load waits.
        outbox: Whether verdicts that the gateway gave may not be in the log yet, as last seen.
        looks: How often both were seen.
    """

    def __init__(
        self,
        items: Iterator[Item],
        ledger: Ledger,
        kafka: KafkaSender,
        ingest: HttpSender,
        gateway: HttpSender,
        *,
        rate: float,
        lag: Callable[[], int],
        outbox: Callable[[], bool],
        looks: Callable[[], int],
        most_behind: int = 40_000,
    ) -> None:
        self.ledger = ledger
        self._items = items
        self._kafka = kafka
        self._http = {"ingest": ingest, "gateway": gateway}
        self._rate = rate
        self._lag = lag
        self._outbox = outbox
        self._looks = looks
        self._most_behind = most_behind
        self._jumped = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.failure: BaseException | None = None
        self.sent = self.event_ms = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, timeout_s: float) -> int:
        """Send nothing new, and wait for what is on its way; what then is left without a word."""
        self._stop.set()
        self._thread.join(timeout_s)
        deadline = time.monotonic() + timeout_s
        while self.ledger.pending and time.monotonic() < deadline:
            self._kafka.poll(0.1)
        for sender in self._http.values():
            sender.close()
        return self.ledger.pending

    def abandon(self) -> None:
        """Send nothing more, and wait for nothing."""
        self._stop.set()
        for sender in self._http.values():
            sender.close()
        self._thread.join(30)
        self._kafka.abandon()

    def _run(self) -> None:
        try:
            self._send_all()
        except BaseException as error:
            self.failure = error
            raise

    def _send_all(self) -> None:
        due = time.monotonic()
        for number, item in enumerate(self._items):
            paced = number % 100 == 0
            while not self._stop.is_set() and (self._ahead(item) or (paced and time.monotonic() < due)):
                self._kafka.poll(0.01)
            if self.event_ms > 0 and item.at_ms - self.event_ms > DAY_MS:
                self._jumped = True
                self._await_seen(lambda: not self._outbox())
            if self._jumped and item.path == "gateway":
                self._await_stream()
            if self._stop.is_set():
                return
            if paced:
                due = max(due + 100 / self._rate, time.monotonic() - 1.0)
                self._kafka.poll()
            self.ledger.begin(item)
            self.sent = self.sent + 1
            self.event_ms = item.at_ms
            (self._kafka if item.path == "kafka" else self._http[item.path]).send(item)

    def _await_stream(self) -> None:
        """A gateway answers on what has been read: where days pass in a moment, it is asked after the stream has read
        them."""
        self._await_seen(lambda: self._lag() == 0)
        self._jumped = False

    def _await_seen(self, condition: Callable[[], bool]) -> None:
        """Until *condition* is true of what was seen from now on."""
        looks = self._looks()
        while not self._stop.is_set() and (self._looks() < looks + 3 or not condition()):
            self._kafka.poll(0.05)

    def _ahead(self, item: Item) -> bool:
        oldest = self.ledger.oldest_pending_ms()
        return (oldest is not None and item.at_ms - oldest > UNACKNOWLEDGED_MS) or self._lag() > self._most_behind
