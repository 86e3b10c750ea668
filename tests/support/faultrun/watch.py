"""Sees how far the stream is behind and who is ready, and tells when a fault was overcome."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition  # noqa: TID251 - a client of the tests' own

from centinela.groups import STREAM
from centinela_local.readiness.checks import ask
from tests.support.faultrun.plan import Fault

_EVERY_S, _STEADY_S = 0.3, 1.0
TOPIC, GROUP = "transactions", STREAM.name


@dataclass
class Happened:
    """A fault and what came of it; times are seconds of the run.

    Attributes:
        hit: Whether it struck at the point it was meant for; None where it has none.
        recovered_s: From its end until lag was normal and everybody ready; None: not in time.
    """

    fault: Fault
    began: float
    ended: float = 0.0
    what: str = ""
    hit: bool | None = None
    problems: list[str] = field(default_factory=list)
    recovered_s: float | None = None
    overlapped: bool = False


class Watch:
    """Looks every 0.3 s, in a thread.

    ``outbox``: whether the gateway has verdicts that it could not write yet, or does not say.

    Args:
        urls: ``/ready`` is asked of each.
        normal_lag: Records behind that count as normal.
    """

    def __init__(self, servers: str, urls: dict[str, str], normal_lag: int, clock: Callable[[], float]) -> None:
        self._servers = servers
        self._urls = urls
        self._normal = normal_lag
        self._clock = clock
        self.lag = 0
        self.most_lag = 0
        self.looks = 0
        self.outbox = False
        self._answered = clock()
        self.unready: list[str] = []
        self._known = False
        self._steady_since: float | None = None
        self._open: list[Happened] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def expect(self, happened: Happened) -> None:
        """From now on wait for the recovery from *happened*, which just ended."""
        with self._lock:
            for other in self._open:
                other.overlapped = happened.overlapped = True
            self._open.append(happened)
            self._steady_since = None

    def silent_s(self) -> float:
        """For how long the brokers have not answered."""
        return self._clock() - self._answered

    def calm(self) -> bool:
        """Whether everything that happened was overcome."""
        with self._lock:
            return not self._open

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": GROUP,
                "enable.auto.commit": False,
                "socket.timeout.ms": 3000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        while not self._stop.wait(_EVERY_S):
            began = self._clock()
            with contextlib.suppress(KafkaException):
                partitions = [TopicPartition(TOPIC, n) for n in consumer.list_topics(TOPIC, 3).topics[TOPIC].partitions]
                ends = [consumer.get_watermark_offsets(p, 3)[1] for p in partitions]
                done = consumer.committed(partitions, 3)
                self.lag = sum(max(0, end - max(0, p.offset)) for p, end in zip(done, ends, strict=True))
                self.most_lag = max(self.most_lag, self.lag)
                self.looks = self.looks + 1
                self._answered = self._clock()
                self._known = True
            answers = {name: ask(f"{url}/ready", 2.0) for name, url in self._urls.items()}
            self.unready = [name for name, answer in answers.items() if answer is None or answer.status != 200]
            gateway = answers.get("gateway")
            self.outbox = gateway is None or "outbox" in gateway.body.get("degraded", {})
            self._judge(began)
            self._known = False
        consumer.close()

    def _judge(self, began: float) -> None:
        with self._lock:
            if not self._known or self.unready or self.lag > self._normal:
                self._steady_since = None
                return
            if self._steady_since is None:
                self._steady_since = began
            if self._clock() - self._steady_since < _STEADY_S:
                return
            for happened in [h for h in self._open if h.ended <= self._steady_since]:
                happened.recovered_s = round(self._steady_since - happened.ended, 1)
                self._open.remove(happened)


def await_end(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)
