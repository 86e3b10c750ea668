"""Promotions are found among whatever else ``model-events`` holds."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from centinela.consuming.model_events import Promotions
from centinela.events import ModelLoaded, ModelPromoted, encode
from centinela.kafka.port import Record

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PROMOTED = ModelPromoted(
    model_name="FraudDetector", alias="champion", model_version="2", previous_version="1", sequence=4, observed_at=NOW
)
LOADED = ModelLoaded(
    model_name="FraudDetector",
    alias="champion",
    model_version="2",
    replica="gateway-0",
    sequence=4,
    loaded_at=NOW,
    duration_s=1,
)


def test_only_promotions_of_the_model_are_found_and_what_cannot_be_read_is_passed_over() -> None:
    other = msgspec.structs.replace(PROMOTED, model_name="Other")
    later = msgspec.structs.replace(PROMOTED, sequence=5)
    values = [None, b"no event", encode(LOADED), encode(other), encode(PROMOTED), encode(later)]
    records = [Record("model-events", 0, offset, b"k", value) for offset, value in enumerate(values)]

    assert list(Promotions("FraudDetector").among(records)) == [PROMOTED, later]
