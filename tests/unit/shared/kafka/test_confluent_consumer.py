"""The confluent adapter on a scripted librdkafka: what it gives back together with an error, and that closing ends."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError  # noqa: TID251 - the errors that the scripted library gives

from centinela.errors import DependencyUnavailable
from centinela.kafka.confluent.common import port_error
from centinela.kafka.confluent.consumer import ConfluentConsumer
from centinela.kafka.timeouts import KafkaTimeouts

SHORT = KafkaTimeouts(request_s=0.05)


class Message:
    """A record, or an error where *code* is given."""

    def __init__(self, offset: int = 0, code: int | None = None) -> None:
        self._offset, self._code = offset, code

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return b"%d" % self._offset

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Librdkafka:
    """Gives *messages* once each, as the library does; ``close`` lasts until *released*."""

    def __init__(self, *messages: Message) -> None:
        self.messages = deque(messages)
        self.released, self.closing = threading.Event(), threading.Event()

    def __call__(self, config: dict[str, Any]) -> Librdkafka:
        return self

    def poll(self, timeout: float) -> Message | None:
        return self.messages.popleft() if self.messages else None

    def consume(self, count: int, timeout: float) -> list[Message]:
        return [self.messages.popleft() for _ in range(min(count, len(self.messages)))]

    def close(self) -> None:
        self.closing.set()
        self.released.wait(30)


def consumer(library: Librdkafka) -> ConfluentConsumer:
    return ConfluentConsumer("127.0.0.1:9", "g", timeouts=SHORT, client=cast("Any", library))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_records_beside_an_error_are_not_lost(at: int) -> None:
    messages = [Message(offset) for offset in range(2)]
    messages.insert(at, Message(code=KafkaError.UNKNOWN_TOPIC_OR_PART))
    reader = consumer(Librdkafka(*messages, Message(2)))

    got: list[bytes | None] = []
    errors = 0
    for _ in range(4):
        try:
            got += [record.value for record in reader.poll(0, 100)]
        except DependencyUnavailable:
            errors += 1

    assert got == [b"0", b"1", b"2"]
    assert errors == 1


def test_an_error_without_records_is_raised_at_once() -> None:
    with pytest.raises(DependencyUnavailable):
        consumer(Librdkafka(Message(code=KafkaError.UNKNOWN_TOPIC_OR_PART))).poll(0, 100)


def test_closing_ends_although_librdkafka_does_not_return_and_is_asked_only_once() -> None:
    library = Librdkafka()
    reader = consumer(library)
    began = time.monotonic()
    try:
        reader.close()
        reader.close()
        assert library.closing.is_set()
        assert time.monotonic() - began < 20, "it waited for librdkafka, which lasts 30 s"
    finally:
        library.released.set()


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._DESTROY_BROKER, KafkaError.OFFSET_NOT_AVAILABLE]
)
def test_a_broker_that_went_away_under_a_request_is_waited_for(code: int) -> None:
    """librdkafka gives the third where it drops its handle of a broker while a request is in it, a leader that was just
    elected the fourth."""
    assert isinstance(port_error(KafkaError(code)), DependencyUnavailable)
