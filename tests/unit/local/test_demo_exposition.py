"""The demo reads figures off the processes' metrics pages."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from centinela_local.demo.exposition import samples, total


def page() -> str:
    registry = CollectorRegistry()
    predictions = Counter("predictions_total", "Decisions.", ["decision", "variant"], registry=registry)
    predictions.labels("approve", "champion").inc(1_500_000)
    predictions.labels("decline", "champion").inc(3)
    predictions.labels("approve", "none").inc(7)
    Gauge("fraud_rate", "Share.", registry=registry).set(0.0125)
    Gauge("note", "Odd label.", ["text"], registry=registry).labels('a "quoted", b').set(1)
    return generate_latest(registry).decode()


def test_samples_add_up_over_the_labels_that_are_not_named() -> None:
    assert total(page(), "predictions_total") == 1_500_010
    assert total(page(), "predictions_total", variant="champion") == 1_500_003
    assert total(page(), "fraud_rate") == 0.0125


def test_what_is_not_there_is_none() -> None:
    assert total(page(), "predictions") is None
    assert total(page(), "predictions_total", variant="challenger") is None


def test_labels_are_read_whole() -> None:
    assert samples(page(), "note") == [({"text": 'a \\"quoted\\", b'}, 1.0)]
