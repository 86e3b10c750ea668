"""The demo sees the loop through Kafka and HTTP as it is, failures included."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from centinela.events import Event, ModelPromoted, RetrainRequested, encode
from centinela.kafka.connect import producer, topic_admin
from centinela.kafka.port import Outgoing, Record
from centinela.settings import Settings
from centinela_local.demo.figures import Meter
from centinela_local.demo.observer import Observer, decoded
from centinela_local.demo.probe import Probe
from centinela_local.demo.view import Figures
from centinela_local.processes.ports import free_port
from tests.support.waiting import eventually

AT = datetime(2025, 3, 1, tzinfo=UTC)
METRICS = (
    'centinela_consumer_records_total{outcome="scored",topic="transactions"}'
    ' 1200.0\ncentinela_consumer_records_total{outcome="held",topic="transactions"}'
    ' 5.0\ncentinela_consumer_records_total{outcome="processed",topic="labels"} 9.0\nfraud_rate'
    ' 0.02\ncentinela_consumer_lag_records{topic="transactions",partition="0"} 7.0\n'
)


class Gateway:
    """Answers 200 until told to fail, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.bodies, gateway = 200, list[dict[str, object]](), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                gateway.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(gateway.status, json.dumps({"model_version": "3"}))

            def do_GET(self) -> None:
                self._answer(200, METRICS)

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    running = Gateway()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_the_probe_asks_at_the_streams_event_time_and_counts_what_fails(gateway: Gateway) -> None:
    probe = Probe(gateway.url, lambda: AT, interval_s=0.01)
    probe.start()
    assert eventually(lambda: probe.requests >= 3 and probe.version == "3")
    assert not probe.failures
    gateway.status = 503
    assert eventually(lambda: len(probe.failures) >= 2)
    probe.stop()

    assert probe.failures[-1].startswith("503")
    assert {body["occurred_at"] for body in gateway.bodies} == {AT.isoformat()}
    assert len({body["transaction_id"] for body in gateway.bodies}) == len(gateway.bodies)


def test_a_gateway_that_is_gone_counts_as_a_failure() -> None:
    probe = Probe(f"http://127.0.0.1:{free_port()}", lambda: AT, interval_s=0.01)
    probe.start()
    assert eventually(lambda: bool(probe.failures))
    probe.stop()


def test_the_probe_sends_nothing_before_the_stream_has_a_time(gateway: Gateway) -> None:
    probe, asked = Probe(gateway.url, lambda: asked.append(1), interval_s=0.01), list[int]()
    probe.start()
    assert eventually(lambda: len(asked) > 3)
    probe.stop()
    assert not gateway.bodies


def test_the_meter_reads_progress_lag_and_rate(gateway: Gateway) -> None:
    figures, meter = Figures("test"), Meter(gateway.url)
    assert meter.read(figures, now=1.0)
    assert (figures.processed, figures.lag, figures.fraud_rate) == (1200.0, 7.0, 0.02)
    assert not Meter(f"http://127.0.0.1:{free_port()}").read(figures, now=2.0)


def test_the_observer_finds_what_stands_in_the_topics_and_what_comes(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    admin = topic_admin(settings)
    admin.create()
    admin.close()
    model = f"model-{AT:%f}-{time.monotonic_ns()}"
    events: list[tuple[str, Event]] = [
        (
            "retrain-requests",
            RetrainRequested(request_id="r", model_name=model, requested_by="drift", as_of=AT, reason="AP fell"),
        ),
        (
            "model-events",
            ModelPromoted(
                model_name=model, alias="champion", model_version="2", previous_version="1", sequence=2, observed_at=AT
            ),
        ),
    ]
    observer, seen, sender = Observer(settings), list[Event](), producer(settings)

    def arrived(count: int) -> bool:
        seen.extend(event for event in observer.take() if event.model_name == model)  # type: ignore[attr-defined]
        return len(seen) == count

    sender.send(Outgoing(events[0][0], encode(events[0][1]))).wait(10)
    observer.start()
    assert eventually(lambda: arrived(1))
    sender.send(Outgoing(events[1][0], encode(events[1][1]), b"k")).wait(10)
    assert eventually(lambda: arrived(2))
    observer.stop()
    sender.close()
    assert [event for _, event in events] == seen


def test_a_record_that_is_no_event_does_not_hide_the_next_one() -> None:
    event = RetrainRequested(request_id="r", model_name="m", requested_by="drift", as_of=AT, reason="AP fell")
    values = [b"no event", None, encode(event)]
    assert list(decoded(Record("retrain-requests", 0, offset, None, value) for offset, value in enumerate(values))) == [
        event
    ]
